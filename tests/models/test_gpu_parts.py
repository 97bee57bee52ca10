"""Scorers whose kernels compute elsewhere: the same ranks, lists and scores."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels import CSR
from mllmrec_kernels.base import backend
from mllmrec_kernels.base.errors import KernelInputError

from mllmrec.config import TrainConfig
from mllmrec.models import gpu_parts
from mllmrec.models.base import FitContext
from mllmrec.models.baselines import UntrainedContent
from mllmrec.models.ials import IALS
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.weight_scorers import StandardizedScorer, SumScorer, WeightsScorer
from tests.kernels.cases import split_pairs

USERS, ITEMS = 40, 90
GPU = torch.device("cuda")


def matrices() -> tuple[CSR, CSR]:
    rng = np.random.default_rng(2)
    R = CSR.from_scipy(sp.csr_array(rng.random((USERS, ITEMS)) < 0.05), binary=True)
    W = sp.random_array((ITEMS, ITEMS), density=0.1, rng=rng, dtype=np.float32).tocsr()
    return R, CSR.from_scipy(W)


def scorers() -> dict[str, Any]:
    rng = np.random.default_rng(3)
    users, items = (rng.standard_normal((n, 9)).astype(np.float32) for n in (USERS, ITEMS))
    R, W = matrices()
    sums, rest = WeightsScorer(R, W), VectorScorer(users, items)
    bare = VectorScorer(users[:, :0], items[:, :0])
    return {
        "vectors": rest,
        "content": UntrainedContent(items, R, items),
        "weights": sums,
        "standardized": StandardizedScorer(sums, rest),
        "standardized alone": StandardizedScorer(sums, bare),
        "sum": SumScorer(sums, rest),
    }


def results(scorer: Any) -> list[np.ndarray]:
    exclude, heldout = split_pairs(np.random.default_rng(1), (USERS, ITEMS))
    users = np.arange(3, USERS, 2)
    ranked = [scorer.ranks(exclude, heldout), np.minimum(scorer.ranks(exclude, heldout, limit=20), 20)]
    if isinstance(scorer, UntrainedContent):
        return ranked
    return [*ranked, *scorer.top(users, 7, exclude.take_rows(users)), scorer.scores_of(users, heldout.take_rows(users))]


@pytest.mark.parametrize("name", scorers())
def test_another_backend_gives_the_same_bits(name: str) -> None:
    scorer = scorers()[name]
    for one, other in zip(results(replace(scorer, backend="reference")), results(scorer), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("name", scorers())
def test_every_result_asks_the_backend(name: str) -> None:
    scorer, (exclude, heldout) = (
        replace(scorers()[name], backend="none"),
        split_pairs(np.random.default_rng(1), (USERS, ITEMS)),
    )
    users = np.arange(USERS)
    calls = [lambda: scorer.ranks(exclude, heldout)]
    if not isinstance(scorer, UntrainedContent):
        calls += [lambda: scorer.top(users, 7, exclude), lambda: scorer.scores_of(users, heldout)]
    for call in calls:
        with pytest.raises(KernelInputError, match="backend 'none'"):
            call()


def test_few_items_and_the_cpu_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_parts, "available", lambda: {"triton": True})
    scorer = scorers()["sum"]
    assert gpu_parts.on_gpu(scorer, GPU) is scorer
    monkeypatch.setattr(gpu_parts, "PAYS", ITEMS)
    assert gpu_parts.on_gpu(scorer, None) is scorer
    assert gpu_parts.on_gpu(scorer, GPU).backend == "triton"
    assert {gpu_parts.on_gpu(one, GPU).backend for one in scorers().values()} == {"triton"}
    narrow = VectorScorer(*(np.ones((n, 1), np.float32) for n in (USERS, ITEMS)))
    assert gpu_parts.on_gpu(narrow, GPU) is narrow
    monkeypatch.setattr(gpu_parts, "available", lambda: {"triton": False})
    assert gpu_parts.on_gpu(scorer, GPU) is scorer


def test_a_model_without_such_a_scorer_ranks_and_lists_itself() -> None:
    """Few items: nothing moves, and the bits are the model's own."""
    R, _ = matrices()
    exclude, heldout = split_pairs(np.random.default_rng(1), (USERS, ITEMS))
    model = IALS(factors=4, iterations=2, context=FitContext(train=TrainConfig(device="cpu"))).fit(R)
    ranker = gpu_parts.rankers({"iALS": model}, GPU, None)["iALS"]
    np.testing.assert_array_equal(ranker.ranks(exclude, heldout), model.ranks(exclude, heldout))
    listed = gpu_parts.list_users(model, np.arange(USERS), 5, exclude, GPU)
    np.testing.assert_array_equal(listed[0], model.recommend(np.arange(USERS), 5, exclude=exclude)[0])
    assert gpu_parts.rankers({"iALS": model}, None, None)["iALS"] is model


def test_the_device_of_ranks_is_that_of_training_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert [gpu_parts.gpu_of(TrainConfig(device=name)) for name in ("auto", "cpu", "cuda")] == [None] * 3


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="for Triton's interpreter")
@pytest.mark.parametrize("name", scorers())
def test_triton_gives_the_same_bits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from mllmrec_kernels.topk import gpu_block  # it loads Triton

    monkeypatch.setattr(gpu_block, "ROWS", 32)
    monkeypatch.setattr(gpu_block, "COLUMNS", 16)
    scorer = scorers()[name]
    for one, other in zip(results(replace(scorer, backend="triton")), results(scorer), strict=True):
        assert one.tobytes() == other.tobytes()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed: pip install triton")
def test_in_the_interpreter() -> None:
    """In a process of its own: Triton reads TRITON_INTERPRET when it is imported."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        __file__,
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        "-k",
        "test_triton_gives",
    ]
    root, environment = Path(__file__).resolve().parents[2], {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and backend.available()["triton"]), reason="no CUDA device")
@pytest.mark.parametrize("name", scorers())
def test_on_a_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_parts, "PAYS", 0)
    scorer = scorers()[name]
    there = gpu_parts.on_gpu(scorer, GPU)
    assert there.backend == "triton"
    for one, other in zip(results(there), results(scorer), strict=True):
        assert one.tobytes() == other.tobytes()

"""A real Ray cluster on this machine: the bytes of a local run, nodes that die, versions, and addresses."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import topk_cosine

from mllmrec.blocks.stage import Blocks, open_launcher
from mllmrec.blocks.work import Work
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, EngineError, MismatchError
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph import neighbors

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'mllmrec[ray]', or make test-ray")
from mllmrec.blocks import cluster as ray_blocks  # noqa: E402
from tests.ray_cluster import Cluster, Node, cluster, command_of, descendants, free_port  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray's own, about its own
ROWS = np.random.default_rng(1).standard_normal((1_000, 32)).astype(np.float32)
MORE_ROWS = np.random.default_rng(2).standard_normal((2_500, 32)).astype(np.float32)  # in 32 blocks
WORKER_KILLS, HEAD_KILLS = 10, 3
STAGES = ("encode", "graph", "train", "evaluate", "recommend")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place with a short name: Ray's sockets lie below it, and their names are bounded."""
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as place:
        yield Path(place)


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut so few rows into more blocks than a search would, so that there are some to lose."""
    monkeypatch.setattr(neighbors, "_PARTS", 32)


def search(
    started: Cluster, parts: Path, progress: Progress = silent, rows: np.ndarray = ROWS, **options: str
) -> tuple[Blocks, bool]:
    """Search neighbors on a cluster; return the blocks and whether the lists are right."""
    with open_launcher(started.address) as launcher:
        assert launcher is not None
        blocks = Blocks(launcher, parts, progress, Counter())
        found = neighbors.by_vectors(rows, 5, None, blocks=blocks, **options)
    want = topk_cosine(rows, 5)
    return blocks, all(np.array_equal(*pair) for pair in zip(found, want, strict=True))


def test_two_nodes_give_the_lists_of_this_process_and_other_versions_are_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(folder, 2) as started:
        blocks, right = search(started, tmp_path / "parts")
        assert right and blocks.counts["blocks_computed"] == 16 and blocks.counts["bytes_sent"] == ROWS.nbytes
        assert sum(blocks.launcher.nodes.values()) == 16  # type: ignore[attr-defined]
        again, right = search(started, tmp_path / "parts")
        assert right and again.counts["blocks_computed"] == 0 and again.counts["bytes_sent"] == 0
        monkeypatch.setattr(ray_blocks, "shaping_versions", lambda: {"numpy": "0.1"})
        with pytest.raises(MismatchError, match=r"of the cluster has numpy [\d.]+ for 0.1; install the same"):
            search(started, tmp_path / "others")
    with pytest.raises(ConfigError, match="no Ray cluster answers at ray://127.0.0.1:"):
        search(started, tmp_path / "parts")


@pytest.mark.slow
def test_a_node_that_is_killed_costs_the_blocks_that_it_had_alone(folder: Path, tmp_path: Path) -> None:
    with cluster(folder, 3) as started:
        for attempt in range(WORKER_KILLS):
            victim, at = started.nodes[-1], Kill(started.nodes[-1])
            blocks, right = search(started, tmp_path / f"parts{attempt}", at, backend="reference")
            at.thread.join()
            assert right and blocks.counts["blocks_computed"] == 16 and blocks.counts["blocks_repeated"] <= 2
            started.nodes.remove(victim)
            started.add()


@pytest.mark.slow
def test_a_lost_head_is_one_line_and_the_next_start_computes_what_is_missing(folder: Path, tmp_path: Path) -> None:
    done: set[str] = set()
    for attempt in range(HEAD_KILLS):
        with cluster(folder / str(attempt), 2) as started:
            at = Kill(started.nodes[0], waits=True)
            with pytest.raises(EngineError, match="the Ray cluster cannot go on: .*; what is done is kept"):
                search(started, tmp_path / "parts", at, MORE_ROWS, backend="reference")
            at.thread.join()
        left = {file.name for file in (tmp_path / "parts").glob("*/*.safetensors")}
        assert done <= left and len(left) < 32  # what was done before stays
        done = left
    assert done
    with cluster(folder / "last", 2) as started:
        blocks, right = search(started, tmp_path / "parts", rows=MORE_ROWS, backend="reference")
        assert right and blocks.counts["blocks_found"] == len(done)
        assert blocks.counts["blocks_computed"] == 32 - len(done)


class Kill:
    """Kill a node once a random number of rows is done, of those that this search computes.

    Args:
        victim: the node.
        waits: whether the search waits until the node is dead; without that it may end before.
    """

    def __init__(self, victim: Node, *, waits: bool = False) -> None:
        self.thread, self._waits = threading.Thread(target=victim.kill), waits
        self._rows, self._first = random.randrange(1, 250), -1

    def __call__(self, label: str, done: int, total: int | None) -> None:
        self._first = done if self._first < 0 else self._first
        if done >= self._first + self._rows and self.thread.ident is None:
            self.thread.start()
            if self._waits:
                self.thread.join()


@pytest.mark.slow
def test_a_slow_node_costs_the_blocks_that_it_holds_and_a_torn_part_is_made_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_blocks, "_LATE_SECONDS", 1.0)
    with cluster(folder, 2) as started:
        slow = Stop(started.nodes[1])
        try:
            blocks, right = search(started, tmp_path / "parts", slow, backend="reference")
        finally:
            slow.end()
        assert slow.stopped and right and blocks.counts["blocks_computed"] == 16
        assert 1 <= blocks.counts["blocks_repeated"] <= 2
        (torn,) = (tmp_path / "parts").glob("*/00000007-*")
        with torn.open("r+b") as file:
            file.truncate(40)
        again, right = search(started, tmp_path / "parts", backend="reference")
        assert right and again.counts["blocks_torn"] == again.counts["blocks_computed"] == 1
        assert again.counts["blocks_found"] == 15


class Stop:
    """Stop the workers of a node once the first rows are done; they take no signal but the kill of Ray."""

    def __init__(self, node: Node) -> None:
        self._node, self.stopped = node, list[int]()

    def __call__(self, label: str, done: int, total: int | None) -> None:
        if 0 < done < 900 and not self.stopped:
            computing = [child for child in descendants(self._node.process.pid) if "compute" in command_of(child)]
            self.stopped = computing
            for process in computing:
                os.kill(process, signal.SIGSTOP)

    def end(self) -> None:
        for process in self.stopped:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGCONT)


def test_rows_that_are_cut_again_stay_on_the_nodes(folder: Path, tmp_path: Path) -> None:
    """Bytes from the starter: by value, by reference, never again; all but the result were moved once or twice."""
    sent, moved = [], []
    with cluster(folder, 1) as started, open_launcher(started.address) as launcher:
        assert launcher is not None
        started.add("--num-gpus", "1")  # which computes all
        for number in range(4):
            blocks = Blocks(launcher, tmp_path / str(number), silent, Counter())
            tables = {"rows": {"rows": ROWS}, "shared": {"shard": ROWS[:100]}}
            settings = {"k": 5, "first": 0, "include_self": True}
            found = blocks.run(Work(neighbors.shard_block, "x", 1_000, 250, **tables, settings=settings, gpu=True))
            assert np.array_equal(found["ids"], topk_cosine(ROWS[:100], 5, queries=ROWS)[0])
            sent.append(blocks.counts["bytes_sent"])
            moved.append(blocks.counts["bytes_moved"] - blocks.counts["bytes_back"])
    assert sent == moved == [ROWS.nbytes + ROWS[:100].nbytes, ROWS.nbytes, 0, 0]


@pytest.mark.slow
def test_tables_that_fill_the_object_store_give_the_same_lists(folder: Path, tmp_path: Path) -> None:
    wide = np.random.default_rng(3).standard_normal((160, 150_000)).astype(np.float32)
    assert wide.nbytes > 90_000_000
    with cluster(folder, 2, store=80_000_000) as started:
        blocks, right = search(started, tmp_path / "parts", rows=wide)
        assert right and blocks.counts["blocks_computed"] == 3 and blocks.counts["bytes_sent"] == wide.nbytes


def test_a_block_that_takes_a_gpu_goes_to_a_node_that_has_one(folder: Path, tmp_path: Path) -> None:
    with cluster(folder, 1) as started, open_launcher(started.address) as launcher:
        assert launcher is not None
        blocks = Blocks(launcher, tmp_path, silent, Counter())
        work = Work(neighbors.vectors_block, "x", 100, 50, {}, {"vectors": ROWS[:100]}, {"k": 5}, gpu=True)
        with pytest.raises(EngineError, match="vectors_block takes a GPU, and no node of the Ray cluster has one"):
            blocks.run(work)
        started.add("--num-gpus", "1")
        assert np.array_equal(blocks.run(work)["ids"], topk_cosine(ROWS[:100], 5)[0])
        own = blocks.launcher._own_node  # type: ignore[attr-defined]
        assert list(blocks.launcher.nodes.values()) == [2] and own not in blocks.launcher.nodes  # type: ignore[attr-defined]
        assert blocks.counts["bytes_moved"] == ROWS[:100].nbytes + blocks.counts["bytes_back"]


@pytest.mark.slow
def test_a_run_on_one_two_and_four_nodes_has_the_bytes_of_a_local_run(
    dataset: Dataset, folder: Path, tmp_path: Path
) -> None:
    want = artefacts(dataset, tmp_path / "local", "local", dict(os.environ))
    with cluster(folder, 1) as started:
        for nodes in (1, 2, 4):
            while len(started.nodes) < nodes:
                started.add()
            assert artefacts(dataset, tmp_path / f"on{nodes}", "ray", started.environment) == want
        assert artefacts(dataset, tmp_path / "at", started.address, started.environment) == want


def artefacts(dataset: Dataset, out: Path, on: str, environment: dict[str, str]) -> dict[str, bytes]:
    """Run the command line; return every file of its stages."""
    command = [sys.executable, "-m", "mllmrec_cli", "run", str(dataset.folder), "--out", str(out), "--on", on, "-q"]
    paths = os.pathsep.join(entry for entry in sys.path if entry)
    threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "PYTHONPATH": paths}
    done = subprocess.run(
        [*command, "--cache", str(out.parent / "cache.sqlite")], env={**environment, **threads}, capture_output=True
    )
    assert done.returncode == 0, done.stderr.decode()
    return {f"{stage}/{file.name}": file.read_bytes() for stage in STAGES for file in (out / stage).iterdir()}


def test_an_address_without_a_cluster_is_one_line() -> None:
    with (
        pytest.raises(ConfigError, match="no Ray cluster answers at ray://127.0.0.1:"),
        open_launcher(f"ray://127.0.0.1:{free_port()}"),
    ):
        pass

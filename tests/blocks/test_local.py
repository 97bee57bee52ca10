"""Worker processes of this machine: same lists, found parts, killed workers, errors, and no orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from mllmrec_kernels import KernelInputError, topk_cosine

from mllmrec.blocks.launcher import raise_from_worker
from mllmrec.blocks.local import LocalLauncher
from mllmrec.blocks.stage import Blocks
from mllmrec.errors import MismatchError
from mllmrec.foundation.progress import silent
from mllmrec.graph import neighbors

CPU = torch.device("cpu")
ROWS = np.random.default_rng(1).standard_normal((150, 8)).astype(np.float32)


@pytest.fixture(scope="module")
def launcher() -> Iterator[LocalLauncher]:
    started = LocalLauncher(2)
    yield started
    started.close()


def is_running(process: int) -> bool:
    """Tell whether a process runs; one that has ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_workers_give_the_lists_of_this_process_and_only_missing_parts_are_computed(
    launcher: LocalLauncher, tmp_path: Path
) -> None:
    blocks = Blocks(launcher, tmp_path / "blocks", silent, Counter())
    want = topk_cosine(ROWS, 4)
    found = neighbors.by_vectors(ROWS, 4, CPU, blocks=blocks)
    assert all(np.array_equal(*pair) for pair in zip(found, want, strict=True))
    assert blocks.counts["blocks"] == blocks.counts["blocks_computed"] == 3
    assert blocks.counts["bytes_sent"] == ROWS.nbytes
    (victim,) = (tmp_path / "blocks").glob("*/00000001-*")
    victim.unlink()
    blocks.counts.clear()
    again = neighbors.by_vectors(ROWS, 4, CPU, blocks=blocks)
    assert all(np.array_equal(*pair) for pair in zip(again, want, strict=True))
    assert blocks.counts["blocks_computed"] == 1 and blocks.counts["blocks_found"] == 2


def test_a_killed_worker_is_replaced_and_its_block_begun_again(launcher: LocalLauncher, tmp_path: Path) -> None:
    for process in launcher.process_ids:
        os.kill(process, signal.SIGKILL)
    before = launcher.repeated
    blocks = Blocks(launcher, tmp_path / "blocks", silent, Counter())
    found = neighbors.by_vectors(ROWS, 3, CPU, blocks=blocks)
    assert np.array_equal(found[0], topk_cosine(ROWS, 3)[0])
    assert 1 <= launcher.repeated - before <= 2 and blocks.counts["blocks_repeated"] == launcher.repeated - before


def test_the_error_of_a_block_is_raised_as_it_was(launcher: LocalLauncher, tmp_path: Path) -> None:
    blocks = Blocks(launcher, tmp_path / "blocks", silent, Counter())
    with pytest.raises(KernelInputError, match="NaN"):
        neighbors.by_vectors(np.full((3, 2), np.nan, np.float32), 1, CPU, blocks=blocks)
    with pytest.raises(MismatchError, match="other files"):
        raise_from_worker("MismatchError", "other files", "")
    with pytest.raises(RuntimeError, match="a block failed with KeyError: 'x'\nFile worker"):
        raise_from_worker("KeyError", "'x'", "File worker")


def test_workers_end_with_the_launcher() -> None:
    started = LocalLauncher(1)
    worker = started._take()
    process = worker.process_id
    assert is_running(process)
    started.close()
    assert not is_running(process)


def test_workers_end_when_their_starter_is_killed() -> None:
    code = "import signal; from mllmrec.blocks.local import LocalLauncher as L; w = L(1)._take(); "
    code += "print(w.process_id, flush=True); signal.pause()"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as starter:
        assert starter.stdout is not None
        process = int(starter.stdout.readline())
        assert is_running(process)
        starter.kill()
    until = time.monotonic() + 60
    while is_running(process):
        assert time.monotonic() < until
        time.sleep(0.05)

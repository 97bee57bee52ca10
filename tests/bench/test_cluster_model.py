"""The prediction of a run's time on more nodes, on numbers that a hand can check."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cluster_model import StageTimes, read_stages


def test_blocks_shrink_with_the_workers_and_the_rest_stays() -> None:
    times = StageTimes(seconds=50, works=2, blocks=16, busy=40, bytes_sent=1_000)
    assert times.in_blocks(1) == 40 and times.in_blocks(4) == 10  # two works of eight blocks of 2.5 s
    assert times.in_blocks(3) == 15 and times.in_blocks(64) == 5  # three rounds; one round a work
    assert times.predict(4, measured_on=1, bandwidth=1_000) == pytest.approx(10 + 10 + 1)
    assert times.predict(4, measured_on=2, bandwidth=1_000) == pytest.approx(30 + 10 + 1)
    alone = StageTimes(seconds=7, works=0, blocks=0, busy=0, bytes_sent=0)
    assert alone.predict(64, measured_on=1) == 7


def test_stages_that_were_read_again_do_not_count(tmp_path: Path) -> None:
    counts = {"works": 1, "blocks": 4, "worker_milliseconds": 2_500, "bytes_sent": 9}
    stages = {
        "graph": {"seconds": 3.0, "counts": counts, "reused": False},
        "train": {"seconds": 9.0, "counts": {}, "reused": True},
    }
    (tmp_path / "run.json").write_text(json.dumps({"stages": stages}))
    assert read_stages(tmp_path) == {"graph": StageTimes(3.0, 1, 4, 2.5, 9)}

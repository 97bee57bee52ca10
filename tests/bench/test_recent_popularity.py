"""Popularity of the last days: fashions that change are caught, and places are no days."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.recent_popularity import EVERY, main, recent_counts
from mllmrec.dataset import Histories, PrepareOptions, prepare
from mllmrec.errors import InputError

DAY, START = 86_400, 10**9


def test_items_of_the_last_days_are_counted() -> None:
    times = START + DAY * np.array([0, 5, 9, 10, 2, 10])
    seen = Histories(np.array([0, 4, 6]), np.int32([3, 0, 2, 1, 2, 3]), times, 5, "train")
    assert recent_counts(seen, 5).tolist() == [0, 1, 1, 1, 0]  # an item that is five days old is no longer one of them
    assert recent_counts(seen, 6).tolist() == [1, 1, 1, 1, 0]
    assert recent_counts(seen, EVERY).tolist() == [1, 1, 2, 2, 0]
    for times in (None, np.arange(6)):
        with pytest.raises(InputError, match="needs times in seconds"):
            recent_counts(replace(seen, times=times), 5)


@pytest.fixture
def fashions(tmp_path: Path) -> Path:
    """A user comes every third day and buys four of twelve items; every 24 days another item comes into fashion."""
    generator, rows = np.random.default_rng(2), ["user,item,timestamp"]
    for user in range(300):
        items = 3 * user // 24 + generator.choice(12, 4, replace=False)
        rows += [f"u{user},i{item},{START + 3 * user * DAY + n}" for n, item in enumerate(items)]
    folder = tmp_path / "fashions"
    folder.mkdir()
    (folder / "interactions.csv").write_text("\n".join(rows))
    (folder / "items.jsonl").write_text("".join(f'{{"item": "i{item}", "title": "no {item}"}}\n' for item in range(50)))
    prepare(folder, tmp_path / "dataset", PrepareOptions(k_core=1))
    return tmp_path / "dataset"


def test_a_fashion_is_caught_by_the_days_that_validation_chooses(
    fashions: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(fashions)]) == 0
    rows = [line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    by_days = {row[1].strip("*"): row for row in rows}
    assert list(by_days) == ["7", "30", "90", "365", "1000", "all"]
    valid = {days: float(row[2]) for days, row in by_days.items()}
    chosen = [row[1].strip("*") for row in rows if "*" in row[1]]
    assert chosen == [max(valid, key=lambda days: valid[days])] and chosen[0] in ("30", "90")
    gain = by_days[chosen[0]][4]
    assert float(gain.split("[")[1].split(",")[0]) > 0.1
    assert float(gain.split()[0]) == pytest.approx(float(by_days[chosen[0]][3]) - float(by_days["all"][3]), abs=2e-4)


def test_a_dataset_without_times_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("\n") == 1

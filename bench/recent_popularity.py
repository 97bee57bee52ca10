"""Popularity of the last days, where a split by global time holds out what came after the training interactions.

    python -m bench.recent_popularity movielens

An item's score is its number of training interactions within so many days before the newest of them; of equal ones the
one with more in all comes first. Users without a training interaction ("new users") get nothing but such a list. The
window is chosen by their NDCG@20 on validation. The window of all days is the baseline `popularity`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.given_vectors import CUTOFF, table
from mllmrec.config import load_config
from mllmrec.dataset import Dataset, Histories, load
from mllmrec.dataset.splits import resplit
from mllmrec.errors import InputError, MllmrecError
from mllmrec.evaluation.evaluate import HeldOut
from mllmrec.evaluation.groups import ALL, NEW, Judged, SplitTask
from mllmrec.evaluation.metrics import mean_interval, short
from mllmrec.models.scoring import VectorScorer

EVERY = 0  # days: no limit
DAYS = (7, 30, 90, 365, 1000, EVERY)
GROUPS = (NEW, ALL)
HEAD = ("data", "days", "N@20 on validation, new users", "N@20, new users", "less all days", "N@20, known users",
        "less all days")  # fmt: skip
_DAY = 86_400  # seconds
_FIRST_UNIX_SECOND = 10**8  # lower numbers are places
_NDCG = f"ndcg@{CUTOFF}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, judge and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+", help="prepared datasets with times")
    options = parser.parse_args(arguments)
    try:
        rows = [row for folder in options.datasets for row in measure(load(folder))]
    except MllmrecError as error:
        print(f"recent popularity: {error}", file=sys.stderr)
        return 1
    print(table(HEAD, rows))
    return 0


def measure(dataset: Dataset) -> list[tuple[str, ...]]:
    """Return a row for each window; the days that validation chooses are bold.

    Raises:
        InputError: the dataset has no times, or no new user to choose by.
    """
    split = resplit(dataset, "global-time", load_config().seed)
    seen = split.histories()
    valid, test = ({days: judge(split, seen, days, part) for days in DAYS} for part in ("valid", "test"))
    if not len(valid[EVERY][NEW].users):
        raise InputError(
            f"{dataset.folder} has no new user in validation by global time; there is nothing to choose by"
        )
    chosen = max(reversed(DAYS), key=lambda days: valid[days][NEW].values[_NDCG].mean())
    rows = []
    for days in DAYS:
        name = str(days or "all")
        cells = [short(float(valid[days][NEW].values[_NDCG].mean()))]
        for group in GROUPS:
            own, base = (test[of][group].values[_NDCG] for of in (days, EVERY))
            gap = "" if days == EVERY or not len(own) else mean_interval(own - base).signed
            cells += [short(mean_interval(own).value), gap]
        rows.append((dataset.name, f"**{name}**" if days == chosen else name, *cells))
    return rows


def recent_counts(histories: Histories, days: int) -> NDArray[np.int64]:
    """Return the number of interactions of each item within the last days, int64 [I].

    Args:
        histories: of training.
        days: before the newest interaction; EVERY: no limit.

    Raises:
        InputError: there are no times; places say nothing of days.
    """
    times = histories.times
    if times is None or times.max() < _FIRST_UNIX_SECOND:
        raise InputError("popularity of days needs times in seconds; prepare the dataset with --column timestamp=NAME")
    kept = times > times.max() - days * _DAY if days else np.ones(len(times), bool)
    return np.bincount(histories.items[kept], minlength=histories.n_items)


def judge(dataset: Dataset, histories: Histories, days: int, part: HeldOut) -> dict[str, Judged]:
    """Return the metrics of the users of each group.

    Args:
        dataset: split by global time.
        histories: of training.
        days: of the window.
        part: of the split.
    """
    order = np.lexsort((recent_counts(histories, EVERY), recent_counts(histories, days)))
    places = np.empty((histories.n_items, 1), np.float32)
    places[order, 0] = np.arange(histories.n_items)
    model = VectorScorer(np.ones((dataset.n_users, 1), np.float32), places)
    return SplitTask.of(dataset, part, load_config().evaluate).judge(model, (CUTOFF,), limit=CUTOFF)[1]


if __name__ == "__main__":
    sys.exit(main())

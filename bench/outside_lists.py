"""Judge lists that a program outside made, such as the MMRec toolbox, paired over users with the default.

    python -m bench.outside_lists scientific run MMRec/recommend_topk/MGCN-scientific-idx0-top50-*.csv

A file of lists is a tab-separated table: a column of users and one for each place of a list. Users and items are row
numbers, as `mllmrec export --format mmrec` writes them. Held-out items beyond a list count as missed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.given_vectors import CUTOFF, encoded_items, table
from bench.validation_rows import NDCG, RECALL, fit
from mllmrec.config import load_config
from mllmrec.dataset import Dataset, load
from mllmrec.errors import InputError, MllmrecError
from mllmrec.evaluation.groups import ALL, Judged, SplitRanks, SplitTask
from mllmrec.evaluation.metrics import mean_interval, short

HEAD = ("lists", "R@20, N@20", "less the default")


@dataclass(frozen=True, slots=True)
class Lists:
    """Hold the lists of some users.

    Attributes:
        users: int64 [n], row numbers.
        items: int64 [n, k], row numbers, best first.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, judge and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="run folder of its encoded items")
    parser.add_argument("lists", type=Path, nargs="+", help="tab-separated tables of lists for the test users")
    options = parser.parse_args(arguments)
    try:
        dataset = load(options.dataset)
        task = SplitTask.of(dataset, "test", load_config().evaluate)
        found = {path.stem: judge_lists(task, read_lists(path)) for path in options.lists}
        print(table(HEAD, rows(found, judge_default(dataset, task, options.out))))
    except MllmrecError as error:
        print(f"outside lists: {error}", file=sys.stderr)
        return 1
    return 0


def read_lists(path: Path) -> Lists:
    """Return the lists of a file.

    Raises:
        InputError: it is no such table, or its lists are shorter than the cutoff.
    """
    try:
        cells = pl.read_csv(path, separator="\t").cast(pl.Int64).to_numpy()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is no tab-separated table of whole numbers: {error}") from error
    if cells.shape[1] <= CUTOFF:
        raise InputError(f"{path}: lists have {cells.shape[1] - 1} items, {CUTOFF} are judged; write longer lists")
    return Lists(cells[:, 0], cells[:, 1:])


def judge_lists(task: SplitTask, lists: Lists) -> Judged:
    """Return the metrics of a split's users by their lists.

    Args:
        task: the split's held-out items.
        lists: of at least the users that are judged.

    Raises:
        InputError: a judged user has no list, or a list shows an item that is not ranked, as a training item.
    """
    row_of = np.full(task.heldout.n_rows, -1)
    row_of[lists.users] = np.arange(len(lists.users))
    missing = np.flatnonzero(row_of[task.judged_users()] < 0)
    if len(missing):
        raise InputError(f"{len(missing)} users with held-out items have no list; give lists of every test user")
    width = task.heldout.n_columns
    shown = np.repeat(lists.users, lists.items.shape[1]) * width + lists.items.ravel()
    hidden = task.exclude.rows() * width + task.exclude.indices
    if np.isin(shown, hidden).any():
        raise InputError("a list shows a training item of its user; leave them out before the lists are cut")
    at = lists.items[row_of[task.heldout.rows()]] == task.heldout.indices[:, None]
    ranks = np.where(at.any(axis=1), at.argmax(axis=1), at.shape[1]).astype(np.int32)
    return task.judge_group(SplitRanks(ranks, np.empty(0, np.int32)), ALL, (CUTOFF,))


def judge_default(dataset: Dataset, task: SplitTask, out: Path) -> Judged:
    """Return the metrics of the default model, fitted here.

    Args:
        dataset: whose training rows are fitted.
        task: the split that is judged.
        out: run folder of the encoded items.
    """
    model = fit(dataset, encoded_items(dataset, out), load_config(None, ["profile.kind=mean"]))
    return task.judge(model, (CUTOFF,), limit=CUTOFF)[1][ALL]


def rows(found: Mapping[str, Judged], base: Judged) -> list[tuple[str, ...]]:
    """Return a line for each file of lists and for the default.

    Args:
        found: name -> metrics.
        base: the default's metrics, of the same users.
    """

    def means(one: Judged) -> str:
        return ", ".join(short(float(one.values[metric].mean())) for metric in (RECALL, NDCG))

    lines = [
        (name, means(one), mean_interval(one.values[NDCG] - base.values[NDCG]).signed) for name, one in found.items()
    ]
    return [*lines, ("default", means(base), "")]


if __name__ == "__main__":
    sys.exit(main())

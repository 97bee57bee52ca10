"""Apply the rules that every source goes through: ratings, duplicates, k-core.

Duplicates: of one user's rows with one item the earliest stays; of equally early ones the first in the file. Rows of
equal time keep the order of the file.

Rows are chosen by their places in the files, and columns are read one after the other. So a hundred million rows take
a few gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mllmrec.dataset.readers.interactions import Interactions
from mllmrec.errors import LeakError

_SLICE = 4_000_000  # rows that are worked on at a time

Places = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Groups:
    """The places of rows, grouped by a number of each row; rows keep their order within a group.

    Attributes:
        starts: [groups + 1]; group g has places[starts[g]:starts[g + 1]].
        places: [rows].
    """

    starts: Places
    places: Places

    def slices(self) -> Iterator[slice]:
        """Yield slices of `places` that hold whole groups, some million rows each."""
        start, rows = 0, len(self.places)
        while start < rows:
            stop = int(self.starts[np.searchsorted(self.starts, min(start + _SLICE, rows))])
            yield slice(start, stop)
            start = stop


def group(numbers: NDArray[np.int32], count: int) -> Groups:
    """Return the places of rows by their numbers below `count`."""
    dtype = np.int32 if len(numbers) <= np.iinfo(np.int32).max else np.int64
    row = sp.csr_array((np.arange(len(numbers), dtype=dtype), numbers, [0, len(numbers)]), shape=(1, count))
    columns = row.tocsc()  # a stable sort in one pass; equal columns are not summed
    return Groups(columns.indptr, columns.data)


def oldest_first(interactions: Interactions, least: float | None) -> Places:
    """Return the places of the rows that are rated `least` or better, or not at all; the oldest first.

    Args:
        interactions: all rows.
        least: rating; None: every row stays.
    """
    rows = interactions.rows
    order = np.argsort(rows.times.read(), kind="stable")
    if len(order) <= np.iinfo(np.int32).max:
        order = order.astype(np.int32)
    if least is None:
        return order
    kept = ~(rows.ratings.read() < least)  # NaN is not less than anything
    return order[kept[order]]


def drop_repeats(interactions: Interactions, order: Places, *, given: bool) -> Places:
    """Return the places of rows, one for each user and item: the first.

    Args:
        interactions: all rows.
        order: places of rows, the oldest first.
        given: check the source's split.

    Raises:
        LeakError: a given split has one user-item pair in two of its parts.
    """
    rows = interactions.rows
    by_user = group(rows.user[order], len(rows.users))
    parts = interactions.rows.split.read() if given else None
    is_first = np.zeros(len(order), bool)
    leaks: list[int] = []
    for span in by_user.slices():
        places = by_user.places[span]
        own = order[places]
        pairs = rows.user[own].astype(np.int64) * len(rows.items) + rows.item[own]
        sort = np.argsort(pairs, kind="stable")
        starts = np.flatnonzero(np.diff(pairs[sort], prepend=-1))
        is_first[places[sort[starts]]] = True
        if parts is not None:
            leaks += _leaks(own[sort], starts, parts)
    if leaks:
        first = min(leaks)
        user, item = rows.users[int(rows.user[first])], rows.items[int(rows.item[first])]
        raise LeakError(
            f"the given split has {len(leaks)} user-item pairs in more than one of its parts, the first is user "
            f"{user!r} with item {item!r}; give each pair one part"
        )
    return order[is_first]


def _leaks(rows: Places, starts: Places, parts: NDArray[np.int32]) -> list[int]:
    """Return the first row of the file of each pair that has several parts.

    Args:
        rows: places, those of a pair together.
        starts: where each pair begins.
        parts: of all rows of the files; -1 where a row has none.
    """
    own = parts[rows]
    largest = np.maximum.reduceat(own, starts)
    least = np.minimum.reduceat(np.where(own < 0, np.iinfo(np.int32).max, own), starts)
    named = np.where(own < 0, np.iinfo(np.int64).max, rows.astype(np.int64))
    return [int(row) for row in np.minimum.reduceat(named, starts)[(largest >= 0) & (largest != least)]]


def k_core(interactions: Interactions, order: Places, k: int) -> tuple[Places, int]:
    """Keep the largest part in which every user and item has at least k rows; return it and the rounds it took.

    Args:
        interactions: all rows.
        order: places of rows.
        k: 0 or 1 keeps all.
    """
    rows, rounds = interactions.rows, 0
    while k > 1:
        rounds += 1
        users, items = count(rows.user, order, len(rows.users)), count(rows.item, order, len(rows.items))
        core = np.concatenate(
            [part[(users[rows.user[part]] >= k) & (items[rows.item[part]] >= k)] for part in _parts(order)]
        )
        if len(core) == len(order):
            break
        order = core
    return order, rounds


def count(numbers: NDArray[np.int32], order: Places, size: int) -> NDArray[np.int64]:
    """Return how many of the rows have each number below `size`.

    Args:
        numbers: of all rows.
        order: places of the rows that count.
        size: numbers that there may be.
    """
    counts = np.zeros(size, np.int64)
    for part in _parts(order):
        counts += np.bincount(numbers[part], minlength=size)
    return counts


def by_appearance(numbers: NDArray[np.int32], order: Places, size: int) -> NDArray[np.int64]:
    """Return the numbers that rows have, each once, in the order of their first row.

    Args:
        numbers: of all rows.
        order: places of rows.
        size: numbers that there may be.
    """
    first = np.full(size, len(order), np.int64)
    for start in reversed(range(0, len(order), _SLICE)):
        own = numbers[order[start : start + _SLICE]]
        first[own[::-1]] = np.arange(start, start + len(own))[::-1]
    seen = np.flatnonzero(first < len(order))
    return seen[np.argsort(first[seen])]


def _parts(order: Places) -> Iterator[Places]:
    for start in range(0, max(1, len(order)), _SLICE):
        yield order[start : start + _SLICE]

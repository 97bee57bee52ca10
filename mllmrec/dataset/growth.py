"""Compare a dataset with the one that it grew from: which items and users are new, or changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.dataset import Dataset, Histories, Scope
from mllmrec.errors import MismatchError

Rows: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class Growth:
    """The items and users of a dataset that are new or changed.

    Attributes:
        items: bool [I], items that are new, or whose text or pictures changed.
        users: bool [U], users that are new, or whose history changed.
        n_items: items before; they have the first indices.
        n_users: users before, likewise.
    """

    items: NDArray[np.bool_]
    users: NDArray[np.bool_]
    n_items: int
    n_users: int

    @property
    def summary(self) -> str:
        """One line about the growth."""
        new_items, new_users = len(self.items) - self.n_items, len(self.users) - self.n_users
        return (
            f"{new_items:,} new and {int(self.items.sum()) - new_items:,} changed items, {new_users:,} new users and "
            f"{int(self.users.sum()) - new_users:,} with another history"
        )


def compare(before: Dataset, now: Dataset, scope: Scope) -> Growth:
    """Return how a dataset grew.

    Args:
        before: the earlier dataset.
        now: the later one.
        scope: of the histories that count.

    Raises:
        MismatchError: the ids of the earlier dataset are not the first of the later one.
    """
    for name, earlier, later in (("users", before.users, now.users), ("items", before.item_ids, now.item_ids)):
        if len(earlier) > len(later) or not (later.head(len(earlier)) == earlier).all():
            raise MismatchError(
                f"{now.folder} did not grow from {before.folder}: its {name} are others; make it with mllmrec update"
            )
    items = np.ones(now.n_items, bool)
    items[: before.n_items] = _changed_rows(before.items, now.items.head(before.n_items))
    users = np.ones(now.n_users, bool)
    users[: before.n_users] = _changed_histories(before.histories(scope), now.histories(scope))
    return Growth(items, users, before.n_items, before.n_users)


def _changed_rows(before: pl.DataFrame, now: pl.DataFrame) -> NDArray[np.bool_]:
    """Return bool [n]: rows that differ in any column."""
    changed = np.zeros(len(before), bool)
    for name in before.columns:
        changed |= before[name].ne_missing(now[name]).to_numpy()
    return changed


def _changed_histories(before: Histories, now: Histories) -> NDArray[np.bool_]:
    """Return bool [n]: users of `before` whose items or their order are others."""
    return changed_rows((before.indptr, before.items), (now.indptr, now.items))


def changed_rows(before: Rows, now: Rows) -> NDArray[np.bool_]:
    """Return which rows of `before` have other entries now, or the same in another order, bool [n].

    Args:
        before: int64 [n + 1] and entries; row u holds entries[indptr[u]:indptr[u + 1]].
        now: likewise, of as many rows or more.
    """
    (indptr, entries), (indptr_now, entries_now) = before, now
    lengths, n = np.diff(indptr), len(indptr) - 1
    changed = lengths != np.diff(indptr_now[: n + 1])
    rows = np.repeat(np.arange(n), lengths)
    compared = np.flatnonzero(~changed[rows])
    rows = rows[compared]
    moved = indptr_now[rows] - indptr[rows]
    changed[rows[entries[compared] != entries_now[compared + moved]]] = True
    return np.asarray(changed, np.bool_)

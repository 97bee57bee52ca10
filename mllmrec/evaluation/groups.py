"""Judge a split as a whole and by group: warm items, cold items, cold items among themselves, new users.

A cold item is one without a training interaction, a new user one without any. Metrics are those of the held-out items
of only the group:

| group | users | held-out items | ranked among |
|---|---|---|---|
| all | known | all | all items |
| warm items | known | warm | all items |
| cold items | known | cold | all items |
| cold items among cold | known | cold | cold items |
| new users | new | all | all items |

"Known" users have a training interaction; "all" is the protocol of published tables. Runs and `mllmrec compare` rank
for new users by popularity, as their lists are (new_users.py). A user without a held-out item of a group is not judged
in it. A group without users has no value. Ranks among all items are computed once for all groups. Those among cold
items are computed by the same kernels over the cold items' part of the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import polars as pl
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.evaluation import metrics
from mllmrec.foundation.lazy_table import LazyTable
from mllmrec.foundation.progress import Progress, silent

HeldOut = Literal["valid", "test"]
ALL, WARM, COLD, AMONG_COLD, NEW = "all", "warm items", "cold items", "cold items among cold", "new users"
GROUPS = (WARM, COLD, AMONG_COLD, NEW)


class ItemRanker(Protocol):
    """Ranks held-out items among the items that it knows."""

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the 0-based rank of each held-out item among the items that are not excluded.

        Args:
            exclude: [U, I], items that are not ranked; disjoint from `heldout`.
            heldout: [U, I], items to rank; of equal scores the lower id ranks first.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.

        Returns:
            int32 [heldout.nnz], in the order of `heldout`.
        """
        ...


class Ranker(ItemRanker, Protocol):
    """A model that ranks held-out items of the catalogue."""

    def among(self, items: NDArray[np.int64]) -> ItemRanker:
        """Return the ranker of only some items, int64 [m], ascending; its column j is `items[j]`."""
        ...


@runtime_checkable
class FittedRanker(Ranker, Protocol):
    """A fitted model, which may keep what ranks of block after block of users share."""

    def release(self) -> None:
        """Drop what ranks and lists derived from the fitted arrays; the next ones derive it again."""
        ...


def is_warm(train: CSR) -> NDArray[np.bool_]:
    """Return whether each item has a training interaction, bool [I]; the others are cold."""
    return np.bincount(train.indices, minlength=train.n_columns) > 0


@dataclass(frozen=True, slots=True)
class Judged:
    """The metrics of one model in one group.

    Attributes:
        users: int64 [n], the judged users, ascending.
        values: metric -> float64 [n].
    """

    users: NDArray[np.int64]
    values: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Groups:
    """The evaluation of a run by group.

    Attributes:
        users: split -> group -> number of users judged.
        heldout: split -> group -> number of held-out items judged.
        means: split -> group -> model -> metric -> mean over the users; NaN without users.
        table: `per_user`, made or read once it is looked at.
    """

    users: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    heldout: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    means: Mapping[str, Mapping[str, Mapping[str, Mapping[str, float]]]] = field(default_factory=dict)
    table: LazyTable = field(default_factory=LazyTable)

    @property
    def per_user(self) -> pl.DataFrame:
        """Return id, split, group, model, and a column per metric; "warm items" has no rows if it is all of a split."""
        return self.table.rows

    @property
    def apart(self) -> bool:
        """Return whether the test split has a cold item or a new user."""
        return any(self.users.get("test", {}).get(group, 0) for group in (COLD, NEW))

    def as_dict(self) -> dict[str, object]:
        """Return users, held-out items and means JSON-like; NaN if nobody is judged."""
        return {"users": self.users, "heldout": self.heldout, "metrics": self.means}


@dataclass(frozen=True, slots=True)
class SplitRanks:
    """The 0-based ranks of the held-out items of a split by one model.

    Attributes:
        among_all: int32 [heldout.nnz], among all items.
        among_cold: int32 [n], of known users' cold items among the cold items.
    """

    among_all: NDArray[np.int32]
    among_cold: NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class SplitTask:
    """The held-out items of one split and the groups that they belong to.

    Attributes:
        heldout: [U, I], of known and new users.
        exclude: [U, I], items that are not ranked.
        known: bool [heldout.nnz], whether the user has a training interaction.
        cold: bool [heldout.nnz], whether the item has none.
        cold_items: int64, the catalogue's cold items, ascending.
    """

    heldout: CSR
    exclude: CSR
    known: NDArray[np.bool_]
    cold: NDArray[np.bool_]
    cold_items: NDArray[np.int64]

    @staticmethod
    def of(dataset: Dataset, split: HeldOut, config: EvaluateConfig) -> SplitTask:
        """Return the task of a split.

        Args:
            dataset: the split.
            split: whose interactions are held out.
            config: whether validation items are left out at test time.
        """
        heldout, train = dataset.matrix(split), dataset.train
        exclude = train
        if split == "test" and config.mask_validation:
            exclude = CSR.from_scipy(train.to_scipy() + dataset.matrix("valid").to_scipy(), binary=True)
        cold = ~is_warm(train)
        known = np.diff(train.indptr)[heldout.rows()] > 0
        return SplitTask(heldout, exclude, known, cold[heldout.indices], np.flatnonzero(cold))

    def of_users(self, users: NDArray[np.int64]) -> SplitTask:
        """Return the task with the held-out items of only some users, int64."""
        chosen = np.zeros(self.heldout.n_rows, bool)
        chosen[users] = True
        kept = chosen[self.heldout.rows()]
        return replace(self, heldout=self.part(kept), known=self.known[kept], cold=self.cold[kept])

    def judged_users(self, group: str = ALL) -> NDArray[np.int64]:
        """Return the users with held-out items of a group, int64, ascending; of ALL, those with training items too."""
        return np.flatnonzero(np.diff(self.part(self.chosen(group)).indptr))

    def chosen(self, group: str) -> NDArray[np.bool_]:
        """Return the held-out items of a group, bool [heldout.nnz]."""
        by_group = {ALL: self.known, WARM: self.known & ~self.cold, NEW: ~self.known}
        return by_group.get(group, self.known & self.cold)

    def part(self, chosen: NDArray[np.bool_]) -> CSR:
        """Return the chosen held-out items, [U, I]."""
        return CSR.from_pairs(self.heldout.rows()[chosen], self.heldout.indices[chosen], self.heldout.shape)

    def judge(
        self,
        model: Ranker,
        cutoffs: Sequence[int],
        *,
        limit: int | None = None,
        progress: Progress = silent,
    ) -> tuple[NDArray[np.int32], dict[str, Judged]]:
        """Rank and judge by group.

        Args:
            model: ranks.
            cutoffs: list lengths of the metrics.
            limit: of the ranks; see ItemRanker.
            progress: called after each block of users.

        Returns:
            The rank of each held-out item among all items, and ALL and each of GROUPS.
        """
        among_all = model.ranks(self.exclude, self.heldout, limit=limit, progress=progress)
        ranks = SplitRanks(among_all, self.rank_among_cold(model, limit))
        return among_all, {group: self.judge_group(ranks, group, cutoffs) for group in (ALL, *GROUPS)}

    def judge_group(self, ranks: SplitRanks, group: str, cutoffs: Sequence[int]) -> Judged:
        """Return the metrics of the users of a group, or of ALL, by the ranks of their held-out items.

        Args:
            ranks: of this task.
            group: its name.
            cutoffs: list lengths of the metrics.
        """
        chosen = self.chosen(group)
        held = self.part(chosen)
        own = ranks.among_cold if group == AMONG_COLD else ranks.among_all[chosen]
        users = np.flatnonzero(np.diff(held.indptr) > 0)
        values = metrics.per_user(own, held.indptr, cutoffs)
        return Judged(users, {name: value[users] for name, value in values.items()})

    def rank_among_cold(self, model: Ranker, limit: int | None) -> NDArray[np.int32]:
        """Return the rank of each cold item of known users among the cold items; see SplitRanks."""
        held = self.part(self.chosen(AMONG_COLD))
        if held.nnz == 0:
            return np.empty(0, np.int32)
        exclude, heldout = (take_columns(matrix, self.cold_items) for matrix in (self.exclude, held))
        return model.among(self.cold_items).ranks(exclude, heldout, limit=limit)


def rank_tasks(
    model: Ranker, tasks: Sequence[SplitTask], limits: Sequence[int | None], progress: Progress = silent
) -> list[NDArray[np.int32]]:
    """Return the ranks of each task's held-out items among all items.

    Tasks that leave out the same items are ranked in one pass, for a user's scores are the same in each.

    Args:
        model: ranks.
        tasks: of the splits, without a held-out item in common.
        limits: of each task; ranks from it on may come out as any number from it on; None: all are counted.
        progress: called after each block of users.
    """
    first = tasks[0]
    if not all(_same_pattern(task.exclude, first.exclude) for task in tasks):
        return [
            model.ranks(task.exclude, task.heldout, limit=limit, progress=progress)
            for task, limit in zip(tasks, limits, strict=True)
        ]
    shape, finite = first.heldout.shape, [limit for limit in limits if limit is not None]
    limit = max(finite) if len(finite) == len(limits) else None
    owners, items = (
        np.concatenate(parts)
        for parts in zip(*((task.heldout.rows(), task.heldout.indices) for task in tasks), strict=True)
    )
    together = CSR.from_pairs(owners, items, shape)
    ranks = model.ranks(first.exclude, together, limit=limit, progress=progress)
    keys = together.rows() * shape[1] + together.indices
    return [ranks[np.searchsorted(keys, task.heldout.rows() * shape[1] + task.heldout.indices)] for task in tasks]


def _same_pattern(one: CSR, other: CSR) -> bool:
    return one is other or (np.array_equal(one.indptr, other.indptr) and np.array_equal(one.indices, other.indices))


def take_columns(matrix: CSR, items: NDArray[np.int64]) -> CSR:
    """Return the columns `items`, ascending, of a binary matrix."""
    place = np.full(matrix.n_columns, -1, np.int64)
    place[items] = np.arange(len(items))
    kept = place[matrix.indices] >= 0
    return CSR.from_pairs(matrix.rows()[kept], place[matrix.indices[kept]], (matrix.n_rows, len(items)))

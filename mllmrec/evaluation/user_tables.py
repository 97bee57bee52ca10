"""The tables of an evaluation: a row for each user or held-out item, made from ranks once somebody looks at it.

Of 200,000 users, four models and two splits the ranks take 7 MiB and the rows 470.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from mllmrec.dataset import Dataset
from mllmrec.evaluation import metrics
from mllmrec.evaluation.groups import ALL, GROUPS, WARM, Groups, HeldOut, Judged, SplitRanks, SplitTask
from mllmrec.foundation.lazy_table import LazyTable

Means = dict[str, dict[str, dict[str, float]]]  # split -> model -> metric -> mean


@dataclass(frozen=True, slots=True)
class RankedModels:
    """The ranks of an evaluation, from which all its numbers follow.

    Attributes:
        dataset: the split.
        tasks: split -> its held-out items.
        ranks: model -> split -> their ranks.
        cutoffs: list lengths of the metrics.
        limit: ranks from it on are not told apart; None: all are counted.
    """

    dataset: Dataset
    tasks: Mapping[HeldOut, SplitTask]
    ranks: Mapping[str, Mapping[HeldOut, SplitRanks]]
    cutoffs: Sequence[int]
    limit: int | None

    def summarize(self) -> tuple[Means, dict[str, int], Groups]:
        """Return the means, the users of each split and the groups."""
        means, users = Means(), dict[str, int]()
        group_users, heldout, group_means = dict[str, Any](), dict[str, Any](), dict[str, Any]()
        for split, task in self.tasks.items():
            means[split] = {}
            heldout[split] = {group: int(task.chosen(group).sum()) for group in GROUPS}
            group_means[split] = {group: {} for group in GROUPS}
            for model in self.ranks:
                evaluated = self._judge(split, model, ALL)
                users[split], means[split][model] = len(evaluated.users), metrics.mean(dict(evaluated.values))
                judged = {group: self._judge(split, model, group) for group in GROUPS}
                group_users[split] = {group: len(own.users) for group, own in judged.items()}
                for group, own in judged.items():
                    group_means[split][group][model] = {name: _mean(value) for name, value in own.values.items()}
        return means, users, Groups(group_users, heldout, group_means, LazyTable(self.by_group))

    def per_user(self) -> Iterator[pl.DataFrame]:
        """Return the rows of `Evaluation.per_user`, of one split and model at a time."""
        for split in self.tasks:
            for model in self.ranks:
                yield self._rows(self._judge(split, model, ALL), split=split, model=model)

    def by_group(self) -> Iterator[pl.DataFrame]:
        """Return the rows of `Groups.per_user`, of one split, model and group at a time."""
        for split, task in self.tasks.items():
            apart = [group for group in GROUPS if group != WARM or task.cold.any()]
            for model in self.ranks:
                for group in apart:
                    judged = self._judge(split, model, group)
                    if len(judged.users):
                        yield self._rows(judged, split=split, group=group, model=model)

    def heldout(self) -> Iterator[pl.DataFrame]:
        """Return the rows of `Evaluation.heldout`: the ranks of test items of known users."""
        task = self.tasks["test"]
        held, limit = task.part(task.known), self.limit
        columns: dict[str, Any] = {
            "user": self.dataset.users.gather(held.rows()),
            "item": self.dataset.item_ids.gather(held.indices),
        }
        for model, ranks in self.ranks.items():
            own = ranks["test"].among_all[task.known]
            columns[model] = own if limit is None else np.minimum(own, limit)
        yield pl.DataFrame(columns)

    def _judge(self, split: HeldOut, model: str, group: str) -> Judged:
        return self.tasks[split].judge_group(self.ranks[model][split], group, self.cutoffs)

    def _rows(self, judged: Judged, **names: str) -> pl.DataFrame:
        ids, values = {"id": self.dataset.users.gather(judged.users)}, judged.values
        columns = [pl.lit(value, pl.String).alias(name) for name, value in names.items()]
        return pl.DataFrame({**ids, **values}).select("id", *columns, *values)  # a text beside no rows has no type


def _mean(values: metrics.Floats) -> float:
    return float(values.mean()) if len(values) else math.nan

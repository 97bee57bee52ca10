"""The metrics of a run by group: warm items, cold items, cold items among themselves, new users."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.evaluation.groups import GROUPS
from mllmrec.evaluation.metrics import Interval, mean_intervals
from mllmrec.report.sections.results import shown_metrics


@dataclass(frozen=True, slots=True)
class GroupRow:
    """One group of the test split.

    Attributes:
        group: its name.
        users, heldout: number of users and of held-out items judged.
        scores: model -> recall and NDCG at the last shown cutoff, with intervals; NaN if nobody is judged.
    """

    group: str
    users: int
    heldout: int
    scores: Mapping[str, tuple[Interval, Interval]]


@dataclass(frozen=True, slots=True)
class GroupsTable:
    """The groups of a run.

    Attributes:
        metrics: the two that are shown.
        models: the run's own last.
        rows: one per group; none if the test split has neither a cold item nor a new user.
    """

    metrics: tuple[str, str]
    models: tuple[str, ...]
    rows: tuple[GroupRow, ...]


def groups_table(evaluation: Evaluation) -> GroupsTable | None:
    """Bootstrap the test metrics by group; None if the evaluation is of a version that judged none."""
    groups, models = evaluation.groups, tuple(evaluation.means["test"])
    if not groups.means:
        return None
    shown = shown_metrics(evaluation)
    metrics = shown[len(shown) // 2 - 1], shown[-1]
    if not groups.apart:
        return GroupsTable(metrics, models, ())
    table = groups.per_user.filter(pl.col("split") == "test")
    rows = []
    for group in GROUPS:
        own = table.filter(pl.col("group") == group)
        if group == GROUPS[0] and own.is_empty():  # no item of the test is cold: the warm ones are all
            own = evaluation.per_user.filter(pl.col("split") == "test")
        by_model = [own.filter(pl.col("model") == model).select(metrics).to_numpy() for model in models]
        cells = mean_intervals(np.hstack(by_model).astype(np.float64))
        scores = {model: (cells[2 * n], cells[2 * n + 1]) for n, model in enumerate(models)}
        rows.append(GroupRow(group, groups.users["test"][group], groups.heldout["test"][group], scores))
    return GroupsTable(metrics, models, tuple(rows))

"""What a run reached on the test split, beside its yardsticks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from mllmrec.evaluation.bootstrap import Floats, Interval, mean_intervals
from mllmrec.evaluation.evaluate import Evaluation

Standing = Literal["ahead", "behind", "level"]
_CUTOFFS = (10, 20)


@dataclass(frozen=True, slots=True)
class Scores:
    """One model's line: the mean over test users of each shown metric, with its 95 % bootstrap interval."""

    model: str
    own: bool
    cells: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class Headline:
    """The table of results.

    Attributes:
        metrics: the shown ones, such as "recall@20".
        users: evaluated test users.
        rows: yardsticks, then the run's own model.
        judged_by: the metric of the verdict: NDCG at the cutoff nearest to 20.
        rival: the yardstick that validation puts first, by that metric; empty where there is none.
        difference: the run's own model less the rival, paired over users; None without a rival.
    """

    metrics: tuple[str, ...]
    users: int
    rows: tuple[Scores, ...]
    judged_by: str
    rival: str
    difference: Interval | None

    @property
    def own(self) -> Scores:
        """The run's own model."""
        return self.rows[-1]

    @property
    def standing(self) -> Standing:
        """How the model stands to the rival, where the interval leaves no doubt."""
        if self.difference is None or self.difference.low <= 0 <= self.difference.high:
            return "level"
        return "ahead" if self.difference.value > 0 else "behind"

    def column(self, metric: str) -> list[tuple[str, tuple[float, float, float]]]:
        """(model, (estimate, low, high)) of one metric."""
        at = self.metrics.index(metric)
        return [(row.model, (row.cells[at].value, row.cells[at].low, row.cells[at].high)) for row in self.rows]


def headline(evaluation: Evaluation) -> Headline:
    """Bootstrap the test metrics of an evaluation; its last model is the run's own."""
    models = list(evaluation.means["test"])
    metrics = shown_metrics(evaluation)
    values = np.hstack([per_user(evaluation, model, metrics) for model in models])
    cells = mean_intervals(values)
    rows = tuple(
        Scores(model, model == models[-1], tuple(cells[n * len(metrics) : (n + 1) * len(metrics)]))
        for n, model in enumerate(models)
    )
    judged_by = metrics[-1]
    rival = max(models[:-1], key=lambda name: evaluation.means["valid"][name][judged_by], default="")
    difference = None
    if rival:
        gap = per_user(evaluation, models[-1], [judged_by]) - per_user(evaluation, rival, [judged_by])
        difference = mean_intervals(gap)[0]
    return Headline(metrics, evaluation.users["test"], rows, judged_by, rival, difference)


def shown_metrics(evaluation: Evaluation) -> tuple[str, ...]:
    """Recall and NDCG at 10 and 20, or at the run's own largest cutoffs; NDCG at the last stands last."""
    cutoffs = sorted({int(name.partition("@")[2]) for name in evaluation.per_user.columns if "@" in name})
    chosen = [k for k in cutoffs if k in _CUTOFFS] or cutoffs[-len(_CUTOFFS) :]
    return tuple(f"{measure}@{k}" for measure in ("recall", "ndcg") for k in chosen)


def named(metric: str) -> str:
    """How a metric is written: "ndcg@20" -> "NDCG@20"."""
    measure, _, cutoff = metric.partition("@")
    return f"{measure.upper() if measure in ('ndcg', 'map') else measure.capitalize()}@{cutoff}"


def per_user(evaluation: Evaluation, model: str, metrics: Sequence[str]) -> Floats:
    """float64 [users, m], test users in the order of the evaluation."""
    rows = evaluation.per_user.filter((pl.col("split") == "test") & (pl.col("model") == model))
    return rows.select(metrics).to_numpy().astype(np.float64)

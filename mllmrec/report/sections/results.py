"""The results table of a run beside its baselines, and its metrics by user activity and item popularity.

Users are grouped by their training items. Held-out items are grouped by their training interactions, those with
none (cold items) apart; of a group,

    hit rate@k = its held-out items ranked among the first k / its held-out items

Intervals are a bootstrap over users in both cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from mllmrec.dataset import Dataset
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.evaluation.metrics import (
    Floats,
    Interval,
    decimals,
    intervals,
    mean_interval,
    mean_intervals,
    resampled_sums,
    written,
)
from mllmrec.foundation.progress import Progress, silent
from mllmrec.report.figures import Plot, bar_chart, whiskers

Verdict = Literal["ahead", "behind", "level"]
_CUTOFFS = (10, 20)
_GROUPS = 4
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ModelScores:
    """One model's line: the mean over test users of each shown metric, with its 95 % bootstrap interval."""

    model: str
    own: bool
    cells: tuple[Interval, ...]


@dataclass(frozen=True, slots=True)
class ResultsTable:
    """The results of a run on the test split.

    Attributes:
        metrics: the shown ones, such as "recall@20".
        users: evaluated test users.
        rows: baselines, then the run's own model; NaN if there is no user.
        judged_by: the metric of the verdict: NDCG at the last shown cutoff.
        rival: the baseline that validation puts first, by that metric; empty if there is none.
        difference: the run's own model less the rival, paired over users; None without a rival or users.
        unjudged: why there are no results; empty if there are.
    """

    metrics: tuple[str, ...]
    users: int
    rows: tuple[ModelScores, ...]
    judged_by: str
    rival: str
    difference: Interval | None
    unjudged: str

    @property
    def own(self) -> ModelScores:
        """Return the line of the run's own model."""
        return self.rows[-1]

    @property
    def verdict(self) -> Verdict:
        """Return how the model compares with the rival; "level" if the interval holds 0."""
        if self.difference is None or not (self.difference.low > 0 or self.difference.high < 0):
            return "level"
        return "ahead" if self.difference.value > 0 else "behind"

    @property
    def sentence(self) -> str:
        """Return the verdict in words; empty without a rival or users."""
        gap = self.difference
        if gap is None:
            return ""
        low, high = (decimals(bound, signed=True) for bound in (gap.low, gap.high))
        outcome = {
            "ahead": f"{self.own.model} is ahead.",
            "behind": f"{self.own.model} is behind.",
            "level": "The difference is not significant.",
        }
        return (
            f"{written(self.judged_by)} of {self.own.model} less that of {self.rival}, the baseline that validation "
            f"puts first: {decimals(gap.value, signed=True)} [{low}, {high}], paired over {self.users:,} test users. "
            f"{outcome[self.verdict]}"
        )

    def column(self, metric: str) -> list[tuple[str, tuple[float, float, float]]]:
        """Return (model, (estimate, low, high)) of one metric."""
        at = self.metrics.index(metric)
        return [(row.model, (row.cells[at].value, row.cells[at].low, row.cells[at].high)) for row in self.rows]

    def plots(self) -> list[Plot]:
        """Draw the recall and the NDCG at the last cutoff; nothing without users."""
        if not self.users:
            return []
        caption = "{} on the test split, mean over {:,} users, with the 95 % bootstrap interval."
        return [
            (
                caption.format(written(metric), self.users),
                whiskers(self.column(metric), xlabel=written(metric), name=f"{written(metric)} beside the baselines"),
            )
            for metric in (self.metrics[len(self.metrics) // 2 - 1], self.metrics[-1])
        ]


def results_table(evaluation: Evaluation, *, progress: Progress = silent) -> ResultsTable:
    """Bootstrap the test metrics of an evaluation; its last model is the run's own."""
    models = list(evaluation.means["test"])
    metrics = shown_metrics(evaluation)
    values = np.hstack([per_user(evaluation, model, metrics) for model in models])
    cells = mean_intervals(values, progress=progress)
    rows = tuple(
        ModelScores(model, model == models[-1], tuple(cells[n * len(metrics) : (n + 1) * len(metrics)]))
        for n, model in enumerate(models)
    )
    judged_by, users = metrics[-1], evaluation.users["test"]
    baselines = models[:-1] if evaluation.users["valid"] else ()
    rival = max(baselines, key=lambda name: evaluation.means["valid"][name][judged_by], default="")
    difference = None
    if rival and users:
        own, other = (per_user(evaluation, model, [judged_by])[:, 0] for model in (models[-1], rival))
        difference = mean_interval(own - other)
    return ResultsTable(metrics, users, rows, judged_by, rival, difference, evaluation.unjudged)


def shown_metrics(evaluation: Evaluation) -> tuple[str, ...]:
    """Return recall and NDCG at 10 and 20, or at the run's own largest cutoffs; NDCG at the last cutoff comes last."""
    cutoffs = sorted({int(name.partition("@")[2]) for name in evaluation.metric_names})
    chosen = [k for k in cutoffs if k in _CUTOFFS] or cutoffs[-len(_CUTOFFS) :]
    return tuple(f"{measure}@{k}" for measure in ("recall", "ndcg") for k in chosen)


def per_user(evaluation: Evaluation, model: str, metrics: Sequence[str]) -> Floats:
    """Return a model's values of each test user.

    Args:
        evaluation: of a run.
        model: its name.
        metrics: the columns.

    Returns:
        float64 [users, m], users in the order of the evaluation.
    """
    return evaluation.rows_of(model).select(metrics).to_numpy().astype(np.float64)


@dataclass(frozen=True, slots=True)
class Group:
    """One slice: its label, how many users or held-out items are in it, and each model's metric."""

    label: str
    size: int
    scores: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Slices:
    """A metric by group.

    Attributes:
        metric: as printed, such as "Recall@20".
        grouped_by: the quantity of the labels.
        unit: of `size`.
        groups: from few to many.
    """

    metric: str
    grouped_by: str
    unit: str
    groups: tuple[Group, ...]

    @property
    def models(self) -> list[str]:
        """Return the models, the run's own last."""
        return list(self.groups[0].scores) if self.groups else []

    def plot(self) -> Markup:
        """Draw each model's metric by group, with intervals."""
        return bar_chart(
            [group.label for group in self.groups],
            {model: [_bar(group.scores[model]) for group in self.groups] for model in self.models},
            xlabel=self.grouped_by,
            ylabel=self.metric,
            name=f"{self.metric} by {self.grouped_by}",
        )


def _bar(score: Interval) -> tuple[float, float, float] | None:
    return (score.value, score.low, score.high) if np.isfinite(score.value) else None


def by_activity(evaluation: Evaluation, dataset: Dataset) -> Slices:
    """Group recall at the run's cutoff by the user's number of training items."""
    models = list(evaluation.means["test"])
    metric = next(name for name in reversed(shown_metrics(evaluation)) if name.startswith("recall"))
    values = np.hstack([per_user(evaluation, model, [metric]) for model in models])
    users = evaluation.rows_of(models[0])["id"]
    lengths = np.diff(dataset.histories("train").indptr)
    active = lengths[_places(dataset.users, users)]
    groups = []
    for low, high in ranges(active):
        inside = (active >= low) & (active <= high)
        scores = mean_intervals(values[inside])
        groups.append(Group(label(low, high), int(inside.sum()), dict(zip(models, scores, strict=True))))
    return Slices(written(metric), "a user's training items", "users", tuple(groups))


def by_popularity(evaluation: Evaluation, dataset: Dataset) -> Slices:
    """Group the hit rate at the run's cutoff by the held-out item's number of training interactions."""
    models = list(evaluation.means["test"])
    k = int(shown_metrics(evaluation)[-1].partition("@")[2])
    popular = np.bincount(dataset.histories("train").items, minlength=dataset.n_items)
    items = popular[_places(dataset.item_ids, evaluation.heldout["item"])]
    users = _places(dataset.users, evaluation.heldout["user"])
    bounds = ([(0, 0)] if (items == 0).any() else []) + ranges(items[items > 0])
    group = np.searchsorted([high for _, high in bounds], items)
    held = _count(users, group, np.ones(len(items)), len(bounds))
    hits = [
        _count(users, group, (evaluation.heldout[model].to_numpy() < k).astype(np.float64), len(bounds))
        for model in models
    ]
    rates, sizes = _ratios(hits, held), held.sum(axis=0).astype(int)
    groups = tuple(
        Group(label(low, high), int(sizes[n]), {model: rate[n] for model, rate in zip(models, rates, strict=True)})
        for n, (low, high) in enumerate(bounds)
    )
    return Slices(f"Hit rate@{k}", "an item's training interactions", "held-out items", groups)


def _ratios(hits: Sequence[Floats], held: Floats) -> list[list[Interval]]:
    """Return by model [G]: hits over held-out items, all of them float64 [users, G]."""
    *above, below = np.split(resampled_sums(np.hstack([*hits, held])), len(hits) + 1, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return [
            intervals(own.sum(axis=0) / held.sum(axis=0), draws / below) for own, draws in zip(hits, above, strict=True)
        ]


def _count(users: Counts, group: Counts, weights: Floats, n_groups: int) -> Floats:
    """Return [distinct users, groups]: sums of the weights."""
    _, row = np.unique(users, return_inverse=True)
    n = int(row.max(initial=-1)) + 1
    sums = np.bincount(row * n_groups + group, weights=weights, minlength=n * n_groups)
    return sums.astype(np.float64).reshape(n, n_groups)


def ranges(values: Counts) -> list[tuple[int, int]]:
    """Return up to four ranges of whole numbers that share the values about equally, both ends included."""
    if len(values) == 0:
        return []
    ordered = np.sort(values)
    ends = -(-len(ordered) * np.arange(1, _GROUPS + 1) // _GROUPS) - 1  # the last place of each quarter
    highs = sorted(set(ordered[ends].tolist()))
    lows = [int(ordered[0]), *(high + 1 for high in highs[:-1])]
    return list(zip(lows, highs, strict=True))


def label(low: int, high: int) -> str:
    """Return a range as its axis shows it."""
    if high == 0:
        return "cold: 0"
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _places(ids: pl.Series, chosen: pl.Series) -> Counts:
    """Return the index of each chosen id."""
    return chosen.replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64).to_numpy()

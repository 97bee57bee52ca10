"""For whom, and for which items, a model is good: test metrics by user activity and by item popularity.

Users are grouped by their training items. Held-out items are grouped by their training interactions, those with
none (cold items) apart; of a group,

    hit rate@k = its held-out items ranked among the first k / its held-out items

Intervals are a bootstrap over users in both cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup
from numpy.typing import NDArray

from mllmrec.dataset import Dataset
from mllmrec.evaluation.bootstrap import Floats, Interval, intervals, mean_intervals, resampled_sums
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.report.figures import bars
from mllmrec.report.headline import named, per_user, shown_metrics

_GROUPS = 4
Counts = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Group:
    """One slice: its label, how many (users, or held-out items) are in it, and each model's metric."""

    label: str
    size: int
    scores: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class Slices:
    """A metric by group.

    Attributes:
        metric: what it is, such as "Recall@20".
        grouped_by: what the labels count.
        unit: what `size` counts.
        groups: from few to many.
    """

    metric: str
    grouped_by: str
    unit: str
    groups: tuple[Group, ...]

    @property
    def models(self) -> list[str]:
        """The models, the run's own last."""
        return list(self.groups[0].scores) if self.groups else []

    def plot(self) -> Markup:
        """Each model's metric by group, with intervals."""
        return bars(
            [group.label for group in self.groups],
            {model: [_bar(group.scores[model]) for group in self.groups] for model in self.models},
            xlabel=self.grouped_by,
            ylabel=self.metric,
            name=f"{self.metric} by {self.grouped_by}",
        )


def _bar(score: Interval) -> tuple[float, float, float] | None:
    return (score.value, score.low, score.high) if np.isfinite(score.value) else None


def by_activity(evaluation: Evaluation, dataset: Dataset) -> Slices:
    """Recall at the run's cutoff by how many training items a user has."""
    models = list(evaluation.means["test"])
    metric = next(name for name in reversed(shown_metrics(evaluation)) if name.startswith("recall"))
    values = np.hstack([per_user(evaluation, model, [metric]) for model in models])
    judged = evaluation.per_user.filter((pl.col("split") == "test") & (pl.col("model") == models[0]))["id"]
    lengths = np.diff(dataset.histories("train").indptr)
    active = lengths[_places(dataset.users, judged)]
    groups = []
    for low, high in ranges(active):
        inside = (active >= low) & (active <= high)
        scores = mean_intervals(values[inside])
        groups.append(Group(label(low, high), int(inside.sum()), dict(zip(models, scores, strict=True))))
    return Slices(named(metric), "a user's training items", "users", tuple(groups))


def by_popularity(evaluation: Evaluation, dataset: Dataset) -> Slices:
    """Hit rate at the run's cutoff by how many training interactions a held-out item has."""
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
    made = tuple(
        Group(label(low, high), int(sizes[n]), {model: rate[n] for model, rate in zip(models, rates, strict=True)})
        for n, (low, high) in enumerate(bounds)
    )
    return Slices(f"Hit rate@{k}", "an item's training interactions", "held-out items", made)


def _ratios(hits: Sequence[Floats], held: Floats) -> list[list[Interval]]:
    """By model, [G] hits over held-out items, all of them float64 [users, G]."""
    *above, below = np.split(resampled_sums(np.hstack([*hits, held])), len(hits) + 1, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return [
            intervals(own.sum(axis=0) / held.sum(axis=0), draws / below) for own, draws in zip(hits, above, strict=True)
        ]


def _count(users: Counts, group: Counts, weights: Floats, n_groups: int) -> Floats:
    """[distinct users, groups] sums of the weights."""
    _, row = np.unique(users, return_inverse=True)
    n = int(row.max(initial=-1)) + 1
    sums = np.bincount(row * n_groups + group, weights=weights, minlength=n * n_groups)
    return sums.astype(np.float64).reshape(n, n_groups)


def ranges(values: Counts) -> list[tuple[int, int]]:
    """Up to four ranges of whole numbers that share the values about equally, both ends included."""
    if len(values) == 0:
        return []
    ordered = np.sort(values)
    ends = -(-len(ordered) * np.arange(1, _GROUPS + 1) // _GROUPS) - 1  # the last place of each quarter
    highs = sorted(set(ordered[ends].tolist()))
    lows = [int(ordered[0]), *(high + 1 for high in highs[:-1])]
    return list(zip(lows, highs, strict=True))


def label(low: int, high: int) -> str:
    """A range as its axis shows it."""
    if high == 0:
        return "cold: 0"
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _places(ids: pl.Series, wanted: pl.Series) -> Counts:
    """The index of each wanted id."""
    return wanted.replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64).to_numpy()

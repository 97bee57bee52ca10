"""What the run was made from: sizes, activity, split, and what prepare dropped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mllmrec.dataset import Dataset, Statistics, statistics
from mllmrec.report.figures import histogram

_BINS = 24


@dataclass(frozen=True, slots=True)
class DataSection:
    """The section: numbers, the split in (name, interactions, share), caption and plot, and prepare's warnings."""

    numbers: Statistics
    split: Sequence[tuple[str, int, float]]
    plots: Sequence[tuple[str, object]]
    warnings: Sequence[str]


def data_section(dataset: Dataset) -> DataSection:
    """Count a dataset; held-out interactions are counted as such."""
    numbers = statistics(dataset)
    names = ("training", "validation", "test")
    split = [(name, n, n / max(1, numbers.interactions)) for name, n in zip(names, numbers.splits, strict=True)]
    users, items = (
        np.bincount(dataset.interactions[side].to_numpy(), minlength=n)
        for side, n in (("user", dataset.n_users), ("item", dataset.n_items))
    )
    plots = [
        ("How active users are, all splits together.", _activity(users, "user")),
        ("How popular items are, all splits together.", _activity(items, "item")),
    ]
    return DataSection(numbers, split, plots, list(dataset.manifest["warnings"]))


def _activity(counts: NDArray[np.int64], side: str) -> Markup:
    """A histogram over bins that grow, for activity has a long tail."""
    most = max(2, int(counts.max(initial=0)))
    edges = np.unique(np.geomspace(1, most + 1, _BINS).round()) - 0.5
    return histogram(
        {"": counts},
        xlabel=f"interactions of {'a user' if side == 'user' else 'an item'}",
        ylabel=f"{side}s",
        name=f"{side} activity",
        bins=list(edges),
        log=True,
    )

"""What a dataset is made of, in numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mllmrec.dataset.dataset import SPLITS, Dataset


@dataclass(frozen=True, slots=True)
class Statistics:
    """Numbers of a dataset.

    Attributes:
        users, items, interactions: sizes.
        sparsity: share of user-item pairs without interaction.
        user_degree, item_degree: (mean, median, max) interactions.
        splits: interactions in train, valid, test.
        with_text, with_image: items that have some.
        cold_items: items without a training interaction; they stay candidates.
        untrained_users: users without a training interaction; they are not evaluated.
        steps: what each step of prepare dropped.
        rejected: rows that could not be read.
    """

    users: int
    items: int
    interactions: int
    sparsity: float
    user_degree: tuple[float, float, int]
    item_degree: tuple[float, float, int]
    splits: tuple[int, int, int]
    with_text: int
    with_image: int
    cold_items: int
    untrained_users: int
    steps: dict[str, int]
    rejected: int

    def rows(self) -> list[tuple[str, str]]:
        """As a table for a person."""
        return [
            ("users", f"{self.users:,}"),
            ("items", f"{self.items:,}"),
            ("interactions", f"{self.interactions:,}"),
            ("sparsity", f"{self.sparsity:.4%}"),
            ("a user's interactions (mean, median, most)", _degree(self.user_degree)),
            ("an item's interactions (mean, median, most)", _degree(self.item_degree)),
            ("train / valid / test", " / ".join(f"{n:,}" for n in self.splits)),
            ("items with text", f"{self.with_text:,}"),
            ("items with an image", f"{self.with_image:,}"),
            ("items without training interaction", f"{self.cold_items:,}"),
            ("users without training interaction", f"{self.untrained_users:,}"),
            *((step, f"{count:,}") for step, count in self.steps.items()),
            ("rows that could not be read", f"{self.rejected:,}"),
        ]


def _degree(degree: tuple[float, float, int]) -> str:
    return f"{degree[0]:.2f}, {degree[1]:g}, {degree[2]:,}"


def statistics(dataset: Dataset) -> Statistics:
    """The numbers of a dataset."""
    rows, sizes = dataset.interactions, (dataset.n_users, dataset.n_items)
    train = rows.filter(pl.col("split") == 0)
    degrees = [np.bincount(rows[side].to_numpy(), minlength=n) for side, n in zip(("user", "item"), sizes, strict=True)]
    mean_median_most = [(float(d.mean()), float(np.median(d)), int(d.max())) for d in degrees]
    text = pl.col("title").is_not_null() | pl.col("description").is_not_null()
    return Statistics(
        users=sizes[0],
        items=sizes[1],
        interactions=len(rows),
        sparsity=1 - len(rows) / (sizes[0] * sizes[1]),
        user_degree=mean_median_most[0],
        item_degree=mean_median_most[1],
        splits=tuple(int((rows["split"] == n).sum()) for n in range(len(SPLITS))),  # type: ignore[arg-type]
        with_text=dataset.items.filter(text).height,
        with_image=dataset.items.filter(pl.col("images").list.len() > 0).height,
        cold_items=sizes[1] - train["item"].n_unique(),
        untrained_users=sizes[0] - train["user"].n_unique(),
        steps=dict(dataset.manifest["steps"]),
        rejected=int(dataset.manifest["rejected"]),
    )

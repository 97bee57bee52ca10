"""Count what a dataset holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.dataset import SPLITS, Dataset

_NAMED_FILES = 8
_SLICE = 4_000_000  # rows that are counted at a time

WITHOUT_PICTURE = "image addresses without a picture"


@dataclass(frozen=True, slots=True)
class Statistics:
    """Hold the numbers of a dataset.

    Attributes:
        users, items, interactions: sizes.
        sparsity: share of user-item pairs without interaction.
        user_degree, item_degree: (mean, median, max) interactions.
        splits: interactions in train, valid, test.
        with_text: items with a title, a brand, categories or a description.
        with_image: items with a picture.
        cold_items: items without a training interaction; they stay candidates.
        untrained_users: users without a training interaction; they are evaluated apart.
        cold_heldout: interactions of items without a training interaction in valid, test.
        new_user_heldout: interactions of users without a training interaction in valid, test.
        steps: what each step of prepare dropped.
        rejected: rows that could not be read.
        read: files, columns and form of the times that prepare read.
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
    cold_heldout: tuple[int, int]
    new_user_heldout: tuple[int, int]
    steps: dict[str, int]
    rejected: int
    read: Mapping[str, Any]

    def read_rows(self) -> list[tuple[str, ...]]:
        """Return a row for each file that was read: name, columns by role, rows, rows left out."""
        return [
            (
                file["name"],
                ", ".join(role if role == name else f"{role}: {name}" for role, name in file["columns"].items()),
                f"{file['rows']:,}",
                f"{file['rejected']:,}",
            )
            for file in self.read.get("files", ())
        ]

    @property
    def notes(self) -> list[str]:
        """Form of the times, and tables of the folder that were not read: one line each."""
        form, unread = self.read.get("time", {}).get("form"), self.read.get("unread", ())
        more = f" and {len(unread) - _NAMED_FILES} more" if len(unread) > _NAMED_FILES else ""
        return [
            *([f"times: {form}"] if form else []),
            *([f"not read: {', '.join(unread[:_NAMED_FILES])}{more}"] if unread else []),
        ]

    def rows(self) -> list[tuple[str, str]]:
        """Return name and number of each, for a table."""
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
            ("  their interactions in valid / test", " / ".join(f"{n:,}" for n in self.cold_heldout)),
            ("users without training interaction", f"{self.untrained_users:,}"),
            ("  their interactions in valid / test", " / ".join(f"{n:,}" for n in self.new_user_heldout)),
            *((step, f"{count:,}") for step, count in self.steps.items()),
            ("rows that could not be read", f"{self.rejected:,}"),
        ]


def _degree(degree: tuple[float, float, int]) -> str:
    return f"{degree[0]:.2f}, {degree[1]:g}, {degree[2]:,}"


def statistics(dataset: Dataset) -> Statistics:
    """Return the numbers of a dataset."""
    rows, sizes = dataset.interactions, (dataset.n_users, dataset.n_items)
    part = rows["split"].to_numpy()
    sides = {"user": sizes[0], "item": sizes[1]}
    degrees = [_counts(rows[side].to_numpy(), size) for side, size in sides.items()]
    trained = [_counts(rows[side].filter(rows["split"] == 0).to_numpy(), size) > 0 for side, size in sides.items()]
    mean_median_most = [(float(d.mean()), float(np.median(d)), int(d.max())) for d in degrees]
    text = pl.any_horizontal(pl.col("title", "brand", "description").is_not_null(), pl.col("categories").list.len() > 0)
    return Statistics(
        users=sizes[0],
        items=sizes[1],
        interactions=len(rows),
        sparsity=1 - len(rows) / (sizes[0] * sizes[1]),
        user_degree=mean_median_most[0],
        item_degree=mean_median_most[1],
        splits=tuple(int((part == n).sum()) for n in range(len(SPLITS))),  # type: ignore[arg-type]
        with_text=dataset.items.filter(text).height,
        with_image=dataset.items.filter(pl.col("images").list.len() > 0).height,
        cold_items=int((~trained[1]).sum()),
        untrained_users=int((~trained[0]).sum()),
        cold_heldout=_heldout_beyond(trained[1], rows["item"].to_numpy(), part),
        new_user_heldout=_heldout_beyond(trained[0], rows["user"].to_numpy(), part),
        steps=dict(dataset.manifest["steps"]),
        rejected=int(dataset.manifest["rejected"]),
        read=dict(dataset.manifest.get("read", {})),
    )


def _counts(numbers: NDArray[np.int32], size: int) -> NDArray[np.int64]:
    """Return how often each number below `size` stands in a column, some million rows at a time."""
    counts = np.zeros(size, np.int64)
    for start in range(0, len(numbers), _SLICE):
        counts += np.bincount(numbers[start : start + _SLICE], minlength=size)
    return counts


def _heldout_beyond(trained: NDArray[np.bool_], numbers: NDArray[np.int32], part: NDArray[np.int8]) -> tuple[int, int]:
    """Return the validation and test interactions whose user or item has no training interaction."""
    valid, test = (int((~trained[numbers[part == n]]).sum()) for n in (1, 2))
    return valid, test

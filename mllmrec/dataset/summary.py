"""Count what a dataset holds, and the words of its catalogue."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import scipy.sparse as sp
from numpy.typing import NDArray

from mllmrec.dataset.dataset import SPLITS, Dataset

_NAMED_FILES = 8
_SLICE = 4_000_000  # rows that are counted at a time

WITHOUT_PICTURE = "image addresses without a picture"
_WORD = re.compile(r"[^\W\d_][\w'-]+\w", re.UNICODE)
_COMMON = 0.1  # a word in more than this share of the items tells users apart no more, in any language
_RARE = 2  # a word in fewer items cannot be shared by two of a user's items


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


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Terms of a catalogue and the items they stand in.

    Attributes:
        terms: [V] in alphabetical order.
        presence: [I, V] binary CSR (float32): item i has term v.
        idf: [V] ln(I / items with the term), float64.
    """

    terms: tuple[str, ...]
    presence: sp.csr_array
    idf: NDArray[np.float64]

    @staticmethod
    def of(documents: Sequence[Iterable[str]]) -> Vocabulary:
        """Build the vocabulary of items whose documents are given as terms."""
        sets = [set(document) for document in documents]
        frequency = Counter(term for terms in sets for term in terms)
        most = max(_COMMON * len(sets), _RARE)
        kept = sorted(term for term, count in frequency.items() if _RARE <= count <= most)
        index = {term: v for v, term in enumerate(kept)}
        columns = [sorted(index[term] for term in terms if term in index) for terms in sets]
        indptr = np.cumsum([0, *map(len, columns)])
        indices = np.array([v for row in columns for v in row], dtype=np.int32)
        presence = sp.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(sets), len(kept)))
        counts = np.array([frequency[term] for term in kept], dtype=np.float64)
        return Vocabulary(tuple(kept), presence, np.log(len(sets) / np.maximum(counts, 1)))

    def distinctive(self, items: Sequence[int], most: int) -> list[str]:
        """Return the terms that set a history apart, by TF-IDF against chance.

        TF is how many of the history's items have the term, n, and the IDF is ln(n / m), m being how many would
        have it in a history of this length drawn at random: words that are merely common fall to nothing, in
        any language. Terms of a single item count only in histories too short to repeat themselves. Ties go to
        the alphabetically first.
        """
        counts = self.presence[np.asarray(items, dtype=np.int64)].sum(axis=0)
        least = 2 if len(items) > 3 else 1
        present = np.flatnonzero(counts >= least)
        chance = np.minimum(len(items) * np.exp(-self.idf[present]), len(items))
        weight = counts[present] * np.log(counts[present] / chance)
        order = np.argsort(-weight, kind="stable")[:most]
        return [self.terms[present[n]] for n in order if weight[n] > 0]


def words(text: str) -> list[str]:
    """Return the lower-case words of three letters or more; plural and possessive endings stay."""
    return [word.lower() for word in _WORD.findall(text)]


def standouts(
    chosen: Counter[str], n_chosen: int, catalogue: Counter[str], n_catalogue: int, *, most: int, least: int
) -> list[tuple[str, int]]:
    """Return the labels that are commoner in a history than in the catalogue, with their counts.

    They are ordered by the log-likelihood of the count against the catalogue's share; ties are alphabetical.

    Args:
        chosen: labels of the history's items.
        n_chosen: items of the history.
        catalogue: labels of all items.
        n_catalogue: items of the catalogue.
        most: labels returned, at most.
        least: count of a label, at least.
    """
    scored = []
    for label, count in chosen.items():
        expected = n_chosen * catalogue[label] / n_catalogue
        if count >= least and count > expected:
            scored.append((count * float(np.log(count / expected)), label, count))
    scored.sort(key=lambda row: (-row[0], row[1]))
    return [(label, count) for _, label, count in scored[:most]]

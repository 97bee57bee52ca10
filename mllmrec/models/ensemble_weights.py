"""Weights of the ensemble's parts, chosen by validation.

Parts are put on one scale for each user (the spread of their scores over the catalogue is 1), so that a weight can be a
constant. They are searched one after another over a small grid, round after round until none changes, for the highest
NDCG@20 of the validation items; of equal weights the lower one stays. A first part starts at 1. Where there are several
first parts, each has a climb from others' weights of 0.4, and the one whose ensemble is best stays. A climb ends on the
next hill, so that one has two more, from 0 and 1.2. Of equal ends the first stays. The first part's weight is above 0,
and all are divided by it in the end.

The search reads a short list of items per user: the best fifty of every part, and the held-out items. An item on none
counts as ranked below these. Where the lists hold the whole catalogue, the ranking is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from torch import Tensor

from mllmrec.evaluation import metrics
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.scoring import Part, VectorScorer
from mllmrec.models.validation import CUTOFF, Validation

GRID = (0.0, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.4, 3.2)
_START, _MORE_STARTS = 0.4, (0.0, 1.2)
_ROUNDS = 8  # at most; three are usual
_LISTED = 50  # items of each part on a user's list
_LIST_BYTES = 1 << 29  # of the lists' scores; of more users, so many spread evenly
_COMPARED = 1 << 24  # scores compared at once


@dataclass(frozen=True, slots=True)
class _Lists:
    """The short lists that the search reads.

    Attributes:
        scores: float32 [parts, B, C].
        floor: float32 [B, C], -inf where a list has no item, 0 elsewhere.
        rows: int64 [H], the user of each held-out item.
        columns: int64 [H], its place in the user's list.
        indptr: [B + 1], the held-out items of each user.
    """

    scores: Tensor
    floor: Tensor
    rows: Tensor
    columns: Tensor
    indptr: NDArray[np.int64]

    def of(self, first: int, firsts: int) -> _Lists:
        """Return the lists of one of the first parts and of all others."""
        return replace(self, scores=self.scores[[first, *range(firsts, len(self.scores))]])

    def mixed(self, weights: Sequence[float]) -> Tensor:
        """Return the weighted sum of the parts, float32 [B, C]."""
        summed: Tensor = torch.tensordot(torch.tensor(weights), self.scores, dims=1) + self.floor
        return summed

    def ndcg(self, mixed: Tensor) -> float:
        """Return NDCG@20 of the held-out items by mixed scores [B, C]; of equal scores a held-out item ranks last."""
        own = mixed[self.rows, self.columns]
        step = max(1, _COMPARED // max(1, mixed.shape[1]))
        ranks = torch.empty(len(own), dtype=torch.int64)
        for start in range(0, len(own), step):
            at = slice(start, start + step)
            ranks[at] = (mixed[self.rows[at]] >= own[at, None]).sum(dim=1) - 1
        values = metrics.per_user(ranks.numpy(), self.indptr, (CUTOFF,))
        return metrics.mean(values)[f"ndcg@{CUTOFF}"]


def standardize(part: VectorScorer) -> VectorScorer:
    """Return the part with each user's vector over the spread of their scores.

    The spread over the catalogue is that of an inner product, sqrt(p^T Cov(items) p), in float64. The scores'
    mean is the same for all items of a user and left in. A user whose scores are all equal gets zeros.
    """
    return VectorScorer(over_spread(part.users, item_covariance(part.items)), part.items)


def item_covariance(items: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Cov(items) over the catalogue, [d, d], for items float32 [I, d]."""
    centered = items.astype(np.float64)
    centered -= centered.mean(axis=0)
    return np.asarray(centered.T @ centered / max(1, len(items)))


def over_spread(vectors: NDArray[np.float32], covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return user vectors [U, d], each over the spread of its scores; see standardize."""
    users = vectors.astype(np.float64)
    variance = np.maximum(((users @ covariance) * users).sum(axis=1, keepdims=True), 0)
    # below what the float32 tables themselves can tell, a spread is rounding
    flat = variance <= 1e-12 * (users**2).sum(axis=1, keepdims=True) * np.trace(covariance)
    scaled = np.divide(users, np.sqrt(variance), out=np.zeros_like(users), where=~flat)
    return np.asarray(scaled, np.float32)


def choose_weights(
    firsts: Sequence[Part], others: Sequence[Part], validation: Validation, progress: Progress = silent
) -> tuple[int, tuple[float, ...]]:
    """Choose one of the first parts, and the weights of all others beside its 1.

    Args:
        firsts: standardized; one of them is taken.
        others: standardized.
        validation: the users to search on.
        progress: called after each part that is listed or scored, and after each climb.

    Returns:
        The index of the first part, and the weights of the others.
    """
    lists, total = _short_lists([*firsts, *others], validation, progress), len(firsts) + len(_MORE_STARTS)
    climbs = []
    for first in range(len(firsts)):
        climbs.append((first, *_climb(lists.of(first, len(firsts)), [1.0, *(_START for _ in others)])))
        progress("search weights", len(climbs), total)
    best, _, _ = max(climbs, key=lambda climb: climb[2])
    for start in _MORE_STARTS:
        climbs.append((best, *_climb(lists.of(best, len(firsts)), [1.0, *(start for _ in others)])))
        progress("search weights", len(climbs), total)
    first, (own, *weights), _ = max(climbs, key=lambda climb: climb[2])
    return first, tuple(weight / own for weight in weights)


def _climb(lists: _Lists, weights: list[float]) -> tuple[tuple[float, ...], float]:
    """Climb from these weights to where none changes; return the weights and the NDCG@20 there."""
    best = lists.ndcg(lists.mixed(weights))
    for _ in range(_ROUNDS):
        before = tuple(weights)
        for k in (*range(1, len(weights)), 0):  # the first, from which the others start, is last
            others = lists.mixed([*weights[:k], 0.0, *weights[k + 1 :]])
            grid = GRID if k else tuple(sorted({*GRID[1:], weights[0]}))
            reached = [lists.ndcg(others.add(lists.scores[k], alpha=weight)) for weight in grid]
            weights[k], best = grid[int(np.argmax(reached))], max(reached)
        if tuple(weights) == before:
            break
    return tuple(weights), best


def _short_lists(parts: Sequence[Part], validation: Validation, progress: Progress = silent) -> _Lists:
    """Return the lists of the users to search on; see choose_weights."""
    train, valid = validation.train, validation.valid
    listed = min(_LISTED, train.n_columns)
    width = listed * len(parts) + int(np.diff(valid.indptr).max(initial=0))
    users = _spread(validation.users, max(1, _LIST_BYTES // (4 * len(parts) * width)))
    seen, held = train.take_rows(users), valid.take_rows(users)
    best = []
    for n, part in enumerate(parts, start=1):
        best.append(part.top(users, listed, seen)[0])
        progress("list items", n, 2 * len(parts))
    lists = _union(np.concatenate(best, axis=1), held)
    rows = lists.rows()
    at = rows, np.arange(lists.nnz) - lists.indptr[rows]
    scores = torch.zeros(len(parts), len(users), int(np.diff(lists.indptr).max(initial=0)))
    floor = torch.full(scores.shape[1:], -torch.inf)
    floor[at] = 0
    for n, part in enumerate(parts):
        scores[n][at] = torch.from_numpy(part.scores_of(users, lists))
        progress("list items", len(parts) + n + 1, 2 * len(parts))
    places = torch.from_numpy(at[1][_places(lists, held)])
    return _Lists(scores, floor, torch.from_numpy(held.rows()), places, held.indptr)


def _spread(users: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return at most so many users, spread evenly."""
    return users if len(users) <= most else users[np.linspace(0, len(users) - 1, most).astype(np.int64)]


def _union(ids: NDArray[np.int32], held: CSR) -> CSR:
    """Return what is listed or held out, once each, for lists [B, k] padded with -1."""
    rows, places = np.nonzero(ids >= 0)
    owners, items = np.concatenate([rows, held.rows()]), np.concatenate([ids[rows, places], held.indices])
    return CSR.from_pairs(owners, items, held.shape)


def _places(lists: CSR, entries: CSR) -> NDArray[np.int64]:
    """Return where in `lists` each of `entries` is stored, which are among them."""
    keys, sought = (matrix.rows() * matrix.n_columns + matrix.indices for matrix in (lists, entries))
    return np.asarray(np.searchsorted(keys, sought), np.int64)

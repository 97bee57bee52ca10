"""Weights of the ensemble's parts, chosen by validation.

Parts are put on one scale for each user (the spread of their scores over the catalogue is 1), so that a weight can be a
constant. They are searched one after another over a small grid, for the highest NDCG@20 of the validation items, until
none changes in a round. Of equal weights the lower one stays. A first part starts at 1. Each first part has a climb
with the other weights at 0.4, and the one whose ensemble is best stays. A climb ends on the next hill, so this one has
two more climbs, from 0 and from 1.2. Of equal ends the first stays. The first part's weight is above 0, and all are
divided by it in the end.

From the best end a last climb goes on with larger weights in the grid, for the top of a hill may lie beyond the edge.
Its end is taken if the mean gain over the users is above its standard error, so few users do not move by chance.

The search reads a short list of items per user: the best fifty of every part, and the held-out items. An item on none
counts as ranked below these. Where the lists hold the whole catalogue, the ranking is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from mllmrec_kernels import CSR
from mllmrec_kernels.base.parallel import chunks, parallel_for, single_threaded_blas
from mllmrec_kernels.mixed.trial_ranks import trial_ranks
from numpy.typing import NDArray

from mllmrec.evaluation import metrics
from mllmrec.evaluation.metrics import standard_error
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.ridge import join_lists
from mllmrec.models.scoring import Part, VectorScorer
from mllmrec.models.validation import CUTOFF, Validation, Values, spread_users

GRID = (0.0, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 2.4, 3.2)
WIDE_GRID = (*GRID, 4.8, 6.4, 9.6)  # of the last climb
_START, _MORE_STARTS = 0.4, (0.0, 1.2)
_ROUNDS = 8  # at most; three are usual
_LISTED = 50  # items of each part on a user's list
_BLOCK = 1 << 12  # rows in float64 at once
_LIST_BYTES = 1 << 29  # of the lists' scores; of more users, so many spread evenly


@dataclass(frozen=True, slots=True)
class _Lists:
    """The short lists that the search reads.

    Attributes:
        scores: float32 [parts, B, C].
        floor: float32 [B, C], -inf where a list has no item, 0 elsewhere.
        columns: int64 [H], the place of each held-out item in its user's list.
        indptr: [B + 1], the held-out items of each user.
    """

    scores: NDArray[np.float32]
    floor: NDArray[np.float32]
    columns: NDArray[np.int64]
    indptr: NDArray[np.int64]

    def of(self, first: int, firsts: int) -> _Lists:
        """Return the lists of one of the first parts and of all others."""
        return replace(self, scores=self.scores[[first, *range(firsts, len(self.scores))]])

    def ndcg(self, weights: Sequence[float], k: int, trials: Sequence[float]) -> list[float]:
        """Return NDCG@20 of the held-out items for each weight of part k, beside the weights of the others."""
        return [metrics.mean({"ndcg": values})["ndcg"] for values in self._values(weights, k, trials)]

    def by_user(self, weights: Sequence[float]) -> Values:
        """Return NDCG@20 of each user's held-out items, float64 [B]."""
        return self._values(weights, 0, weights[:1])[0]

    def _values(self, weights: Sequence[float], k: int, trials: Sequence[float]) -> list[Values]:
        tried, own = np.array(trials, np.float32), np.array(weights, np.float32)
        ranks = trial_ranks(self.scores, self.floor, own, k, tried, self.indptr, self.columns)
        return [metrics.per_user(row, self.indptr, (CUTOFF,))[f"ndcg@{CUTOFF}"] for row in ranks]


def standardize(part: VectorScorer) -> VectorScorer:
    """Return the part with each user's vector over the spread of their scores.

    The spread over the catalogue is that of an inner product, sqrt(p^T Cov(items) p), in float64. The scores'
    mean is the same for all items of a user and left in. A user whose scores are all equal gets zeros.
    """
    return VectorScorer(over_spread(part.users, item_covariance(part.items)), part.items)


def item_covariance(items: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return Cov(items) over the catalogue, [d, d], for items float32 [I, d]."""
    mean, gram = items.mean(axis=0, dtype=np.float64), np.zeros((items.shape[1], items.shape[1]))
    with single_threaded_blas():  # in blocks of one order, so that no number of threads changes a bit
        for start in range(0, len(items), _BLOCK):
            centered = items[start : start + _BLOCK] - mean
            gram += centered.T @ centered
    return np.asarray(gram / max(1, len(items)))


def over_spread(vectors: NDArray[np.float32], covariance: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return user vectors [U, d], each over the spread of its scores; see standardize."""
    scaled, trace = np.empty(vectors.shape, np.float32), np.trace(covariance)

    def _work(start: int, stop: int) -> None:
        users = vectors[start:stop].astype(np.float64)
        variance = np.maximum(((users @ covariance) * users).sum(axis=1, keepdims=True), 0)
        # below what the float32 tables themselves can tell, a spread is rounding
        flat = variance <= 1e-12 * (users**2).sum(axis=1, keepdims=True) * trace
        scaled[start:stop] = np.divide(users, np.sqrt(variance), out=np.zeros_like(users), where=~flat)

    parallel_for(_work, chunks(len(vectors), _BLOCK))
    return scaled


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
    lists = _short_lists([*firsts, *others], validation, progress)
    return _search(lists, len(firsts), len(others), progress)


def _search(lists: _Lists, firsts: int, others: int, progress: Progress = silent) -> tuple[int, tuple[float, ...]]:
    """Climb from each start, and farther from the best end; see choose_weights.

    Args:
        lists: of the first parts, then of the others.
        firsts: how many there are.
        others: how many there are.
        progress: called after each climb.
    """
    climbs, total = list[tuple[int, tuple[float, ...], float]](), firsts + len(_MORE_STARTS) + 1

    def climb(first: int, start: float) -> None:
        climbs.append((first, *_climb(lists.of(first, firsts), [1.0, *[start] * others], GRID)))
        progress("search weights", len(climbs), total)

    for first in range(firsts):
        climb(first, _START)
    best, _, _ = max(climbs, key=lambda climb: climb[2])
    for start in _MORE_STARTS:
        climb(best, start)
    first, weights, _ = max(climbs, key=lambda climb: climb[2])
    own, *chosen = _climb_farther(lists.of(first, firsts), weights)
    progress("search weights", total, total)
    return first, tuple(weight / own for weight in chosen)


def _climb_farther(lists: _Lists, end: tuple[float, ...]) -> tuple[float, ...]:
    """Return the end of a climb on the wide grid from `end`, or `end` if the gain is within its standard error."""
    farther, _ = _climb(lists, end, WIDE_GRID)
    gains = lists.by_user(farther) - lists.by_user(end)
    return farther if gains.mean() > standard_error(gains) else end


def _climb(lists: _Lists, start: Sequence[float], grid: Sequence[float]) -> tuple[tuple[float, ...], float]:
    """Climb from these weights to where none changes; return the weights and the NDCG@20 there."""
    weights, best = list(start), 0.0
    for _ in range(_ROUNDS):
        before = tuple(weights)
        for k in (*range(1, len(weights)), 0):  # the first part is last: the others start from it
            trials = grid if k else tuple(sorted({*grid[1:], weights[0]}))
            reached = lists.ndcg(weights, k, trials)
            weights[k], best = trials[int(np.argmax(reached))], max(reached)
        if tuple(weights) == before:
            break
    return tuple(weights), best


def _short_lists(parts: Sequence[Part], validation: Validation, progress: Progress = silent) -> _Lists:
    """Return the lists of the users to search on; see choose_weights."""
    train, valid = validation.train, validation.valid
    listed = min(_LISTED, train.n_columns)
    width = listed * len(parts) + int(np.diff(valid.indptr).max(initial=0))
    users = spread_users(validation.users, max(1, _LIST_BYTES // (4 * len(parts) * width)))
    seen, held = train.take_rows(users), valid.take_rows(users)
    best = []
    for n, part in enumerate(parts, start=1):
        best.append(part.top(users, listed, seen)[0])
        progress("list items", n, 2 * len(parts))
    lists = join_lists([*best, _as_lists(held)], train.n_columns)
    rows = lists.rows()
    at = rows, np.arange(lists.nnz) - lists.indptr[rows]
    scores = np.zeros((len(parts), len(users), int(np.diff(lists.indptr).max(initial=0))), np.float32)
    floor = np.full(scores.shape[1:], -np.inf, np.float32)
    floor[at] = 0
    for n, part in enumerate(parts):
        scores[n][at] = part.scores_of(users, lists)
        progress("list items", len(parts) + n + 1, 2 * len(parts))
    return _Lists(scores, floor, at[1][_places(lists, held)], held.indptr)


def _as_lists(matrix: CSR) -> NDArray[np.int32]:
    """Return the entries of each row, int32 [B, K], padded with -1."""
    rows = matrix.rows()
    lists = np.full((matrix.n_rows, int(np.diff(matrix.indptr).max(initial=0))), -1, np.int32)
    lists[rows, np.arange(matrix.nnz) - matrix.indptr[rows]] = matrix.indices
    return lists


def _places(lists: CSR, entries: CSR) -> NDArray[np.int64]:
    """Return where in `lists` each of `entries` is stored, which are among them."""
    keys, sought = (matrix.rows() * matrix.n_columns + matrix.indices for matrix in (lists, entries))
    return np.asarray(np.searchsorted(keys, sought), np.int64)

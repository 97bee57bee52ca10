"""The contract of the mixed scores: score every pair, then count or sort.

Whole U x I arrays, several times over: for tests, not for use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.score import dot_reference
from mllmrec_kernels.mixed.scores import Problem, SparsePart
from mllmrec_kernels.topk.reference import TopK

LANES = 256  # sums that the entries of a row are added to in turn, by their ids


def sparse_part(sparse: SparsePart, n_items: int) -> NDArray[np.float32]:
    """Return x = R W, float32 [U, I]: for each user, the rows of W in the order of the user's items."""
    x = np.zeros((len(sparse.indptr) - 1, n_items), np.float32)
    for u in range(len(x)):
        for n in range(sparse.indptr[u], sparse.indptr[u + 1]):
            j, value = sparse.ids[n], sparse.values[n] if len(sparse.values) else np.float32(1)
            if len(sparse.dense_weights):
                x[u] += value * sparse.dense_weights[j]
            else:
                row = slice(sparse.weight_indptr[j], sparse.weight_indptr[j + 1])
                x[u, sparse.weight_ids[row]] += value * sparse.weight_values[row]
    return x


def all_scores(problem: Problem) -> NDArray[np.float32]:
    """Return every score, float32 [U, I]; see mixed/scores.py."""
    x = sparse_part(problem.sparse, len(problem.items)).astype(np.float64)
    scaled = x * problem.scale.astype(np.float64)[:, None]  # exact
    return np.asarray(scaled + dot_reference(problem.users, problem.items), np.float32)


def row_spread(sparse: SparsePart, n_items: int) -> NDArray[np.float64]:
    """Return the standard deviation of each row of R W, float64 [U].

        mean = sum x / I,   sd = sqrt( (sum over x != 0 of (x - mean)^2 + #{x = 0} mean^2) / I )

    in float64; a sum goes to LANES sums by item id, which are folded by halves.
    """
    x = sparse_part(sparse, n_items).astype(np.float64)
    if n_items == 0:
        return np.zeros(len(x))
    mean = _total(x) / n_items
    squares = np.where(x != 0, (x - mean[:, None]) * (x - mean[:, None]), 0.0)
    zeros = np.count_nonzero(x == 0, axis=1).astype(np.float64)
    return np.asarray(np.sqrt((_total(squares) + zeros * (mean * mean)) / n_items))


def _total(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.zeros((len(rows), LANES))
    for start in range(0, rows.shape[1], LANES):
        part = rows[:, start : start + LANES]
        sums[:, : part.shape[1]] += part
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return np.asarray(sums[:, 0])


def rank_mixed(problem: Problem, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz].

    rank(u, h) = #{ i not excluded : score(u, i) > score(u, h)  or  score(u, i) = score(u, h) and i < h }

    Args:
        problem: the scores of every user.
        exclude: [U, I], items that are not ranked.
        heldout: [U, I], items to rank.
    """
    scores, ids, ranks = all_scores(problem), np.arange(problem.shape[1]), []
    for u in range(heldout.n_rows):
        allowed = np.ones(len(ids), dtype=bool)
        allowed[exclude.row(u)] = False
        for h in heldout.row(u):
            ahead = (scores[u] > scores[u, h]) | ((scores[u] == scores[u, h]) & (ids < h))
            ranks.append(np.count_nonzero(ahead & allowed))
    return np.array(ranks, dtype=np.int32)


def topk_mixed(problem: Problem, k: int, exclude: CSR | None, floor: NDArray[np.float32]) -> TopK:
    """Return the k best items of each user, ids int32 [U, k] and scores float32 [U, k].

    Args:
        problem: the scores of every user.
        k: items per user.
        exclude: [U, I], items not to list; None: none.
        floor: float32 [U], items of a lower score are not listed.
    """
    allowed = np.ones(problem.shape, dtype=bool)
    if exclude is not None:
        allowed[exclude.rows(), exclude.indices] = False
    scores = all_scores(problem)
    ids = np.full((len(scores), k), -1, dtype=np.int32)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for u, row in enumerate(scores):
        candidates = np.flatnonzero(allowed[u] & (row >= floor[u]))
        order = candidates[np.argsort(-row[candidates], kind="stable")][:k]
        ids[u, : len(order)], best[u, : len(order)] = order, row[order]
    return ids, best


def score_mixed(problem: Problem, pairs: CSR) -> NDArray[np.float32]:
    """Return the score of each entry of `pairs`, float32 [nnz]."""
    return np.asarray(all_scores(problem)[pairs.rows(), pairs.indices])

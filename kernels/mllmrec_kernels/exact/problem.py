"""One top-k search as the CPU backends take it: the problem, the pair's score, and the heaps under construction.

A heap is ordered by (score falling, id rising). The order is total, so neither the order of offers nor the number
of threads shows in the result.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.score import FLUSHED, TINY, dot_rows, float32_error, inverse_norms

_NO_ITEMS = np.zeros(0, dtype=np.int32)


class TopKProblem(NamedTuple):
    """Queries, items and the limits of a list; a tuple, because compiled code takes it as it is.

    Rows of norm at most 1 are `queries * query_scale` and `items * item_scale`. Their product times
    `score_unit[q]` is the score.

    Attributes:
        queries: float32 [Q, d].
        items: float32 [N, d]; the same array as `queries` in a self graph.
        query_weights: float64 [Q]; score = float32(dot * (query_weights[q] * item_weights[i])).
        item_weights: float64 [N]; a weight of 0 on either side leaves the pair out.
        query_scale: float64 [Q].
        item_scale: float64 [N].
        score_unit: float64 [Q].
        rounding_error: float64 [Q]; bounds what scaling, rounding and underflow do to score / score_unit[q].
        min_score: lowest score that a list takes.
        k: entries per list.
        exclude_self: leave row q out of list q.
        indptr: int64 [Q + 1], of the CSR of items that each query must not list.
        excluded: int32, the column ids of that CSR.
    """

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    query_weights: NDArray[np.float64]
    item_weights: NDArray[np.float64]
    query_scale: NDArray[np.float64]
    item_scale: NDArray[np.float64]
    score_unit: NDArray[np.float64]
    rounding_error: NDArray[np.float64]
    min_score: float
    k: int
    exclude_self: bool
    indptr: NDArray[np.int64]
    excluded: NDArray[np.int32]


class Heaps(NamedTuple):
    """One bounded heap a query, the last in order at the root.

    Attributes:
        ids: int32 [Q, k].
        scores: float32 [Q, k].
        sizes: int64 [Q], entries in use.
    """

    ids: NDArray[np.int32]
    scores: NDArray[np.float32]
    sizes: NDArray[np.int64]


def cosine_problem(
    queries: NDArray[np.float32], features: NDArray[np.float32], k: int, threshold: float | None, *, exclude_self: bool
) -> TopKProblem:
    """Return the search by cosine; a zero row has no cosine.

    Args:
        queries: float32 [Q, d].
        features: float32 [N, d]; the same array as `queries` in a self graph.
        k: entries per list, at least 1.
        threshold: least cosine that a list takes; None for all.
        exclude_self: leave row q out of list q.
    """
    item_scale = inverse_norms(features)
    query_scale = item_scale if queries is features else inverse_norms(queries)
    error = float(rounding_bound(np.ones(1), queries.shape[1])[0])
    return TopKProblem(
        queries=queries,
        items=features,
        query_weights=query_scale,
        item_weights=item_scale,
        query_scale=query_scale,
        item_scale=item_scale,
        score_unit=_constant(1.0, len(queries)),
        rounding_error=_constant(error, len(queries)),
        min_score=-np.inf if threshold is None else float(np.float32(threshold)),
        k=min(k, len(features)),
        exclude_self=exclude_self,
        indptr=np.broadcast_to(np.int64(0), (len(queries) + 1,)),
        excluded=_NO_ITEMS,
    )


def dot_problem(queries: NDArray[np.float32], items: NDArray[np.float32], k: int, exclude: CSR | None) -> TopKProblem:
    """Return the search by inner product.

    Args:
        queries: float32 [Q, d].
        items: float32 [N, d].
        k: entries per list, at least 1.
        exclude: [Q, N], items that each query must not list.
    """
    query_scale, largest = inverse_norms(queries), _largest_norm(items)
    unit = np.divide(largest, query_scale, out=np.zeros(len(query_scale)), where=query_scale > 0)
    return TopKProblem(
        queries=queries,
        items=items,
        query_weights=_constant(1.0, len(queries)),
        item_weights=_constant(1.0, len(items)),
        query_scale=query_scale,
        item_scale=_constant(1.0 / largest if largest > 0 else 0.0, len(items)),
        score_unit=unit,
        rounding_error=rounding_bound(unit, queries.shape[1]),
        min_score=-np.inf,
        k=min(k, len(items)),
        exclude_self=False,
        indptr=np.broadcast_to(np.int64(0), (len(queries) + 1,)) if exclude is None else exclude.indptr,
        excluded=_NO_ITEMS if exclude is None else exclude.indices,
    )


def rounding_bound(score_unit: NDArray[np.float64], d: int) -> NDArray[np.float64]:
    """Bound |product of float32 rows of norm at most 1 - score / score_unit|: rounding and underflow; float64 [Q]."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(float32_error(d) + 2 * d * FLUSHED + 2 * TINY / score_unit)


def _constant(value: float, n: int) -> NDArray[np.float64]:
    """Repeat `value` n times in the memory of one."""
    return np.broadcast_to(np.float64(value), (n,))


def _largest_norm(vectors: NDArray[np.float32]) -> float:
    """Return the largest |row|; 0 for no rows."""
    inverse = inverse_norms(vectors)
    return float(1.0 / inverse[inverse > 0].min()) if (inverse > 0).any() else 0.0


@jit
def score_pair(problem: TopKProblem, q: int, i: int) -> np.float32:
    """Return the exact score of query q and item i, as score.py defines it."""
    return np.float32(
        dot_rows(problem.queries, q, problem.items, i) * (problem.query_weights[q] * problem.item_weights[i])
    )


@jit
def is_excluded(problem: TopKProblem, q: int, i: int) -> bool:
    """Tell if the pair has no score or must not be listed."""
    if problem.query_weights[q] * problem.item_weights[i] == 0.0 or (problem.exclude_self and i == q):
        return True
    return is_stored(problem.indptr, problem.excluded, q, i)


@jit
def is_stored(indptr: Int64Array, indices: Int32Array, q: int, i: int) -> bool:
    """Tell if row q of a CSR holds column i, by binary search."""
    low, high = indptr[q], indptr[q + 1]
    stop = high
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < i:
            low = middle + 1
        else:
            high = middle
    return bool(low < stop and indices[low] == i)


@jit
def ranks_before(score: np.float32, item: int, other_score: np.float32, other_item: int) -> bool:
    """Tell if (score, item) precedes the other: higher score, then lower id."""
    return bool(score > other_score or (score == other_score and item < other_item))


@jit
def push(
    ids: NDArray[np.int32], scores: NDArray[np.float32], q: int, size: int, limit: int, score: np.float32, item: int,
) -> int:  # fmt: skip
    """Offer one entry to the heap of at most `limit` in row q; return the heap's size."""
    if size == limit:
        if ranks_before(score, item, scores[q, 0], ids[q, 0]):
            ids[q, 0], scores[q, 0] = item, score
            _sift_down(ids, scores, q, size)
        return size
    at = size
    while at > 0 and ranks_before(scores[q, (at - 1) // 2], ids[q, (at - 1) // 2], score, item):
        ids[q, at], scores[q, at] = ids[q, (at - 1) // 2], scores[q, (at - 1) // 2]
        at = (at - 1) // 2
    ids[q, at], scores[q, at] = item, score
    return size + 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def sort_heaps(ids: Int32Array, scores: Float32Array, sizes: Int64Array) -> None:
    """Sort each heap in place: move the root, last in order, to the end, again and again."""
    for q in prange(len(ids)):
        for size in range(sizes[q] - 1, 0, -1):
            item, score = ids[q, 0], scores[q, 0]
            ids[q, 0], scores[q, 0] = ids[q, size], scores[q, size]
            _sift_down(ids, scores, q, size)
            ids[q, size], scores[q, size] = item, score


@jit
def _sift_down(ids: NDArray[np.int32], scores: NDArray[np.float32], q: int, size: int) -> None:
    """Restore the heap in row q after its root changed."""
    item, score = ids[q, 0], scores[q, 0]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and ranks_before(scores[q, child], ids[q, child], scores[q, child + 1], ids[q, child + 1]):
            child += 1
        if not ranks_before(score, item, scores[q, child], ids[q, child]):
            break
        ids[q, at], scores[q, at] = ids[q, child], scores[q, child]
        at = child
    ids[q, at], scores[q, at] = item, score

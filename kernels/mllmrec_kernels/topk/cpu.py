"""topk_cosine and topk_dot on the CPU: a float32 product proposes, the float64 score decides.

For a tile of queries and items, rows scaled to norm at most 1, BLAS gives P with

    |P[q, i] * unit[q] - score(q, i)| <= error[q, i] * unit[q],    error = float32_error(d) + underflow

so a pair with P[q, i] < bar[q] = (worst kept score) / unit[q] - error cannot enter the list of q, and the
others, few, are scored by score.py. What BLAS rounds, and how its edge kernels differ, never shows.
Lists are ordered by (score falling, id rising), a total order: their content does not depend on the order
in which tiles come, or on the number of threads.

Bytes: one tile of products, and both sides of it in float32, within `max_bytes`. Bound by the product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.csr import CSR
from mllmrec_kernels.errors import KernelInputError
from mllmrec_kernels.topk.reference import TopK
from mllmrec_kernels.topk.score import FLUSHED, TINY, as_unit, dot, float32_error, inverse_norms

_LARGEST_TILE = 2048
_SCAN = 64
_NOBODY = np.zeros(0, dtype=np.int32)


def topk_cosine(
    queries: NDArray[np.float32],
    features: NDArray[np.float32],
    k: int,
    *,
    threshold: float | None,
    without_self: bool,
    max_bytes: int,
) -> TopK:
    """Exact top-k by cosine; see the verb."""
    b = inverse_norms(features)
    a = b if queries is features else inverse_norms(queries)
    floor = -np.inf if threshold is None else float(np.float32(threshold))
    unit = np.ones(len(queries))
    return _topk(queries, features, k, a, b, b, unit, floor, without_self, None, max_bytes)


def topk_dot(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    k: int,
    *,
    exclude: CSR | None,
    max_bytes: int,
) -> TopK:
    """Exact top-k by inner product; see the verb."""
    a, largest = inverse_norms(queries), largest_norm(items)
    unit = np.divide(largest, a, out=np.zeros(len(a)), where=a > 0)
    ones = np.ones(len(items))
    shrink = np.full(len(items), 1.0 / largest if largest > 0 else 0.0)
    return _topk(queries, items, k, None, ones, shrink, unit, -np.inf, False, exclude, max_bytes)


def largest_norm(vectors: NDArray[np.float32]) -> float:
    """The largest |row|; 0 for no rows."""
    inverse = inverse_norms(vectors)
    return float(1.0 / inverse[inverse > 0].min()) if (inverse > 0).any() else 0.0


def tile_rows(d: int, max_bytes: int) -> int:
    """Rows of a square tile: its products and both sides, float32, fit in `max_bytes`."""
    rows = int(np.sqrt(d * d + max_bytes / 4) - d)  # 4 (r^2 + 2 r d) = max_bytes
    if rows < 1:
        raise KernelInputError(f"max_bytes={max_bytes} holds no tile at d={d}; give at least {4 + 8 * d}")
    return min(rows, _LARGEST_TILE)


def bar_slack(unit: NDArray[np.float64], d: int) -> NDArray[np.float64]:
    """error[q] of the module's inequality, in units of unit[q]: rounding, and what underflows; [Q]."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(float32_error(d) + 2 * d * FLUSHED + 2 * TINY / unit)


def _topk(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    k: int,
    a: NDArray[np.float64] | None,
    b: NDArray[np.float64],
    shrink: NDArray[np.float64],
    unit: NDArray[np.float64],
    floor: float,
    without_self: bool,
    exclude: CSR | None,
    max_bytes: int,
) -> TopK:
    q_total, d = queries.shape
    kept = min(k, len(items))
    ids = np.full((q_total, k), -1, dtype=np.int32)
    best = np.full((q_total, k), -np.inf, dtype=np.float32)
    if kept == 0 or q_total == 0:
        return ids, best
    to_unit = inverse_norms(queries) if a is None else a
    scale = np.ones(q_total) if a is None else a
    slack = bar_slack(unit, d)
    sizes = np.zeros(q_total, dtype=np.int64)
    rows = tile_rows(d, max_bytes)
    left = np.empty((min(rows, q_total), d), dtype=np.float32)
    right = np.empty((min(rows, len(items)), d), dtype=np.float32)
    products = np.empty(len(left) * len(right), dtype=np.float32)
    indptr = np.zeros(q_total + 1, dtype=np.int64) if exclude is None else exclude.indptr
    excluded = _NOBODY if exclude is None else exclude.indices
    for q0 in range(0, q_total, rows):
        q1 = min(q0 + rows, q_total)
        x = as_unit(queries[q0:q1], to_unit[q0:q1], left[: q1 - q0])
        for i0 in range(0, len(items), rows):
            i1 = min(i0 + rows, len(items))
            y = as_unit(items[i0:i1], shrink[i0:i1], right[: i1 - i0])
            tile = products[: len(x) * len(y)].reshape(len(x), len(y))
            np.matmul(x, y.T, out=tile)
            _update(tile, q0, i0, queries, items, scale, b, unit, slack, floor, without_self,
                    indptr, excluded, ids, best, sizes, kept)  # fmt: skip
    _sort(ids, best, sizes)
    return ids, best


@njit(cache=True, nogil=True, error_model="numpy")
def before(score: Any, item: Any, other_score: Any, other_item: Any) -> bool:
    """Whether (score, item) stands before the other: higher score, then lower id."""
    return bool(score > other_score or (score == other_score and item < other_item))


@njit(cache=True, nogil=True, error_model="numpy")
def sift_down(ids: NDArray[np.int32], best: NDArray[np.float32], size: int) -> None:
    """Restore the heap (last in order at the root) after its root changed."""
    item, score = ids[0], best[0]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and before(best[child], ids[child], best[child + 1], ids[child + 1]):
            child += 1
        if not before(score, item, best[child], ids[child]):
            break
        ids[at], best[at] = ids[child], best[child]
        at = child
    ids[at], best[at] = item, score


@njit(cache=True, nogil=True, error_model="numpy")
def push(
    ids: NDArray[np.int32],
    best: NDArray[np.float32],
    size: int,
    limit: int,
    score: Any,
    item: int,
) -> int:
    """Offer one entry to a heap of at most `limit`; returns its size."""
    if size == limit:
        if before(score, item, best[0], ids[0]):
            ids[0], best[0] = item, score
            sift_down(ids, best, size)
        return size
    at = size
    while at > 0 and before(best[(at - 1) // 2], ids[(at - 1) // 2], score, item):
        ids[at], best[at] = ids[(at - 1) // 2], best[(at - 1) // 2]
        at = (at - 1) // 2
    ids[at], best[at] = item, score
    return size + 1


@njit(cache=True, nogil=True, error_model="numpy")
def _bar(size: int, limit: int, worst: Any, floor: Any, unit: Any, slack: Any) -> np.float32:
    lowest = worst if size == limit else floor
    if lowest == -np.inf or slack == np.inf:
        return np.float32(-np.inf)
    return np.float32(lowest / unit - slack)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _update(
    tile: Any, q0: Any, i0: Any, queries: Any, items: Any, a: Any, b: Any, unit: Any, slack: Any,
    floor: Any, without_self: Any, indptr: Any, excluded: Any, ids: Any, best: Any, sizes: Any, kept: Any,
) -> None:  # fmt: skip
    for r in prange(tile.shape[0]):
        q = q0 + r
        size = sizes[q]
        bar = _bar(size, kept, best[q, 0], floor, unit[q], slack[q])
        barred = excluded[indptr[q] : indptr[q + 1]]
        for start in range(0, tile.shape[1], _SCAN):
            stop = min(start + _SCAN, tile.shape[1])
            hits = 0  # a branch-free count is one vector loop, and nearly always zero
            for c in range(start, stop):
                hits += tile[r, c] >= bar
            for c in range(start, stop if hits else start):
                if tile[r, c] < bar:
                    continue
                i = i0 + c
                weight = a[q] * b[i]
                if weight == 0.0 or (without_self and i == q):
                    continue
                at = np.searchsorted(barred, i)
                if at < len(barred) and barred[at] == i:
                    continue
                score = np.float32(dot(queries[q], items[i]) * weight)
                if score >= floor:
                    size = push(ids[q], best[q], size, kept, score, i)
                    bar = _bar(size, kept, best[q, 0], floor, unit[q], slack[q])
        sizes[q] = size


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _sort(ids: Any, best: Any, sizes: Any) -> None:
    """Heaps to lists: the root, last in order, goes to the end, again and again."""
    for q in prange(len(ids)):
        for size in range(sizes[q] - 1, 0, -1):
            item, score = ids[q, 0], best[q, 0]
            ids[q, 0], best[q, 0] = ids[q, size], best[q, size]
            sift_down(ids[q], best[q], size)
            ids[q, size], best[q, size] = item, score

"""Lists of the best so far: heaps of bounded size, the last in order at the root.

Ordered by (score falling, id rising), a total order: what a list holds in the end does not depend on the order
in which entries were offered, nor on the number of threads.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import compiled


@compiled
def before(score: Any, item: Any, other_score: Any, other_item: Any) -> bool:
    """Whether (score, item) stands before the other: higher score, then lower id."""
    return bool(score > other_score or (score == other_score and item < other_item))


@compiled
def sift_down(ids: NDArray[np.int32], best: NDArray[np.float32], q: int, size: int) -> None:
    """Restore the heap in row q (last in order at the root) after its root changed."""
    item, score = ids[q, 0], best[q, 0]
    at = 0
    while 2 * at + 1 < size:
        child = 2 * at + 1
        if child + 1 < size and before(best[q, child], ids[q, child], best[q, child + 1], ids[q, child + 1]):
            child += 1
        if not before(score, item, best[q, child], ids[q, child]):
            break
        ids[q, at], best[q, at] = ids[q, child], best[q, child]
        at = child
    ids[q, at], best[q, at] = item, score


@compiled
def push(
    ids: NDArray[np.int32],
    best: NDArray[np.float32],
    q: int,
    size: int,
    limit: int,
    score: Any,
    item: int,
) -> int:
    """Offer one entry to the heap of at most `limit` in row q; returns its size."""
    if size == limit:
        if before(score, item, best[q, 0], ids[q, 0]):
            ids[q, 0], best[q, 0] = item, score
            sift_down(ids, best, q, size)
        return size
    at = size
    while at > 0 and before(best[q, (at - 1) // 2], ids[q, (at - 1) // 2], score, item):
        ids[q, at], best[q, at] = ids[q, (at - 1) // 2], best[q, (at - 1) // 2]
        at = (at - 1) // 2
    ids[q, at], best[q, at] = item, score
    return size + 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def sort_lists(ids: Any, best: Any, sizes: Any) -> None:
    """Heaps to lists: the root, last in order, goes to the end, again and again."""
    for q in prange(len(ids)):
        for size in range(sizes[q] - 1, 0, -1):
            item, score = ids[q, 0], best[q, 0]
            ids[q, 0], best[q, 0] = ids[q, size], best[q, size]
            sift_down(ids, best, q, size)
            ids[q, size], best[q, size] = item, score

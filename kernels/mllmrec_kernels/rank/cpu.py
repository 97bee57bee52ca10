"""rank_heldout on the CPU: a float32 product counts what it can prove, the float64 score the rest.

With P and error as in topk/cpu.py, an item with P[u, i] > high is ahead of the held-out item h, one with
P[u, i] < low is not, where low and high are s(u, h) / unit[u] -+ error; the few between are scored as h
itself was, by score.py, so that equal vectors tie whatever BLAS does at its edges. Excluded items are
counted with the rest and taken off again, each scored exactly.

Bytes: one tile of products, and both sides of it in float32, within `max_bytes`. Bound by the product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.csr import CSR
from mllmrec_kernels.topk.cpu import bar_slack, before, largest_norm, tile_rows
from mllmrec_kernels.topk.score import as_unit, dot, inverse_norms


def rank_heldout(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    exclude: CSR,
    heldout: CSR,
    *,
    max_bytes: int,
) -> NDArray[np.int32]:
    """0-based rank of each held-out item; see the verb."""
    users, d = user_vectors.shape
    ranks = np.zeros(heldout.nnz, dtype=np.int32)
    if not heldout.nnz:
        return ranks
    a, largest = inverse_norms(user_vectors), largest_norm(item_vectors)
    unit = np.divide(largest, a, out=np.zeros(users), where=a > 0)
    slack, rows = bar_slack(unit, d), tile_rows(d, max_bytes)
    shrink = np.full(rows, 1.0 / largest if largest > 0 else 0.0)
    own = np.empty(heldout.nnz, dtype=np.float32)
    _start(user_vectors, item_vectors, exclude.indptr, exclude.indices, heldout.indptr, heldout.indices,
           own, ranks)  # fmt: skip
    asked = np.flatnonzero(np.diff(heldout.indptr))
    left = np.empty((min(rows, len(asked)), d), dtype=np.float32)
    right = np.empty((min(rows, len(item_vectors)), d), dtype=np.float32)
    products = np.empty(len(left) * len(right), dtype=np.float32)
    for u0 in range(0, len(asked), rows):
        block = asked[u0 : u0 + rows]
        x = left[: len(block)]
        np.take(user_vectors, block, axis=0, out=x)
        as_unit(x, a[block], x)
        for i0 in range(0, len(item_vectors), rows):
            i1 = min(i0 + rows, len(item_vectors))
            y = as_unit(item_vectors[i0:i1], shrink[: i1 - i0], right[: i1 - i0])
            tile = products[: len(x) * len(y)].reshape(len(x), len(y))
            np.matmul(x, y.T, out=tile)
            _count(tile, block, i0, user_vectors, item_vectors, unit, slack, heldout.indptr,
                   heldout.indices, own, ranks)  # fmt: skip
    return ranks


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _start(
    users: Any, items: Any, ex_indptr: Any, ex_indices: Any, indptr: Any, indices: Any, own: Any, ranks: Any
) -> None:
    """Score the held-out items, and take the excluded ones that stand before them off their ranks."""
    for u in prange(len(users)):
        for n in range(indptr[u], indptr[u + 1]):
            own[n] = np.float32(dot(users[u], items[indices[n]]))
        if indptr[u] == indptr[u + 1]:
            continue
        for e in range(ex_indptr[u], ex_indptr[u + 1]):
            i = ex_indices[e]
            score = np.float32(dot(users[u], items[i]))
            for n in range(indptr[u], indptr[u + 1]):
                if before(score, i, own[n], indices[n]):
                    ranks[n] -= 1


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count(
    tile: Any, block: Any, i0: Any, users: Any, items: Any, unit: Any, slack: Any, indptr: Any,
    indices: Any, own: Any, ranks: Any,
) -> None:  # fmt: skip
    for r in prange(len(block)):
        u = block[r]
        row = tile[r]
        for n in range(indptr[u], indptr[u + 1]):
            low, high = np.float32(-np.inf), np.float32(np.inf)
            if slack[u] < np.inf:
                low = np.float32(own[n] / unit[u] - slack[u])
                high = np.float32(own[n] / unit[u] + slack[u])
            ahead, near = 0, 0
            for c in range(len(row)):
                ahead += row[c] > high
                near += row[c] >= low
            near -= ahead
            for c in range(len(row)):
                if near == 0:
                    break
                if row[c] >= low and row[c] <= high:
                    near -= 1
                    score = np.float32(dot(users[u], items[i0 + c]))
                    ahead += before(score, i0 + c, own[n], indices[n])
            ranks[n] += ahead

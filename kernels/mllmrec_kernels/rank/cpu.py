"""rank_heldout on the CPU: by the int8 product where the processor has it, by the float32 one elsewhere.

With P and slack as in topk/floats.py, an item with P[u, i] > high is ahead of the held-out item h, one with
P[u, i] < low is not, where low and high are s(u, h) / unit[u] -+ slack; the few between are scored as h
itself was, by score.py, so that equal vectors tie whatever BLAS does at its edges. Excluded items are
counted with the rest and taken off again, each scored exactly.

Bytes: one tile of products a thread, and both sides of it in float32, within `max_bytes`. Bound by the product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.base.parallel import over_chunks
from mllmrec_kernels.exact.float32_tile import tile_rows
from mllmrec_kernels.exact.heap import before
from mllmrec_kernels.exact.int8_tile import supported
from mllmrec_kernels.exact.problem import Ask, inner_product
from mllmrec_kernels.exact.score import as_unit, dot_rows
from mllmrec_kernels.rank import exact_int8 as certified


def rank_heldout(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    exclude: CSR,
    heldout: CSR,
    *,
    limit: int,
    max_bytes: int,
) -> NDArray[np.int32]:
    """0-based rank of each held-out item; see the verb."""
    ranks = np.zeros(heldout.nnz, dtype=np.int32)
    if not heldout.nnz:
        return ranks
    ask = inner_product(user_vectors, item_vectors, 1, None)
    own = np.empty(heldout.nnz, dtype=np.float32)
    _start(user_vectors, item_vectors, exclude.indptr, exclude.indices, heldout.indptr, heldout.indices,
           own, ranks)  # fmt: skip
    if not (supported() and certified.count(ask, heldout, own, ranks, limit, max_bytes)):
        _count_by_floats(ask, heldout, own, ranks, limit, max_bytes)
    return ranks


def _count_by_floats(
    ask: Ask, heldout: CSR, own: NDArray[np.float32], ranks: NDArray[np.int32], limit: int, max_bytes: int
) -> None:
    d = ask.items.shape[1]
    rows = min(tile_rows(d, max_bytes), tile_rows(d, max(max_bytes // get_num_threads(), 4 + 8 * d)))
    asked = np.flatnonzero(np.diff(heldout.indptr))

    def count_block(u0: int, u1: int) -> None:
        block = asked[u0:u1]
        x = as_unit(ask.queries[block], ask.to_unit[block], np.empty((len(block), d), np.float32))
        right = np.empty((min(rows, len(ask.items)), d), dtype=np.float32)
        products = np.empty(len(x) * len(right), dtype=np.float32)
        for i0 in range(0, len(ask.items), rows):
            i1 = min(i0 + rows, len(ask.items))
            y = as_unit(ask.items[i0:i1], ask.shrink[i0:i1], right[: i1 - i0])
            tile = products[: len(x) * len(y)].reshape(len(x), len(y))
            np.matmul(x, y.T, out=tile)
            _count(tile, block, i0, ask.queries, ask.items, ask.unit, ask.slack, heldout.indptr,
                   heldout.indices, own, ranks, limit)  # fmt: skip

    over_chunks(count_block, len(asked), rows)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _start(
    users: Any, items: Any, ex_indptr: Any, ex_indices: Any, indptr: Any, indices: Any, own: Any, ranks: Any
) -> None:
    """Score the held-out items, and take the excluded ones that stand before them off their ranks."""
    for u in prange(len(users)):
        for n in range(indptr[u], indptr[u + 1]):
            own[n] = np.float32(dot_rows(users, u, items, indices[n]))
        if indptr[u] == indptr[u + 1]:
            continue
        for e in range(ex_indptr[u], ex_indptr[u + 1]):
            i = ex_indices[e]
            score = np.float32(dot_rows(users, u, items, i))
            for n in range(indptr[u], indptr[u + 1]):
                if before(score, i, own[n], indices[n]):
                    ranks[n] -= 1


@compiled
def _count(
    tile: Any, block: Any, i0: Any, users: Any, items: Any, unit: Any, slack: Any, indptr: Any,
    indices: Any, own: Any, ranks: Any, limit: Any,
) -> None:  # fmt: skip
    for r in range(len(block)):
        u = block[r]
        row = tile[r]
        for n in range(indptr[u], indptr[u + 1]):
            if ranks[n] >= limit:
                continue
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
                    score = np.float32(dot_rows(users, u, items, i0 + c))
                    ahead += before(score, i0 + c, own[n], indices[n])
            ranks[n] += ahead


@compiled
def shared(exclude_indptr: Any, exclude: Any, heldout_indptr: Any, heldout: Any) -> tuple[int, int, int]:
    """(row, column, how many): the first entry that two patterns of ascending rows share, and the number of all."""
    row, column, count = -1, -1, 0
    for u in range(len(heldout_indptr) - 1):
        e, stop = exclude_indptr[u], exclude_indptr[u + 1]
        for h in range(heldout_indptr[u], heldout_indptr[u + 1]):
            while e < stop and exclude[e] < heldout[h]:
                e += 1
            if e < stop and exclude[e] == heldout[h]:
                if count == 0:
                    row, column = u, heldout[h]
                count += 1
    return row, column, count

"""Rank held-out items on the CPU: by the int8 product if the processor has it, by the float32 one elsewhere.

With P and rounding_error as in exact/float32_tile.py, an item with P[u, i] > high is ahead of the held-out item h,
and one with P[u, i] < low is not, where low and high are score(u, h) / score_unit[u] -+ rounding_error[u]. The few
between are scored exactly, as h was, so that equal vectors tie. Excluded items are counted with the rest and
subtracted again, each scored exactly.

Bytes: one tile of products per thread, and both sides of it in float32, within `max_bytes`. Bound by the product.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.float32_tile import for_each_tile
from mllmrec_kernels.exact.int8_tile import supported
from mllmrec_kernels.exact.kept import KeptItems
from mllmrec_kernels.exact.problem import TopKProblem, dot_problem, ranks_before
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.rank import exact_int8


def rank_heldout(
    user_vectors: NDArray[np.float32],
    item_vectors: NDArray[np.float32],
    exclude: CSR,
    heldout: CSR,
    *,
    limit: int,
    max_bytes: int,
) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz].

    Args:
        user_vectors: float32 [U, d].
        item_vectors: float32 [I, d].
        exclude: [U, I], disjoint from `heldout`.
        heldout: [U, I].
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.
    """
    ranks = np.zeros(heldout.nnz, dtype=np.int32)
    if not heldout.nnz:
        return ranks
    problem = dot_problem(user_vectors, item_vectors, 1, None)
    scores = np.empty(heldout.nnz, dtype=np.float32)
    _score_heldout(
        user_vectors, item_vectors, exclude.indptr, exclude.indices, heldout.indptr, heldout.indices, scores, ranks
    )
    count_ahead(problem, heldout, scores, ranks, limit, max_bytes)
    return ranks


def count_ahead(
    problem: TopKProblem,
    heldout: CSR,
    scores: NDArray[np.float32],
    ranks: NDArray[np.int32],
    limit: int,
    max_bytes: int,
    kept: KeptItems | None = None,
) -> None:
    """Add to each rank the number of items whose inner product is ahead of a held-out item's score.

    Args:
        problem: users as queries, items, and the scales of both.
        heldout: [U, I].
        scores: float32 [heldout.nnz], what the items are compared with.
        ranks: int32 [heldout.nnz], added to.
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.
        kept: of earlier calls with the same items; added to.
    """
    kept = kept or KeptItems()
    if supported() and exact_int8.count_ahead(problem, heldout, scores, ranks, limit, max_bytes, kept):
        return
    users = np.flatnonzero(np.diff(heldout.indptr))

    def _count(tile: NDArray[np.float32], start: int, first_item: int) -> None:
        block = users[start : start + len(tile)]
        _count_tile(tile, block, first_item, problem, heldout.indptr, heldout.indices, scores, ranks, limit)

    for_each_tile(problem, max_bytes, _count, query_rows=users)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _score_heldout(
    users: Float32Array, items: Float32Array, ex_indptr: Int64Array, ex_indices: Int32Array, indptr: Int64Array,
    indices: Int32Array, scores: Float32Array, ranks: Int32Array,
) -> None:  # fmt: skip
    """Score the held-out items, and subtract from their ranks the excluded items that are ahead of them."""
    for u in prange(len(users)):
        for n in range(indptr[u], indptr[u + 1]):
            scores[n] = np.float32(dot_rows(users, u, items, indices[n]))
        if indptr[u] == indptr[u + 1]:
            continue
        for e in range(ex_indptr[u], ex_indptr[u + 1]):
            i = ex_indices[e]
            score = np.float32(dot_rows(users, u, items, i))
            for n in range(indptr[u], indptr[u + 1]):
                if ranks_before(score, i, scores[n], indices[n]):
                    ranks[n] -= 1


@jit
def _count_tile(
    tile: Float32Array, users: Int64Array, first_item: int, problem: TopKProblem, indptr: Int64Array,
    indices: Int32Array, scores: Float32Array, ranks: Int32Array, limit: int,
) -> None:  # fmt: skip
    vectors, items, unit, error = problem.queries, problem.items, problem.score_unit, problem.rounding_error
    for r in range(len(users)):
        u = users[r]
        row = tile[r]
        for n in range(indptr[u], indptr[u + 1]):
            if ranks[n] >= limit:
                continue
            low, high = np.float32(-np.inf), np.float32(np.inf)
            if error[u] < np.inf:
                low = np.float32(scores[n] / unit[u] - error[u])
                high = np.float32(scores[n] / unit[u] + error[u])
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
                    score = np.float32(dot_rows(vectors, u, items, first_item + c))
                    ahead += ranks_before(score, first_item + c, scores[n], indices[n])
            ranks[n] += ahead


@jit
def shared_entries(
    exclude_indptr: Int64Array, exclude: Int32Array, heldout_indptr: Int64Array, heldout: Int32Array,
) -> tuple[int, int, int]:  # fmt: skip
    """Return (row, column, count): the first entry that two patterns of ascending rows share, and their number."""
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

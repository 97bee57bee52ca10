"""Products of queries and items in float32, tile by tile: BLAS proposes, the float64 score decides.

For a tile of queries and items, rows scaled to norm at most 1, BLAS gives P with

    |P[q, i] * score_unit[q] - score(q, i)| <= rounding_error[q] * score_unit[q]

so comparing P with score / score_unit -+ rounding_error settles all but a few pairs, which are scored exactly.
Neither the rounding of BLAS nor its edge kernels show in a result.

Bytes: one tile of products, and both sides of it in float32, within `max_bytes`. Bound by the product.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.exact.problem import TopKProblem
from mllmrec_kernels.exact.score import unit_rows

_LARGEST_TILE = 512  # rows: with a row of products per query it stays in a core's cache


def for_each_tile(
    problem: TopKProblem,
    max_bytes: int,
    visit: Callable[[NDArray[np.float32], int, int], None],
    *,
    query_rows: NDArray[np.int64] | None = None,
) -> None:
    """Multiply queries by all items in float32, and pass each tile on; threads share the queries.

    Args:
        problem: queries and items.
        max_bytes: working memory of all threads.
        visit: visit(tile, q, i) with tile float32 [rows, columns]; q is its first query, a place in `query_rows`
            where they are given, and i its first item. The tile is overwritten after the call.
        query_rows: int64, rows of the queries to multiply; None for all.

    Raises:
        KernelInputError: `max_bytes` holds no tile.
    """
    d = problem.items.shape[1]
    # A thread's share, if that holds a tile of one row by one.
    rows = min(_tile_rows(d, max_bytes), _tile_rows(d, max(max_bytes // get_num_threads(), 4 + 8 * d)))

    def _multiply(start: int, stop: int) -> None:
        block = slice(start, stop) if query_rows is None else query_rows[start:stop]
        left = unit_rows(problem.queries[block], problem.query_scale[block])
        right = np.empty((min(rows, len(problem.items)), d), dtype=np.float32)
        products = np.empty(len(left) * len(right), dtype=np.float32)
        for first, last in chunks(len(problem.items), rows):
            columns = unit_rows(problem.items[first:last], problem.item_scale[first:last], right[: last - first])
            tile = products[: len(left) * len(columns)].reshape(len(left), len(columns))
            np.matmul(left, columns.T, out=tile)
            visit(tile, start, first)

    parallel_for(_multiply, chunks(len(problem.queries) if query_rows is None else len(query_rows), rows))


def _tile_rows(d: int, max_bytes: int) -> int:
    """Return the rows of a square tile whose products and both sides, float32, fit in `max_bytes`."""
    rows = int(np.sqrt(d * d + max_bytes / 4) - d)  # 4 (r^2 + 2 r d) = max_bytes
    if rows < 1:
        raise KernelInputError(f"max_bytes={max_bytes} holds no tile at d={d}; give at least {4 + 8 * d}")
    return min(rows, _LARGEST_TILE)

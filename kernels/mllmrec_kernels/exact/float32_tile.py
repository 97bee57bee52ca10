"""Lists by a float32 product: BLAS proposes, the float64 score decides.

For a tile of queries and items, rows scaled to norm at most 1, BLAS gives P with

    |P[q, i] * unit[q] - score(q, i)| <= slack[q] * unit[q]

so a pair with P[q, i] below the bar of q, (worst kept score) / unit[q] - slack[q], cannot enter the list of q,
and the others, few, are scored by score.py. What BLAS rounds, and how its edge kernels differ, never shows.

Bytes: one tile of products, and both sides of it in float32, within `max_bytes`. Bound by the product.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads

from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.base.parallel import over_chunks
from mllmrec_kernels.exact.heap import push
from mllmrec_kernels.exact.problem import Ask, Lists, bar_of, is_barred, score_of
from mllmrec_kernels.exact.score import as_unit

_LARGEST_TILE = 512  # with a row of products per query it stays in a core's cache
_SCAN = 64


def tile_rows(d: int, max_bytes: int) -> int:
    """Rows of a square tile: its products and both sides, float32, fit in `max_bytes`."""
    rows = int(np.sqrt(d * d + max_bytes / 4) - d)  # 4 (r^2 + 2 r d) = max_bytes
    if rows < 1:
        raise KernelInputError(f"max_bytes={max_bytes} holds no tile at d={d}; give at least {4 + 8 * d}")
    return min(rows, _LARGEST_TILE)


def fill(ask: Ask, lists: Lists, max_bytes: int) -> None:
    """Offer every pair."""
    d = ask.queries.shape[1]
    # A thread's share, as long as that holds a tile of one row by one.
    rows = min(tile_rows(d, max_bytes), tile_rows(d, max(max_bytes // get_num_threads(), 4 + 8 * d)))

    def fill_rows(q0: int, q1: int) -> None:
        x = as_unit(ask.queries[q0:q1], ask.to_unit[q0:q1], np.empty((q1 - q0, d), np.float32))
        right = np.empty((min(rows, len(ask.items)), d), dtype=np.float32)
        products = np.empty(len(x) * len(right), dtype=np.float32)
        for i0 in range(0, len(ask.items), rows):
            i1 = min(i0 + rows, len(ask.items))
            y = as_unit(ask.items[i0:i1], ask.shrink[i0:i1], right[: i1 - i0])
            tile = products[: len(x) * len(y)].reshape(len(x), len(y))
            np.matmul(x, y.T, out=tile)
            _offer(tile, q0, i0, ask, lists)

    over_chunks(fill_rows, len(ask.queries), rows)


@compiled
def _offer(tile: Any, q0: Any, i0: Any, ask: Any, lists: Any) -> None:
    for r in range(len(tile)):
        _offer_row(tile[r], q0 + r, i0, ask, lists)


@compiled
def _offer_row(row: Any, q: Any, i0: Any, ask: Any, lists: Any) -> None:
    bar = np.float32(bar_of(ask, lists, q))
    for start in range(0, len(row), _SCAN):
        stop = min(start + _SCAN, len(row))
        hits = 0  # a branch-free count is one vector loop, and nearly always zero
        for c in range(start, stop):
            hits += row[c] >= bar
        for c in range(start, stop if hits else start):
            i = i0 + c
            if row[c] < bar or is_barred(ask, q, i):
                continue
            score = score_of(ask, q, i)
            if score >= ask.floor:
                lists.sizes[q] = push(lists.ids, lists.best, q, lists.sizes[q], ask.kept, score, i)
                bar = np.float32(bar_of(ask, lists, q))

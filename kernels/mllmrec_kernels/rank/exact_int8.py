"""Rank held-out items by an int8 product: the tile counts what it can prove, the float64 score decides the rest.

With S the tile's integer sum for user u and item i, and the margin of u as in exact/thresholds.py,

    |x_u.y_i - S step| <= margin[u]

For a held-out item of score s, an item with S step > s / score_unit + margin is ahead, and one with S step < s /
score_unit - margin is not. The few between are scored exactly, as the held-out item was. A user stands in the tile
once. Their sums are compared with each held-out item while they are in registers. So only the counts and the pairs in
between are written.

With a limit, the first blocks of items are small and hold the items that users like on average. Before each block,
users leave whose held-out items all have `limit` items ahead of them. Counts only grow, since excluded items are
subtracted before the first block. Who stays has a held-out item near the top, where few items score, so that one byte a
coordinate leaves few pairs open; two bytes take three products.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, Depth, count_above, lowest_bit
from mllmrec_kernels.exact.plan import RotationPlan, unrotated_plan
from mllmrec_kernels.exact.problem import TopKProblem, ranks_before
from mllmrec_kernels.exact.quantized import PANEL, QuantizedRows, allocate, chunk_bytes, quantize, row_bytes
from mllmrec_kernels.exact.score import dot_rows, unit_rows
from mllmrec_kernels.exact.thresholds import bounds_between

_ENTRY_BYTES = 80  # of a held-out item: counts, limits, and the float64 they are made with
_HIGHEST, _LOWEST = float(2**31 - 1), -float(2**31)
_FIRST = PANEL  # items of the first block if there is a limit; each later one is _GROWTH times as large
_GROWTH = 3
_SAMPLED = 512  # users whose mean orders the items
_TWO_BYTE_COLUMNS = 2_048  # beyond, the first of two bytes would have less than six bits


def count_ahead(
    problem: TopKProblem,
    heldout: CSR,
    scores: NDArray[np.float32],
    ranks: NDArray[np.int32],
    limit: int,
    max_bytes: int,
) -> bool:
    """Add to each held-out item's rank the number of items ahead of it.

    Args:
        problem: users as queries, and items.
        heldout: each user's held-out items.
        scores: float32 [heldout.nnz], their scores.
        ranks: int32 [heldout.nnz], added to.
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.

    Returns:
        False, with nothing done, where `max_bytes` holds not even one panel per side.
    """
    d = problem.queries.shape[1]
    plan = unrotated_plan(problem, two_bytes=d <= _TWO_BYTE_COLUMNS and limit >= len(problem.items))
    n_heldout = np.diff(heldout.indptr)
    users = np.flatnonzero(n_heldout).astype(np.int32)
    pair_bytes = 2 * row_bytes(plan, d) + _ENTRY_BYTES * int(n_heldout.max(initial=0))
    block_rows = (max_bytes - chunk_bytes(d)) // pair_bytes // PANEL * PANEL
    if block_rows < PANEL:
        return False
    user_memory = allocate(min(block_rows, len(users)), d, plan)
    item_memory = allocate(min(block_rows, len(problem.items)), d, plan, as_rows=False)
    for items in _item_blocks(problem, block_rows, limit):
        right = quantize(
            item_memory, problem.items, problem.item_scale, problem.item_weights, items, plan, plan.right_scale
        )
        users = _below_limit(limit, users, heldout.indptr, ranks)
        for start in range(0, len(users), block_rows):
            block = users[start : start + block_rows]
            left = quantize(
                user_memory, problem.queries, problem.query_scale, problem.query_weights, block, plan, plan.left_scale
            )
            entries, ends = _entries(heldout.indptr, block)
            starts = np.full(len(left.ids) + 1, len(entries))  # the rows that fill the last panel have none
            starts[: len(ends)] = ends
            low, high = _sum_limits(left, right, problem, scores[entries], np.diff(starts), plan)
            closed = ranks[entries] >= limit
            low[closed] = high[closed] = np.int32(_HIGHEST)
            above = np.zeros(len(low), np.int32)
            _count_panels(
                left, right, starts, low, high, above, heldout.indices[entries], scores[entries], problem, plan.depth
            )
            # The rows that fill the last panel are items whose every sum is 0.
            fillers = len(right.ids) - len(items)
            ranks[entries] += above - fillers * (high < 0)
    return True


def _item_blocks(problem: TopKProblem, largest: int, limit: int) -> list[NDArray[np.int32]]:
    """Cut the items into blocks that are quantized together; with a limit, those first that users like on average."""
    n_items = len(problem.items)
    items, size, ends = np.arange(n_items, dtype=np.int32), largest, [0]
    if limit < n_items:
        at = np.linspace(0, len(problem.queries) - 1, _SAMPLED).astype(np.int64)
        mean = unit_rows(problem.queries[at], problem.query_scale[at]).mean(axis=0)
        items, size = np.argsort(-(problem.items @ mean), kind="stable").astype(np.int32), _FIRST
    while ends[-1] < n_items:
        ends.append(ends[-1] + min(size, largest))
        size *= _GROWTH
    return [items[start:stop] for start, stop in pairwise(ends)]


def _below_limit(
    limit: int, users: NDArray[np.int32], indptr: NDArray[np.int64], ranks: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Return the users who have an entry below the limit."""
    if not len(users):
        return users
    # A stretch runs to the next user on the list: those between have left, with all entries at the limit or above.
    return users[np.minimum.reduceat(ranks, indptr[users]) < limit]


def _entries(indptr: NDArray[np.int64], users: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the users' entries, one after another, int64 [n], and where each user's begin and end, [users + 1]."""
    counts = indptr[users + 1] - indptr[users]
    ends = np.concatenate([[0], np.cumsum(counts)])
    return np.arange(ends[-1]) + np.repeat(indptr[users] - ends[:-1], counts), ends


def _sum_limits(
    left: QuantizedRows,
    right: QuantizedRows,
    problem: TopKProblem,
    scores: NDArray[np.float32],
    counts: NDArray[np.int64],
    plan: RotationPlan,
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return int32 (low, high) for each held-out item, counts[r] a row: sums above high are ahead, under low not."""
    bounds = bounds_between(left, right, plan)
    users, rounding = np.repeat(left.ids, counts), np.repeat(left.head_rounding, counts)
    margin = problem.rounding_error[users] + bounds.max_norm * rounding + bounds.max_rounding + bounds.error
    with np.errstate(divide="ignore", invalid="ignore"):
        products = scores / problem.score_unit[users]
        low, high = np.floor((products - margin) / bounds.step), np.ceil((products + margin) / bounds.step)
    known = np.isfinite(products) & np.isfinite(margin)  # a user of norm 0 has no unit: every item is scored
    low, high = np.where(known, low, _LOWEST), np.where(known, high, _HIGHEST)
    return np.clip(low, _LOWEST, _HIGHEST).astype(np.int32), np.clip(high, _LOWEST, _HIGHEST).astype(np.int32)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count_panels(
    left: QuantizedRows, right: QuantizedRows, starts: Int64Array, low: Int32Array, high: Int32Array,
    above: Int32Array, heldout: Int32Array, scores: Float32Array, problem: TopKProblem, depth: Depth,
) -> None:  # fmt: skip
    for panel in prange(len(left.ids) // PANEL):
        _count_panel(panel * PANEL, left, right, starts, low, high, above, heldout, scores, problem, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_panel(
    start: int, left: QuantizedRows, right: QuantizedRows, starts: Int64Array, low: Int32Array, high: Int32Array,
    above: Int32Array, heldout: Int32Array, scores: Float32Array, problem: TopKProblem, depth: Depth,
) -> None:  # fmt: skip
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    row_codes, sum_offsets, column_codes, users, items = (
        left.row_codes, left.sum_offsets, right.column_codes, left.ids, right.ids,
    )  # fmt: skip
    queries, vectors = problem.queries, problem.items
    first, groups, shift = depth
    stride = groups * DEPTH
    for column in range(0, len(items), COLUMNS):
        for row in range(start, start + PANEL, ROWS):
            if not count_above(
                row_codes, row, stride, sum_offsets, column_codes, column * stride, first, groups, shift, starts, high,
                low, above, sums, masks,
            ):  # fmt: skip
                continue
            for r in range(row, row + ROWS):
                mask = masks[r - row]
                while mask:
                    bit = lowest_bit(mask)
                    mask &= mask - np.uint32(1)
                    i, total = items[column + bit], sums[(r - row) * COLUMNS + bit]
                    if i < 0:
                        continue
                    score = np.float32(dot_rows(queries, users[r], vectors, i))
                    for n in range(starts[r], starts[r + 1]):
                        if low[n] <= total <= high[n]:
                            above[n] += ranks_before(score, i, scores[n], heldout[n])

"""Rank held-out items by an int8 product: the tile counts what it can prove, the float64 score decides the rest.

With S the tile's integer sum for user u and item i, and the margin of u as in exact/thresholds.py,

    |x_u.y_i - S step| <= margin[u]

For a held-out item of score s, an item with S step > s / score_unit + margin is ahead, and one with S step < s /
score_unit - margin is not. The few between are scored exactly, as the held-out item was. A user stands in the tile
once. Their sums are compared with each held-out item while they are in registers. So only the counts and the pairs in
between are written.

With a limit, the first blocks of items are small and hold the items that users like on average. Before each block,
users leave whose held-out items all have `limit` items ahead of them; within a block, tiles of such users are left
out. Counts only grow, since excluded items are subtracted before the first block. Who stays has a held-out item near
the top, where few items score, so that one byte a coordinate leaves few pairs open; two bytes take three products.
Users are quantized once. So are items where `max_bytes` holds all.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, Depth, count_above, lowest_bit
from mllmrec_kernels.exact.item_blocks import ItemBlocks
from mllmrec_kernels.exact.kept import KeptItems
from mllmrec_kernels.exact.plan import RotationPlan, unrotated_plan
from mllmrec_kernels.exact.problem import TopKProblem, ranks_before
from mllmrec_kernels.exact.quantized import PANEL, QuantizedRows, allocate, chunk_bytes, padded, quantize, row_bytes
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.exact.thresholds import bounds_between

_ENTRY_BYTES = 80  # of a held-out item: counts, limits, and the float64 they are made with
_HIGHEST, _LOWEST = float(2**31 - 1), -float(2**31)
_TWO_BYTE_COLUMNS = 2_048  # beyond, the first of two bytes would have less than six bits
_CHECKED = 4 * COLUMNS  # columns between two looks at which entries have reached the limit


def count_ahead(
    problem: TopKProblem,
    heldout: CSR,
    scores: NDArray[np.float32],
    ranks: NDArray[np.int32],
    limit: int,
    max_bytes: int,
    kept: KeptItems,
) -> bool:
    """Add to each held-out item's rank the number of items ahead of it.

    Args:
        problem: users as queries, and items.
        heldout: each user's held-out items.
        scores: float32 [heldout.nnz], their scores.
        ranks: int32 [heldout.nnz], added to.
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.
        kept: of earlier calls with the same items; these are kept for the next where `max_bytes` holds all.

    Returns:
        False, with nothing done, where `max_bytes` holds not even one panel per side.
    """
    n_items, d = problem.items.shape
    plan = unrotated_plan(problem, two_bytes=d <= _TWO_BYTE_COLUMNS and limit >= n_items)
    counts = np.diff(heldout.indptr)
    users = np.flatnonzero(counts).astype(np.int32)
    item_bytes, spare = row_bytes(plan, d, layouts=1), max_bytes - chunk_bytes(d)
    item_rows = min(padded(n_items), spare // 2 // item_bytes // PANEL * PANEL)
    user_rows = (spare - item_rows * item_bytes) // (item_bytes + _ENTRY_BYTES * int(counts.max(initial=0)))
    user_rows = min(padded(len(users)), user_rows // PANEL * PANEL)
    if min(item_rows, user_rows) < PANEL:
        return False
    user_memory = allocate(user_rows, d, plan, as_columns=False)
    key = plan.two_bytes, limit < n_items
    items = kept.blocks.get(key) or ItemBlocks(problem, plan, allocate(item_rows, d, plan, as_rows=False), limit)
    if items.is_whole:
        kept.blocks[key] = items
    for start in range(0, len(users), user_rows):
        block = users[start : start + user_rows]
        left = quantize(
            user_memory, problem.queries, problem.query_scale, problem.query_weights, block, plan, plan.left_scale
        )
        for n in range(len(items.spans)):
            left = _below_limit(left, block, limit, heldout.indptr, ranks)
            if not len(left.ids):
                break
            _count(left, *items.block(n), problem, heldout, scores, ranks, limit, plan)
    return True


def _below_limit(
    left: QuantizedRows, users: NDArray[np.int32], limit: int, indptr: NDArray[np.int64], ranks: NDArray[np.int32]
) -> QuantizedRows:
    """Return the rows of those users who have an entry below the limit; those closest to it first.

    Rows that leave at about the same time then share tiles.

    Args:
        left: rows of some of the users.
        users: int32 [B], ascending; all who have an entry between the first and the last of them.
        limit: ranks from here on need not be told apart.
        indptr: int64, of the held-out items.
        ranks: int32, one a held-out item.
    """
    first, last = indptr[users[0]], indptr[users[-1] + 1]
    lowest = np.minimum.reduceat(ranks[first:last], indptr[users] - first)
    of_row = np.where(left.ids >= 0, lowest[np.searchsorted(users, np.maximum(left.ids, users[0]))], limit)
    rows = np.flatnonzero(of_row < limit)
    if len(rows) == np.count_nonzero(left.ids >= 0):
        return left
    return left.take(rows[np.argsort(-of_row[rows], kind="stable")])


def _count(
    left: QuantizedRows,
    right: QuantizedRows,
    n_items: int,
    problem: TopKProblem,
    heldout: CSR,
    scores: NDArray[np.float32],
    ranks: NDArray[np.int32],
    limit: int,
    plan: RotationPlan,
) -> None:
    """Add to the ranks of the users of `left` the items of `right` that are ahead.

    Args:
        left: rows of users.
        right: columns of items.
        n_items: how many of them are items; the others fill the last panel.
        problem: users as queries, and items.
        heldout: each user's held-out items.
        scores: float32, one a held-out item.
        ranks: int32, one a held-out item, added to.
        limit: ranks from here on need not be told apart.
        plan: of the product.
    """
    entries, ends = _entries(heldout.indptr, left.ids[left.ids >= 0])
    starts = np.full(len(left.ids) + 1, len(entries))  # the rows that fill the last panel have none
    starts[: len(ends)] = ends
    low, high = _sum_limits(left, right, problem, scores[entries], np.diff(starts), plan)
    above, missing = np.zeros(len(low), np.int32), np.int32(min(limit, _HIGHEST)) - ranks[entries]
    _count_panels(
        left, right, n_items, starts, low, high, above, missing, heldout.indices[entries], scores[entries], problem,
        plan.depth,
    )  # fmt: skip
    ranks[entries] += above


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
    left: QuantizedRows, right: QuantizedRows, n_items: int, starts: Int64Array, low: Int32Array, high: Int32Array,
    above: Int32Array, missing: Int32Array, heldout: Int32Array, scores: Float32Array, problem: TopKProblem,
    depth: Depth,
) -> None:  # fmt: skip
    for panel in prange(len(left.ids) // PANEL):
        _count_panel(
            panel * PANEL, left, right, n_items, starts, low, high, above, missing, heldout, scores, problem, depth
        )


@njit(cache=True, nogil=True, error_model="numpy")
def _count_panel(
    start: int, left: QuantizedRows, right: QuantizedRows, n_items: int, starts: Int64Array, low: Int32Array,
    high: Int32Array, above: Int32Array, missing: Int32Array, heldout: Int32Array, scores: Float32Array,
    problem: TopKProblem, depth: Depth,
) -> None:  # fmt: skip
    sums, masks, is_open = (
        np.empty(ROWS * COLUMNS, np.int32),
        np.empty(ROWS, np.uint32),
        np.ones(PANEL // ROWS, np.bool_),
    )
    row_codes, sum_offsets, column_codes = left.row_codes, left.sum_offsets, right.column_codes
    first, groups, shift = depth
    stride = groups * DEPTH
    for column in range(0, n_items, COLUMNS):
        if column % _CHECKED == 0:
            _close(start, starts, low, high, above, missing, is_open)
        for tile in range(len(is_open)):
            if not is_open[tile]:
                continue
            row = start + tile * ROWS
            found = count_above(
                row_codes, row, stride, sum_offsets, column_codes, column * stride, first, groups, shift, starts, high,
                low, above, sums, masks,
            )  # fmt: skip
            if column + COLUMNS > n_items:
                _subtract_fillers(starts[row], starts[row + ROWS], high, above, column + COLUMNS - n_items)
            if found:
                _count_near(row, column, left, right, starts, low, high, above, missing, heldout, scores, problem,
                            sums, masks)  # fmt: skip


@jit
def _close(
    start: int, starts: Int64Array, low: Int32Array, high: Int32Array, above: Int32Array, missing: Int32Array,
    is_open: NDArray[np.bool_],
) -> None:  # fmt: skip
    """Let no sum count for the entries of a panel that have reached the limit; mark tiles where some have not."""
    for tile in range(len(is_open)):
        row = start + tile * ROWS
        is_open[tile] = False
        for n in range(starts[row], starts[row + ROWS]):
            if above[n] < missing[n]:
                is_open[tile] = True
            else:
                low[n] = high[n] = np.int32(_HIGHEST)


@jit
def _subtract_fillers(first: int, last: int, high: Int32Array, above: Int32Array, fillers: int) -> None:
    """Take back the rows that fill the last panel: items whose every sum is 0."""
    for n in range(first, last):
        if high[n] < 0:
            above[n] -= np.int32(fillers)


@jit
def _count_near(
    row: int, column: int, left: QuantizedRows, right: QuantizedRows, starts: Int64Array, low: Int32Array,
    high: Int32Array, above: Int32Array, missing: Int32Array, heldout: Int32Array, scores: Float32Array,
    problem: TopKProblem, sums: Int32Array, masks: NDArray[np.uint32],
) -> None:  # fmt: skip
    """Count a tile's marked items by their scores."""
    users, items, queries, vectors = left.ids, right.ids, problem.queries, problem.items
    for r in range(row, row + ROWS):
        mask = masks[r - row]
        while mask:
            bit = lowest_bit(mask)
            mask &= mask - np.uint32(1)
            i, total = items[column + bit], sums[(r - row) * COLUMNS + bit]
            if i < 0:
                continue
            score, is_scored = np.float32(0), False
            for n in range(starts[r], starts[r + 1]):
                if low[n] <= total <= high[n] and above[n] < missing[n]:
                    if not is_scored:
                        score, is_scored = np.float32(dot_rows(queries, users[r], vectors, i)), True
                    above[n] += ranks_before(score, i, scores[n], heldout[n])

"""Lists by an int8 product: a third of the axes in int8 proposes, the float64 score decides.

A pair x, y of rows of norm at most 1 passes up to three steps. The first two are upper bounds of x.y, compared with
the thresholds of both lists; only pairs that pass go on.

1. The tile (int8_tile.py), for every pair. With p the first m coordinates on the plan's axes, r the others, P and S
   the int8 of p and of z = (p, r), h the tail scale, and the bounds of quantized.py:
       x.y <= z_x.z_y + rotation error
           <= p_x.p_y + |r_x||r_y| + ...
           <= P_x.P_y + tail_bytes h_x h_y step + |z_y| |p_x - P_x| + |z_x| |p_y - P_y| + rotation error

   The first two are the tile's integer sum times the step, the others at most the row's margin.
2. The int8 of r too:   x.y <= S_x.S_y + norm_y rounding_x + norm_x rounding_y + rotation error
3. The score itself.

A self graph does the upper triangle only, and offers each pair to both lists. Panels of 480 rows meet in rounds of
pairs that share no panel (the circle method of tournaments), so threads never write to one list. Similar rows share a
panel, and panels meet themselves first, so that thresholds rise early. No order shows in the result (problem.py).

Bytes: a row is about 2 (m + tail_bytes) + d. Where not all fit into `max_bytes`, blocks are quantized for each pair.
Work: N^2 / 2 (m + tail_bytes) multiply-adds of int8.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Int32Array
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import chunks
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, Depth, candidates, lowest_bit
from mllmrec_kernels.exact.kept import KeptLists
from mllmrec_kernels.exact.plan import RotationPlan
from mllmrec_kernels.exact.problem import Heaps, TopKProblem, is_excluded, push, score_pair
from mllmrec_kernels.exact.quantized import PANEL, QuantizedRows, allocate, chunk_bytes, padded, quantize, row_bytes
from mllmrec_kernels.exact.thresholds import NEVER, Bounds, bounds_between, init_thresholds, min_sum, raise_thresholds
from mllmrec_kernels.topk import candidate_buffer
from mllmrec_kernels.topk.order import order_by_similarity
from mllmrec_kernels.topk.rounds import circle, shifts

_QUERY_PANELS = 4  # a thread, quantized at a time

Blocks = list[NDArray[np.int32]]


def fill(problem: TopKProblem, heaps: Heaps, kept: KeptLists, max_bytes: int) -> bool:
    """Offer every pair to its lists.

    Args:
        problem: the search.
        heaps: the lists, empty; filled in place.
        kept: axes and scales of the product, and the items if they were quantized before; these are kept for the
            next queries where `max_bytes` holds all.
        max_bytes: working memory.

    Returns:
        False, with nothing done, where `max_bytes` holds not even one panel per side.
    """
    plan = kept.plan_for(problem)
    assert plan is not None
    self_graph = problem.queries is problem.items
    n_queries, (n_items, d) = len(problem.queries), problem.items.shape
    buffered = candidate_buffer.working_bytes(problem.k, plan, d) if plan.two_bytes and not self_graph else 0
    if buffered > max_bytes // 2:
        buffered = 0
    spare = max_bytes - chunk_bytes(d) - buffered - 4 * (n_items + (0 if self_graph else n_queries))
    rows = spare // row_bytes(plan, d, layouts=2 if self_graph else 1)
    block = rows // 2 // PANEL * PANEL
    if block < PANEL:
        return False
    if self_graph:
        order = order_by_similarity(problem, plan)
        _fill_self(problem, heaps, plan, _blocks(order, n_items if padded(n_items) <= 2 * block else block))
        return True
    few = block
    if padded(n_items) + PANEL <= rows:  # items are quantized once for all queries, which need not all be there at once
        few = min(rows - padded(n_items), _QUERY_PANELS * get_num_threads() * PANEL) // PANEL * PANEL
        block = n_items
    items = _blocks(np.arange(n_items, dtype=np.int32), block)
    memory = kept.columns or allocate(len(items[0]), d, plan, as_rows=False)
    if buffered:
        for right in _quantized_items(problem, plan, kept, items, memory):
            candidate_buffer.fill(right, problem, heaps, plan)
    else:
        _fill_queries(problem, heaps, plan, kept, _blocks(np.arange(n_queries, dtype=np.int32), few), items, memory)
    return True


def _blocks(rows: NDArray[np.int32], size: int) -> Blocks:
    return [rows[start:stop] for start, stop in chunks(len(rows), size)]


def _fill_self(problem: TopKProblem, heaps: Heaps, plan: RotationPlan, blocks: Blocks) -> None:
    """Offer the upper triangle of all rows against all rows."""
    d, step = problem.items.shape[1], plan.right_scale
    memory = allocate(len(blocks[0]), d, plan)
    other_memory = allocate(len(blocks[0]), d, plan, as_rows=False) if len(blocks) > 1 else memory
    for n, block in enumerate(blocks):
        left = quantize(memory, problem.items, problem.item_scale, problem.item_weights, block, plan, step)
        _offer_rounds(left, left, problem, heaps, plan, circle(padded(len(block)) // PANEL))
        for other in blocks[n + 1 :]:
            right = quantize(other_memory, problem.items, problem.item_scale, problem.item_weights, other, plan, step)
            rounds = shifts(padded(len(block)) // PANEL, padded(len(other)) // PANEL)
            _offer_rounds(left, right, problem, heaps, plan, rounds)


def _offer_rounds(
    left: QuantizedRows, right: QuantizedRows, problem: TopKProblem, heaps: Heaps, plan: RotationPlan, rounds: Blocks
) -> None:
    left_bounds, right_bounds = bounds_between(left, right, plan), bounds_between(right, left, plan)
    init_thresholds(left, problem, heaps, left_bounds)
    if right is not left:
        init_thresholds(right, problem, heaps, right_bounds)
    elif not plan.tail_bytes:
        raise_thresholds(left, right, problem, left_bounds, plan)
    for pairs in rounds:
        if len(pairs):
            _offer_panel_pairs(
                left, right, pairs, problem, heaps, left_bounds, right_bounds, plan.depth, plan.tail_bytes, NEVER
            )


def _fill_queries(
    problem: TopKProblem, heaps: Heaps, plan: RotationPlan, kept: KeptLists, queries: Blocks, items: Blocks,
    item_memory: QuantizedRows,
) -> None:  # fmt: skip
    """Offer every item to every query, block by block.

    Args:
        problem: the search.
        heaps: the lists.
        plan: axes and scales of the product.
        kept: the items if they were quantized before.
        queries: rows of queries that are quantized together.
        items: the same of items.
        item_memory: for one block of items.
    """
    query_memory = allocate(len(queries[0]), problem.items.shape[1], plan, as_columns=False)
    for block in queries:
        left = quantize(
            query_memory, problem.queries, problem.query_scale, problem.query_weights, block, plan, plan.left_scale
        )
        for n, right in enumerate(_quantized_items(problem, plan, kept, items, item_memory)):
            bounds = bounds_between(left, right, plan)
            init_thresholds(left, problem, heaps, bounds)
            if not plan.tail_bytes and n == 0:
                raise_thresholds(left, right, problem, bounds, plan)
            _offer_all_panels(left, right, problem, heaps, bounds, plan.depth, plan.tail_bytes, NEVER)


def _quantized_items(
    problem: TopKProblem, plan: RotationPlan, kept: KeptLists, items: Blocks, memory: QuantizedRows
) -> Iterator[QuantizedRows]:
    """Yield the items block by block; a single block is kept for the next queries."""
    if kept.columns is not None:
        yield kept.columns
        return
    for block in items:
        right = quantize(memory, problem.items, problem.item_scale, problem.item_weights, block, plan, plan.right_scale)
        if len(items) == 1:
            kept.columns = right
        yield right


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _offer_panel_pairs(
    left: QuantizedRows, right: QuantizedRows, pairs: Int32Array, problem: TopKProblem, heaps: Heaps,
    left_bounds: Bounds, right_bounds: Bounds, depth: Depth, tail_bytes: int, never: Int32Array,
) -> None:  # fmt: skip
    for n in prange(len(pairs)):
        # A panel with itself is a full square: each of its lists is offered the pair from its own side.
        one, other = pairs[n, 0], pairs[n, 1]
        both = left.ids[one * PANEL] != right.ids[other * PANEL]
        _offer_panels(
            left, right, one, other, both, problem, heaps, left_bounds, right_bounds, depth, tail_bytes, never
        )


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _offer_all_panels(
    left: QuantizedRows, right: QuantizedRows, problem: TopKProblem, heaps: Heaps, bounds: Bounds, depth: Depth,
    tail_bytes: int, never: Int32Array,
) -> None:  # fmt: skip
    for one in prange(len(left.ids) // PANEL):
        for other in range(len(right.ids) // PANEL):
            _offer_panels(left, right, one, other, False, problem, heaps, bounds, bounds, depth, tail_bytes, never)


@njit(cache=True, nogil=True, error_model="numpy")
def _offer_panels(
    left: QuantizedRows, right: QuantizedRows, one: int, other: int, both: bool, problem: TopKProblem, heaps: Heaps,
    left_bounds: Bounds, right_bounds: Bounds, depth: Depth, tail_bytes: int, never: Int32Array,
) -> None:  # fmt: skip
    """Offer every row of panel `other` to every row of panel `one`, and the other way round if `both`."""
    found = np.empty((PANEL * COLUMNS, 3), np.int32)  # row, column, sum of the pairs that pass the tile
    thresholds = right.thresholds[other * PANEL : (other + 1) * PANEL] if both else never
    for c in range(0, PANEL, COLUMNS):
        n = _multiply_strip(left, right, one * PANEL, other * PANEL + c, depth, thresholds, c, found)
        if n and tail_bytes:
            n = _bound_by_all_axes(found[:n], left, right, both, left_bounds, right_bounds, tail_bytes)
        if n:
            _offer_pairs(found[:n], left, right, both, problem, heaps, left_bounds)


@njit(cache=True, nogil=True, error_model="numpy")
def _multiply_strip(
    left: QuantizedRows, right: QuantizedRows, start: int, column: int, depth: Depth, thresholds: Int32Array,
    thresholds_at: int, found: Int32Array,
) -> int:  # fmt: skip
    """Multiply a panel of rows with 32 columns; write the pairs that meet a threshold, and return their number."""
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    first, groups, shift = depth
    row_codes, sum_offsets, column_codes, row_thresholds = (
        left.row_codes, left.sum_offsets, right.column_codes, left.thresholds,
    )  # fmt: skip
    n, stride = 0, groups * DEPTH
    for row in range(start, start + PANEL, ROWS):
        if not candidates(
            row_codes, row, stride, sum_offsets, column_codes, column * stride, first, groups, shift, row_thresholds,
            thresholds, thresholds_at, sums, masks,
        ):  # fmt: skip
            continue
        for r in range(ROWS):
            mask = masks[r]
            while mask:
                bit = lowest_bit(mask)
                mask &= mask - np.uint32(1)
                found[n, 0], found[n, 1], found[n, 2] = row + r, column + bit, sums[r * COLUMNS + bit]
                n += 1
    return n


@jit
def _offer_pairs(
    found: Int32Array, left: QuantizedRows, right: QuantizedRows, both: bool, problem: TopKProblem, heaps: Heaps,
    bounds: Bounds,
) -> None:  # fmt: skip
    """Score the pairs whose sum still meets a threshold, and offer them to their lists."""
    for n in range(len(found)):
        row, column, total = found[n, 0], found[n, 1], found[n, 2]
        q, i = left.ids[row], right.ids[column]
        for_row = total >= left.thresholds[row]
        for_column = both and total >= right.thresholds[column]
        if q < 0 or i < 0 or not (for_row or for_column) or is_excluded(problem, q, i):
            continue
        score = score_pair(problem, q, i)
        if score < problem.min_score:
            continue
        if for_row:
            _offer(left, row, score, i, problem, heaps, bounds)
        if for_column:
            _offer(right, column, score, q, problem, heaps, bounds)


@jit
def _offer(
    side: QuantizedRows, row: int, score: np.float32, item: int, problem: TopKProblem, heaps: Heaps, bounds: Bounds,
) -> None:  # fmt: skip
    """Offer `item` to the list of a side's row, and raise the row's threshold."""
    q = side.ids[row]
    size = push(heaps.ids, heaps.scores, q, heaps.sizes[q], problem.k, score, item)
    heaps.sizes[q] = size
    if size == problem.k:
        threshold = min_sum(heaps.scores[q, 0], side.score_unit[row], side.margin[row], bounds.step)
        side.thresholds[row] = max(threshold, side.thresholds[row])


@jit
def _bound_by_all_axes(
    found: Int32Array, left: QuantizedRows, right: QuantizedRows, both: bool, left_bounds: Bounds,
    right_bounds: Bounds, tail_bytes: int,
) -> int:  # fmt: skip
    """Move the pairs that the int8 of all coordinates cannot rule out to the front; return their number.

    Thresholds are for sums of a tile, with the tile's margin subtracted. So that they serve here too, the sum written
    back has this step's margin added and the tile's (the lesser of both sides) subtracted.
    """
    passing = 0
    for n in range(len(found)):
        row, column, total = found[n, 0], found[n, 1], found[n, 2]
        if not (total >= left.thresholds[row] or (both and total >= right.thresholds[column])):
            continue
        bound = np.int32(total - tail_bytes * left.tail_scale[row] * right.tail_scale[column])
        for j in range(left.tail_codes.shape[1]):
            bound += np.int32(left.tail_codes[row, j]) * np.int32(right.tail_codes[column, j])
        lost = right.norm[column] * left.rounding[row] + left.norm[row] * right.rounding[column]
        counted = min(
            left_bounds.max_norm * left.head_rounding[row] + left_bounds.max_rounding,
            right_bounds.max_norm * right.head_rounding[column] + right_bounds.max_rounding,
        )
        bound += np.int32(np.ceil((lost - counted) / left_bounds.step))
        found[passing, 0], found[passing, 1], found[passing, 2] = row, column, min(bound, total)
        passing += 1
    return passing

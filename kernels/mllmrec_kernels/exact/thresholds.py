"""Int8 thresholds of rows: a pair whose tile sum is lower cannot enter the row's top k.

With the list of row q ending at score s, and the margin of the row (its own rounding, the other side's, and what the
plan leaves out), a pair may enter only if

    tile sum >= floor((s / score_unit - margin) / step)

`init_thresholds` sets them from the lists. `raise_thresholds` raises them only from tile sums, before any pair is
scored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit, prange

from mllmrec_kernels.base.arrays import Int32Array
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, Depth, candidates, lowest_bit
from mllmrec_kernels.exact.plan import RotationPlan
from mllmrec_kernels.exact.problem import Heaps, TopKProblem
from mllmrec_kernels.exact.quantized import PANEL, QuantizedRows

_HIGHEST, _LOWEST = 2**31 - 1, -(2**31)
NEVER = np.full(PANEL, _HIGHEST, np.int32)  # thresholds of columns whose lists take nothing
_LONGEST_RAISED = 64  # entries of a list whose threshold is worth raising
_FEW_PANELS = 8  # of columns: all of them are searched; if there are more, one panel


class Bounds(NamedTuple):
    """Bounds on one side of a product, from the other side.

    Attributes:
        max_norm: largest norm of the other side's rows.
        max_rounding: largest norm of this side's rows times the other side's largest rounding error.
        step: worth of 1 in the tile's sum.
        error: bound of what the plan leaves out.
    """

    max_norm: float
    max_rounding: float
    step: float
    error: float


class Largest(NamedTuple):
    """Bound the rows of a side: their norms, and what encoding takes from them.

    Attributes:
        norm: of any row.
        head_rounding: of any row.
        low_norm: of any row.
    """

    norm: float
    head_rounding: float
    low_norm: float


def bounds_between(left: QuantizedRows, right: QuantizedRows, plan: RotationPlan) -> Bounds:
    """Return the bounds that hold for the rows of `left` in products with the rows of `right`.

    Args:
        left: rows whose thresholds use the bounds.
        right: rows they are multiplied with.
        plan: axes and scales of the product.
    """
    return bounds_of(largest(left), largest(right), plan.step, plan.error)


@jit
def largest(side: QuantizedRows) -> Largest:
    """Return the largest norms and rounding error of a side's rows; zeros for no rows."""
    norm = head_rounding = low_norm = 0.0
    for row in range(len(side.ids)):
        norm = max(norm, side.norm[row])
        head_rounding = max(head_rounding, side.head_rounding[row])
        low_norm = max(low_norm, side.low_norm[row])
    return Largest(norm, head_rounding, low_norm)


@jit
def bounds_of(left: Largest, right: Largest, step: float, plan_error: float) -> Bounds:
    """Return the bounds for rows of the left side.

    Args:
        left: of the rows whose thresholds use the bounds.
        right: of the rows they are multiplied with.
        step: worth of 1 in the tile's sum.
        plan_error: bound of what the plan's axes lose.
    """
    return Bounds(right.norm, left.norm * right.head_rounding, step, plan_error + left.low_norm * right.low_norm)


@jit
def min_sum(score: np.float32 | float, score_unit: float, margin: float, step: float) -> int:
    """Return the least tile sum with which a pair may enter a list that ends at `score`."""
    if score == -np.inf or margin == np.inf:
        return _LOWEST
    threshold = np.floor((score / score_unit - margin) / step)
    return int(min(max(threshold, np.float64(_LOWEST)), np.float64(_HIGHEST)))


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def init_thresholds(side: QuantizedRows, problem: TopKProblem, heaps: Heaps, bounds: Bounds) -> None:
    """Set the score units, margins and thresholds of a side's rows from their lists."""
    for row in prange(len(side.ids)):
        init_threshold(side, row, problem, heaps, bounds)


# What writes to a tuple's arrays stays out of prange bodies: Numba loses such writes there.
@jit
def init_threshold(side: QuantizedRows, row: int, problem: TopKProblem, heaps: Heaps, bounds: Bounds) -> None:
    """Set the score unit, margin and threshold of one row from its list.

    Args:
        side: the rows; one entry of `score_unit`, `margin` and `thresholds` is written.
        row: the row's place in `side`.
        problem: the search.
        heaps: the lists.
        bounds: of the side's products.
    """
    q = side.ids[row]
    if q < 0:
        side.thresholds[row] = _HIGHEST
        return
    score = heaps.scores[q, 0] if heaps.sizes[q] == problem.k else problem.min_score
    side.score_unit[row] = problem.score_unit[q]
    rounding = problem.rounding_error[q] + bounds.max_norm * side.head_rounding[row] + bounds.max_rounding
    side.margin[row] = rounding + bounds.error
    side.thresholds[row] = min_sum(score, side.score_unit[row], side.margin[row], bounds.step)


def raise_thresholds(
    left: QuantizedRows, right: QuantizedRows, problem: TopKProblem, bounds: Bounds, plan: RotationPlan
) -> None:
    """Raise each row's threshold to what its list will surely end at, before any pair is scored.

    Where no tail stands in for coordinates, a sum is at most margin / step off, above or below. The list will end no
    lower than the k-th highest sum less that. A pair that gets there has a sum of at most that less again. The
    k-th highest is taken over all columns where they are few. Otherwise it is taken over one panel: in a self graph
    the row's own, where similar rows are.

    Args:
        left: rows whose thresholds are raised, in place.
        right: the columns.
        problem: the search.
        bounds: `bounds_between(left, right, plan)`.
        plan: axes and scales of the product, without tail bytes.
    """
    panels = len(right.ids) // PANEL
    own = problem.exclude_self and len(left.ids) == len(right.ids)
    _raise_all(left, right, problem, bounds, plan.depth, panels if panels <= _FEW_PANELS else 1, own, NEVER)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _raise_all(
    left: QuantizedRows, right: QuantizedRows, problem: TopKProblem, bounds: Bounds, depth: Depth, panels: int,
    own: bool, never: Int32Array,
) -> None:  # fmt: skip
    for n in prange(len(left.ids) // ROWS):
        row = n * ROWS
        panel = row // PANEL if own and panels == 1 else 0
        _raise_rows(left, right, row, panel * PANEL, (panel + panels) * PANEL, problem, bounds, depth, never)


@njit(cache=True, nogil=True, error_model="numpy")
def _raise_rows(
    left: QuantizedRows, right: QuantizedRows, row: int, start: int, stop: int, problem: TopKProblem, bounds: Bounds,
    depth: Depth, never: Int32Array,
) -> None:  # fmt: skip
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    highest, least = np.full((ROWS, _LONGEST_RAISED), _LOWEST, np.int32), np.full(ROWS, _HIGHEST, np.int32)
    row_codes, sum_offsets, column_codes, users, items, thresholds, margin = (
        left.row_codes, left.sum_offsets, right.column_codes, left.ids, right.ids, left.thresholds, left.margin,
    )  # fmt: skip
    indptr, first, groups, shift = problem.indptr, depth[0], depth[1], depth[2]
    stride = groups * DEPTH
    counts = np.zeros(ROWS, np.int64)
    for r in range(ROWS):
        q = users[row + r]
        if q >= 0:  # those that q must not list may be among the highest
            counts[r] = problem.k + indptr[q + 1] - indptr[q]
            if counts[r] <= _LONGEST_RAISED:
                least[r] = _LOWEST + 1
    for column in range(start, stop, COLUMNS):
        if candidates(
            row_codes[row * stride :], 0, stride, sum_offsets[row:], column_codes, column * stride, first, groups,
            shift, least, never, 0, sums, masks,
        ):  # fmt: skip
            for r in range(ROWS):
                itself = users[row + r] if problem.exclude_self else -1
                least[r] = _keep_highest(
                    highest[r], counts[r], least[r], masks[r], sums, r * COLUMNS, itself, items, column
                )
    for r in range(ROWS):
        if least[r] < _HIGHEST and highest[r, counts[r] - 1] > _LOWEST:
            threshold = np.floor(highest[r, counts[r] - 1] - 2 * margin[row + r] / bounds.step)
            thresholds[row + r] = max(thresholds[row + r], int(max(threshold, np.float64(_LOWEST))))


@jit
def _keep_highest(
    highest: Int32Array, count: int, least: int, mask: np.uint32, sums: Int32Array, sums_at: int, itself: int,
    items: Int32Array, column: int,
) -> Any:  # fmt: skip
    """Insert a row's marked sums into its falling list of the `count` highest; return the least sum that enters."""
    while mask:
        bit: int = lowest_bit(mask)
        mask &= mask - np.uint32(1)
        total, i = sums[sums_at + bit], items[column + bit]
        if total < least or i < 0 or i == itself:
            continue
        at = count - 1
        while at > 0 and total > highest[at - 1]:
            highest[at] = highest[at - 1]
            at -= 1
        highest[at] = total
        least = max(least, highest[count - 1] + np.int32(1))
    return least

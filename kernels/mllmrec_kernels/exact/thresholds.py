"""The least sum of a tile with which a row's list may take a pair, and how it is raised before anything is scored."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, candidates, lowest_bit
from mllmrec_kernels.exact.plan import Plan
from mllmrec_kernels.exact.problem import Ask
from mllmrec_kernels.exact.quantized import PANEL, Packed

_HIGHEST, _LOWEST = 2**31 - 1, -(2**31)
_NEVER = np.full(PANEL, _HIGHEST, np.int32)
_MOST_RAISED = 64  # entries of a list whose bar is worth raising
_FEW_PANELS = 8  # of columns, which are all gone through; of more, one panel


def reach(mine: Packed, theirs: Packed, plan: Plan) -> NDArray[np.float64]:
    """What bounds need of the other side: its longest row, its worst rounding; and the steps, the error; [4]."""
    longest = float(theirs.length.max(initial=0.0))
    worst = float(mine.length.max(initial=0.0)) * float(theirs.near.max(initial=0.0))
    left_out = float(mine.low.max(initial=0.0)) * float(theirs.low.max(initial=0.0))
    return np.array([longest, worst, plan.steps, plan.error + left_out])


@compiled
def least_sum(lowest: Any, unit: Any, margin: Any, steps: Any) -> int:
    """The least sum of a tile with which a list that ends at `lowest` may take a pair."""
    if lowest == -np.inf or margin == np.inf:
        return _LOWEST
    bar = np.floor((lowest / unit - margin) / steps)
    return int(min(max(bar, np.float64(_LOWEST)), np.float64(_HIGHEST)))


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def set_bars(side: Any, ask: Any, lists: Any, far: Any) -> None:
    """Set units, margins and bars of a side's rows by their lists."""
    for at in prange(len(side.ids)):
        _set_bar(side, at, ask, lists, far)


# What writes to a tuple's arrays stays out of prange bodies: Numba loses such writes there.
@compiled
def _set_bar(side: Any, at: Any, ask: Any, lists: Any, far: Any) -> None:
    q = side.ids[at]
    if q < 0:
        side.bars[at] = _HIGHEST
        return
    lowest = lists.best[q, 0] if lists.sizes[q] == ask.kept else ask.floor
    side.unit[at], side.slack[at] = ask.unit[q], ask.slack[q]
    side.margin[at] = ask.slack[q] + far[0] * side.near[at] + far[1] + far[3]
    side.bars[at] = least_sum(lowest, side.unit[at], side.margin[at], far[2])


def raise_bars(mine: Packed, theirs: Packed, ask: Ask, far: NDArray[np.float64], plan: Plan) -> None:
    """Raise each row's bar to what its list is sure to reach, before anything is scored.

    A sum is at most margin / steps off, above or below, where no residual stands in for coordinates: the list will
    end no lower than the k-th highest sum less that, and a pair that reaches that has a sum of at most that less.
    The k-th highest is that of all columns where they are few, else that of one panel: the row's own in a graph of
    rows among themselves, where its like are.
    """
    panels = len(theirs.ids) // PANEL
    own = ask.alone and len(mine.ids) == len(theirs.ids)
    _raise_all(mine, theirs, ask, far, plan.depth, panels if panels <= _FEW_PANELS else 1, own, _NEVER)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _raise_all(mine: Any, theirs: Any, ask: Any, far: Any, depth: Any, panels: Any, own: Any, never: Any) -> None:
    for n in prange(len(mine.ids) // ROWS):
        row = n * ROWS
        panel = row // PANEL if own and panels == 1 else 0
        _raise_rows(mine, theirs, row, panel * PANEL, (panel + panels) * PANEL, ask, far, depth, never)


@njit(cache=True, nogil=True, error_model="numpy")
def _raise_rows(
    mine: Any, theirs: Any, row: Any, start: Any, stop: Any, ask: Any, far: Any, depth: Any, never: Any
) -> None:
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    highest, least = np.full((ROWS, _MOST_RAISED), _LOWEST, np.int32), np.full(ROWS, _HIGHEST, np.int32)
    left, starts, right, users, items, bars, margin = (
        mine.left, mine.starts, theirs.right, mine.ids, theirs.ids, mine.bars, mine.margin,
    )  # fmt: skip
    indptr, first, groups, shift = ask.indptr, depth[0], depth[1], depth[2]
    stride = groups * DEPTH
    wanted = np.zeros(ROWS, np.int64)
    for r in range(ROWS):
        q = users[row + r]
        if q >= 0:  # those that q must not list may be among the highest
            wanted[r] = ask.kept + indptr[q + 1] - indptr[q]
            if wanted[r] <= _MOST_RAISED:
                least[r] = _LOWEST + 1
    for column in range(start, stop, COLUMNS):
        if candidates(  # type: ignore[call-arg]
            left[row * stride :], 0, stride, starts[row:], right, column * stride, first, groups, shift, least, never,
            0, sums, masks,
        ):  # fmt: skip
            for r in range(ROWS):
                itself = users[row + r] if ask.alone else -1
                least[r] = _keep_high(
                    highest[r], wanted[r], least[r], masks[r], sums, r * COLUMNS, itself, items, column
                )
    for r in range(ROWS):
        if least[r] < _HIGHEST and highest[r, wanted[r] - 1] > _LOWEST:
            bar = np.floor(highest[r, wanted[r] - 1] - 2 * margin[row + r] / far[2])
            bars[row + r] = max(bars[row + r], int(max(bar, np.float64(_LOWEST))))


@compiled
def _keep_high(
    highest: Any, wanted: Any, least: Any, mask: Any, sums: Any, sums_at: Any, itself: Any, items: Any, column: Any
) -> Any:
    """Insert the marked sums of a row of a tile into its falling list of the `wanted` highest; what enters it next."""
    while mask:
        bit: int = lowest_bit(mask)  # type: ignore[call-arg]
        mask &= mask - np.uint32(1)
        total, i = sums[sums_at + bit], items[column + bit]
        if total < least or i < 0 or i == itself:
            continue
        at = wanted - 1
        while at > 0 and total > highest[at - 1]:
            highest[at] = highest[at - 1]
            at -= 1
        highest[at] = total
        least = max(least, highest[wanted - 1] + np.int32(1))
    return least

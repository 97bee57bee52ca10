"""rank_heldout by an int8 product: the tile counts what it can prove, the float64 score decides the rest.

With S the tile's integer sum for held-out entry n of user u and item i, and margin as in topk/certified.py,

    |x_u.y_i - S steps| <= margin[n]

so an item with S steps > own[n] + margin is ahead of the held-out item, one with S steps < own[n] - margin is
not, and the few between are scored as the held-out item itself was. A user stands once in the tile for each of
their held-out items, so that every row has one score to be compared with, in registers: nothing is written but
the counts, and the pairs in between.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.topk.ask import Ask
from mllmrec_kernels.topk.certified import reach
from mllmrec_kernels.topk.heap import before
from mllmrec_kernels.topk.microtile import COLUMNS, DEPTH, ROWS, count_above, lowest_bit
from mllmrec_kernels.topk.packed import PANEL, Packed, chunk_bytes, empty, pack, row_bytes
from mllmrec_kernels.topk.plan import LARGEST, MOST_FINE, Plan
from mllmrec_kernels.topk.score import dot_rows

_HIGHEST, _LOWEST = float(2**31 - 1), -float(2**31)


def count(
    ask: Ask,
    users: NDArray[np.int32],
    heldout: NDArray[np.int32],
    own: NDArray[np.float32],
    ranks: NDArray[np.int32],
    max_bytes: int,
) -> bool:
    """Add to each entry's rank the items that stand before it; False, and nothing done, where memory is too short.

    Args:
        ask: users as queries, items, and how both are scaled.
        users, heldout, own, ranks: the user, item, score and rank of each held-out entry, shape (n,).
        max_bytes: working memory.
    """
    d = ask.queries.shape[1]
    plan = Plan(None, d, d <= MOST_FINE, 0, _step(ask.queries, ask.to_unit), _step(ask.items, ask.shrink), 0.0)
    at_most = (max_bytes - chunk_bytes(d)) // (2 * (row_bytes(plan, d) + 12)) // PANEL * PANEL
    if at_most < PANEL:
        return False
    left_room = empty(min(at_most, len(users)), d, plan)
    right_room = empty(min(at_most, len(ask.items)), d, plan, as_rows=False)
    items = np.arange(len(ask.items), dtype=np.int32)
    blocks = [items[start : start + at_most] for start in range(0, len(items), at_most)]
    for start in range(0, len(users), at_most):
        span = slice(start, start + at_most)
        mine = pack(left_room, ask.queries, ask.to_unit, ask.a, users[span], plan, plan.left_scale)
        for block in blocks:
            if len(blocks) > 1 or start == 0:
                theirs = pack(right_room, ask.items, ask.shrink, ask.b, block, plan, plan.right_scale)
            low, high = _bars(mine, theirs, ask, own[span], plan)
            above = np.zeros(len(mine.ids), np.int32)
            _count_panels(mine, theirs, low, high, above, heldout[span], own[span], ask, plan.depth)
            # The rows that fill the last panel are items whose every sum is 0.
            fillers = len(theirs.ids) - len(block)
            ranks[span] += (above - fillers * (high < 0))[: len(users[span])]
    return True


def _step(rows: NDArray[np.float32], scale: NDArray[np.float64]) -> float:
    """One step of int8 that holds every coordinate."""
    largest = float((np.abs(rows).max(axis=1, initial=0.0) * scale).max(initial=0.0))
    return (largest or 1.0) * (1 + 1e-6) / LARGEST


def _bars(
    mine: Packed, theirs: Packed, ask: Ask, own: NDArray[np.float32], plan: Plan
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sums below `low` are not ahead, sums above `high` are; int32, one a row."""
    far = reach(mine, theirs, plan)
    users = mine.ids[: len(own)]
    margin = ask.slack[users] + far[0] * mine.near[: len(own)] + far[1] + far[3]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = own / ask.unit[users]
        ends = np.floor((score - margin) / far[2]), np.ceil((score + margin) / far[2])
    known = np.isfinite(score) & np.isfinite(margin)  # a user of norm 0 has no unit: every item is looked at
    low, high = np.full(len(mine.ids), 2**31 - 1, np.int32), np.full(len(mine.ids), 2**31 - 1, np.int32)
    low[: len(own)] = np.clip(np.where(known, ends[0], _LOWEST), _LOWEST, _HIGHEST)
    high[: len(own)] = np.clip(np.where(known, ends[1], _HIGHEST), _LOWEST, _HIGHEST)
    return low, high


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count_panels(
    mine: Any, theirs: Any, low: Any, high: Any, above: Any, heldout: Any, own: Any, ask: Any, depth: Any
) -> None:
    for panel in prange(len(mine.ids) // PANEL):
        _count_panel(panel * PANEL, mine, theirs, low, high, above, heldout, own, ask, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_panel(
    first: Any, mine: Any, theirs: Any, low: Any, high: Any, above: Any, heldout: Any, own: Any, ask: Any, depth: Any
) -> None:
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    left, starts, right, users, items = mine.left, mine.starts, theirs.right, mine.ids, theirs.ids
    queries, vectors = ask.queries, ask.items
    begin, groups, shift = depth
    stride = groups * DEPTH
    for column in range(0, len(items), COLUMNS):
        for row in range(first, first + PANEL, ROWS):
            if not count_above(  # type: ignore[call-arg]
                left, row, stride, starts, right, column * stride, begin, groups, shift, high, low, above, sums, masks
            ):
                continue
            for r in range(row, min(row + ROWS, len(own))):
                mask = masks[r - row]
                while mask:
                    i = items[column + lowest_bit(mask)]
                    mask &= mask - np.uint32(1)
                    if i >= 0:
                        score = np.float32(dot_rows(queries, users[r], vectors, i))
                        above[r] += before(score, i, own[r], heldout[r])

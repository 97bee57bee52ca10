"""rank_heldout by an int8 product: the tile counts what it can prove, the float64 score decides the rest.

With S the tile's integer sum for held-out entry n of user u and item i, and margin as in topk/certified.py,

    |x_u.y_i - S steps| <= margin[n]

so an item with S steps > own[n] + margin is ahead of the held-out item, one with S steps < own[n] - margin is
not, and the few between are scored as the held-out item itself was. A user stands in the tile once, whose sums are
compared with the score of each of their held-out items while they are in registers: nothing is written but the
counts, and the pairs in between.

With a limit the first blocks of items are small, and before each block those users drop out who have `limit` items
before each of their held-out items already: counts only grow, and excluded items were taken off before the first.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.heap import before
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, count_above, lowest_bit
from mllmrec_kernels.exact.plan import MOST_FINE, Plan, own_axes
from mllmrec_kernels.exact.problem import Ask
from mllmrec_kernels.exact.quantized import PANEL, Packed, chunk_bytes, empty, pack, row_bytes
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.exact.thresholds import reach

_ENTRY_BYTES = 80  # of a held-out item: counts, bars, and the float64 they are made with
_HIGHEST, _LOWEST = float(2**31 - 1), -float(2**31)
_FIRST = PANEL  # items of the first block where there is a limit; each later one is _GROWS times as large
_GROWS = 3


def count(
    ask: Ask,
    heldout: CSR,
    own: NDArray[np.float32],
    ranks: NDArray[np.int32],
    limit: int,
    max_bytes: int,
) -> bool:
    """Add to each entry's rank the items that stand before it; False, and nothing done, where memory is too short.

    Args:
        ask: users as queries, items, and how both are scaled.
        heldout: each user's held-out items.
        own, ranks: the score and rank of each entry of `heldout`, shape (n,).
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.
    """
    d = ask.queries.shape[1]
    plan = own_axes(ask, fine=d <= MOST_FINE)
    held = np.diff(heldout.indptr)
    users = np.flatnonzero(held).astype(np.int32)
    each = 2 * row_bytes(plan, d) + _ENTRY_BYTES * int(held.max(initial=0))
    at_most = (max_bytes - chunk_bytes(d)) // each // PANEL * PANEL
    if at_most < PANEL:
        return False
    left_room = empty(min(at_most, len(users)), d, plan)
    right_room = empty(min(at_most, len(ask.items)), d, plan, as_rows=False)
    for block in _blocks(len(ask.items), at_most, limit):
        theirs = pack(right_room, ask.items, ask.shrink, ask.b, block, plan, plan.right_scale)
        users = _still_below(limit, users, heldout.indptr, ranks)
        for start in range(0, len(users), at_most):
            asked = users[start : start + at_most]
            mine = pack(left_room, ask.queries, ask.to_unit, ask.a, asked, plan, plan.left_scale)
            which, ends = _entries(heldout.indptr, asked)
            entries = np.full(len(mine.ids) + 1, len(which))  # the rows that fill the last panel have none
            entries[: len(ends)] = ends
            low, high = _bars(mine, theirs, ask, own[which], np.diff(entries), plan)
            above = np.zeros(len(low), np.int32)
            _count_panels(mine, theirs, entries, low, high, above, heldout.indices[which], own[which], ask, plan.depth)
            # The rows that fill the last panel are items whose every sum is 0.
            fillers = len(theirs.ids) - len(block)
            ranks[which] += above - fillers * (high < 0)
    return True


def _blocks(n_items: int, at_most: int, limit: int) -> list[NDArray[np.int32]]:
    """The items, in blocks that are packed together."""
    items = np.arange(n_items, dtype=np.int32)
    size, ends = (_FIRST if limit < n_items else at_most), [0]
    while ends[-1] < n_items:
        ends.append(ends[-1] + min(size, at_most))
        size *= _GROWS
    return [items[start:stop] for start, stop in pairwise(ends)]


def _still_below(
    limit: int, users: NDArray[np.int32], indptr: NDArray[np.int64], ranks: NDArray[np.int32]
) -> NDArray[np.int32]:
    """Those of the users who have an entry below the limit."""
    if not len(users):
        return users
    # A stretch ends where that of the next user on the list starts: users who have left stand at the limit or above.
    return users[np.minimum.reduceat(ranks, indptr[users]) < limit]


def _entries(indptr: NDArray[np.int64], users: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Entries of the users, one after another, and where each user's start among them; one more is the end."""
    held = indptr[users + 1] - indptr[users]
    ends = np.concatenate([[0], np.cumsum(held)])
    return np.arange(ends[-1]) + np.repeat(indptr[users] - ends[:-1], held), ends


def _bars(
    mine: Packed, theirs: Packed, ask: Ask, own: NDArray[np.float32], held: NDArray[np.int64], plan: Plan
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Sums below `low` are not ahead, sums above `high` are; int32, one a held-out item, `held` of them a row."""
    far = reach(mine, theirs, plan)
    users, near = np.repeat(mine.ids, held), np.repeat(mine.near, held)
    margin = ask.slack[users] + far[0] * near + far[1] + far[3]
    with np.errstate(divide="ignore", invalid="ignore"):
        score = own / ask.unit[users]
        ends = np.floor((score - margin) / far[2]), np.ceil((score + margin) / far[2])
    known = np.isfinite(score) & np.isfinite(margin)  # a user of norm 0 has no unit: every item is looked at
    low, high = np.where(known, ends[0], _LOWEST), np.where(known, ends[1], _HIGHEST)
    return np.clip(low, _LOWEST, _HIGHEST).astype(np.int32), np.clip(high, _LOWEST, _HIGHEST).astype(np.int32)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _count_panels(
    mine: Any, theirs: Any, entries: Any, low: Any, high: Any, above: Any, heldout: Any, own: Any, ask: Any, depth: Any
) -> None:
    for panel in prange(len(mine.ids) // PANEL):
        _count_panel(panel * PANEL, mine, theirs, entries, low, high, above, heldout, own, ask, depth)


@njit(cache=True, nogil=True, error_model="numpy")
def _count_panel(
    start: Any, mine: Any, theirs: Any, entries: Any, low: Any, high: Any, above: Any, heldout: Any, own: Any,
    ask: Any, depth: Any,
) -> None:  # fmt: skip
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    left, starts, right, users, items = mine.left, mine.starts, theirs.right, mine.ids, theirs.ids
    queries, vectors = ask.queries, ask.items
    first, groups, shift = depth
    stride = groups * DEPTH
    for column in range(0, len(items), COLUMNS):
        for row in range(start, start + PANEL, ROWS):
            if not count_above(  # type: ignore[call-arg]
                left, row, stride, starts, right, column * stride, first, groups, shift, entries, high, low, above,
                sums, masks,
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
                    for n in range(entries[r], entries[r + 1]):
                        if low[n] <= total <= high[n]:
                            above[n] += before(score, i, own[n], heldout[n])

"""Lists by an int8 product: a third of the axes in int8 proposes, the float64 score decides.

A pair x, y of rows of norm at most 1 is looked at in up to three steps, each an upper bound of x.y that is
compared with the bar of either list; only what passes goes on.

1. The tile (microtile.py), for every pair. With p the first m coordinates on the plan's axes, r the others,
   P and S the int8 of p and of all of z = (p, r), and all bounds as in packed.py:

       x.y <= z_x.z_y + turning error
           <= p_x.p_y + |r_x||r_y| + ...
           <= P_x.P_y + spares h_x h_y steps + |z_y| |p_x - P_x| + |z_x| |p_y - P_y| + turning error

   The first two terms are the tile's integer sum times both steps; the others are at most
   `len_y near_x + len_x max(near_y)` and stand in the row's bar.
2. The other coordinates' int8 instead of |r_x||r_y|:   x.y <= S_x.S_y + len_y off_x + len_x off_y + turning error.
3. The score itself.

A graph of rows among themselves does the upper triangle only, and offers each pair to both lists. Panels of
480 rows meet in rounds of pairs that share no panel (the circle method of tournaments), so threads never
write to one list. Rows are ordered so that alike ones share a panel, whose lists are filled first: bars stand
high before the others come. No order shows in the result (heap.py).

Bytes: a row is about 2 (m + spares) + d; where not all fit into `max_bytes`, blocks of rows are packed again
for each meeting of two. Work: N^2 / 2 (m + spares) multiply-adds of int8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.base.parallel import over_chunks
from mllmrec_kernels.exact.heap import push
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, candidates, lowest_bit
from mllmrec_kernels.exact.plan import Plan
from mllmrec_kernels.exact.problem import Ask, Lists, is_barred, score_of
from mllmrec_kernels.exact.quantized import PANEL, Packed, chunk_bytes, empty, pack, padded, row_bytes
from mllmrec_kernels.exact.score import as_unit
from mllmrec_kernels.exact.thresholds import least_sum, raise_bars, reach, set_bars
from mllmrec_kernels.topk import candidate_buffer as reservoir
from mllmrec_kernels.topk.candidate_buffer import reservoir_bytes

_MOST_CENTRES = 512
_QUERY_PANELS = 4  # a thread, packed at a time
_NEVER = np.full(PANEL, 2**31 - 1, np.int32)
_CHUNK = 1_024


def fill(ask: Ask, lists: Lists, plan: Plan, max_bytes: int) -> bool:
    """Offer every pair; False, and nothing done, where `max_bytes` holds not even one panel a side."""
    itself = ask.queries is ask.items
    d = ask.queries.shape[1]
    waiting = reservoir_bytes(ask.kept) if plan.fine and not itself else 0
    if waiting > max_bytes // 2:
        waiting = 0
    spare = max_bytes - chunk_bytes(d) - waiting - 4 * (len(ask.items) + (0 if itself else len(ask.queries)))
    at_most = spare // (2 * row_bytes(plan, d)) // PANEL * PANEL
    if at_most < PANEL:
        return False
    if itself:
        order = _alike_together(ask, plan)
        rows = len(order) if padded(len(order)) <= 2 * at_most else at_most
        _among_themselves(ask, lists, plan, [order[n : n + rows] for n in range(0, len(order), rows)])
    else:
        left, right = (np.arange(len(x), dtype=np.int32) for x in (ask.queries, ask.items))
        # Where items are packed once for all queries, queries need not all be there at once.
        few = min(at_most, _QUERY_PANELS * get_num_threads() * PANEL) if len(right) <= at_most else at_most
        blocks = ([r[n : n + step] for n in range(0, len(r), step)] for r, step in ((left, few), (right, at_most)))
        _against_items(ask, lists, plan, *blocks, wait=waiting > 0)
    return True


def _alike_together(ask: Ask, plan: Plan) -> NDArray[np.int32]:
    """Row numbers, grouped by the nearest of some rows; int32 [N]."""
    n = len(ask.items)
    centres_wanted = min(n // PANEL, _MOST_CENTRES)
    if plan.axes is None or centres_wanted < 2:
        return np.arange(n, dtype=np.int32)
    axes = plan.axes[: plan.prefix]
    drawn = np.random.default_rng(1).permutation(n)[:centres_wanted]
    centres = as_unit(ask.items[drawn], ask.shrink[drawn], np.empty((len(drawn), axes.shape[1]), np.float32)) @ axes.T
    nearest = np.empty(n, np.int16)

    def assign(start: int, stop: int) -> None:
        rows = ask.items[start:stop]
        unit = as_unit(rows, ask.shrink[start:stop], np.empty_like(rows))
        nearest[start:stop] = ((unit @ axes.T) @ centres.T).argmax(axis=1)

    over_chunks(assign, n, _CHUNK)
    return np.argsort(nearest, kind="stable").astype(np.int32)


def _among_themselves(ask: Ask, lists: Lists, plan: Plan, blocks: list[NDArray[np.int32]]) -> None:
    """The upper triangle of all rows against all rows."""
    d, step = ask.items.shape[1], plan.right_scale
    room = empty(len(blocks[0]), d, plan)
    other_room = empty(len(blocks[0]), d, plan, as_rows=False) if len(blocks) > 1 else room
    for n, block in enumerate(blocks):
        mine = pack(room, ask.items, ask.shrink, ask.b, block, plan, step)
        _meet_rounds(mine, mine, ask, lists, plan, _circle(padded(len(block)) // PANEL))
        for other in blocks[n + 1 :]:
            theirs = pack(other_room, ask.items, ask.shrink, ask.b, other, plan, step)
            rounds = _shifts(padded(len(block)) // PANEL, padded(len(other)) // PANEL)
            _meet_rounds(mine, theirs, ask, lists, plan, rounds)


def _meet_rounds(
    mine: Packed, theirs: Packed, ask: Ask, lists: Lists, plan: Plan, rounds: list[NDArray[np.int32]]
) -> None:
    far, near = reach(mine, theirs, plan), reach(theirs, mine, plan)
    set_bars(mine, ask, lists, far)
    if theirs is not mine:
        set_bars(theirs, ask, lists, near)
    elif not plan.spares:
        raise_bars(mine, theirs, ask, far, plan)
    for pairs in rounds:
        if len(pairs):
            _meet_pairs(mine, theirs, pairs, ask, lists, far, near, plan.depth, plan.spares, _NEVER)


def _against_items(
    ask: Ask,
    lists: Lists,
    plan: Plan,
    queries: list[NDArray[np.int32]],
    items: list[NDArray[np.int32]],
    *,
    wait: bool,
) -> None:
    d = ask.items.shape[1]
    left_room, right_room = empty(len(queries[0]), d, plan), empty(len(items[0]), d, plan, as_rows=False)
    for block in queries:
        mine = pack(left_room, ask.queries, ask.to_unit, ask.a, block, plan, plan.left_scale)
        for other in items:
            if len(items) > 1 or block is queries[0]:
                theirs = pack(right_room, ask.items, ask.shrink, ask.b, other, plan, plan.right_scale)
            far = reach(mine, theirs, plan)
            set_bars(mine, ask, lists, far)
            if wait:
                reservoir.meet(mine, theirs, ask, lists, plan)
            else:
                if not plan.spares and other is items[0]:
                    raise_bars(mine, theirs, ask, far, plan)
                _meet_panels(mine, theirs, ask, lists, far, plan.depth, plan.spares, _NEVER)


def _circle(players: int) -> list[NDArray[np.int32]]:
    """Rounds of disjoint pairs of panels, all pairs met once; the first round is each panel with itself."""
    seats = players + players % 2
    rounds = [np.repeat(np.arange(players), 2).reshape(-1, 2)]
    for shift in range(seats - 1):
        turning = (np.arange(seats - 1) + shift) % (seats - 1)
        ring = np.concatenate([[seats - 1], turning])
        pairs = np.stack([ring[: seats // 2], ring[: seats // 2 - 1 : -1]], axis=1)
        rounds.append(pairs[(pairs < players).all(axis=1)])
    return [pairs.astype(np.int32) for pairs in rounds]


def _shifts(left: int, right: int) -> list[NDArray[np.int32]]:
    """Rounds of disjoint pairs, every left panel with every right one."""
    longer = max(left, right)
    panels = np.arange(left)
    rounds = [np.stack([panels, (panels + shift) % longer], axis=1) for shift in range(longer)]
    return [pairs[pairs[:, 1] < right].astype(np.int32) for pairs in rounds]


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _meet_pairs(
    mine: Any, theirs: Any, pairs: Any, ask: Any, lists: Any, far: Any, near: Any, depth: Any, spares: Any, never: Any
) -> None:
    for n in prange(len(pairs)):
        # A panel with itself is a full square: each of its lists is offered the pair from its own side.
        one, other = pairs[n, 0], pairs[n, 1]
        both = mine.ids[one * PANEL] != theirs.ids[other * PANEL]
        _meet(mine, theirs, one, other, both, ask, lists, far, near, depth, spares, never)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _meet_panels(mine: Any, theirs: Any, ask: Any, lists: Any, far: Any, depth: Any, spares: Any, never: Any) -> None:
    for one in prange(len(mine.ids) // PANEL):
        for other in range(len(theirs.ids) // PANEL):
            _meet(mine, theirs, one, other, False, ask, lists, far, far, depth, spares, never)


@njit(cache=True, nogil=True, error_model="numpy")
def _meet(
    mine: Any, theirs: Any, one: Any, other: Any, both: Any, ask: Any, lists: Any, far: Any, near: Any, depth: Any,
    spares: Any, never: Any,
) -> None:  # fmt: skip
    """Every row of panel `one` with every row of panel `other`, offered to the first's list or to both."""
    found = np.empty((PANEL * COLUMNS, 3), np.int32)  # row, column, sum of what a strip of columns lets through
    bars = theirs.bars[other * PANEL : (other + 1) * PANEL] if both else never
    for c in range(0, PANEL, COLUMNS):
        n = _strip(mine, theirs, one * PANEL, other * PANEL + c, depth, bars, c, found)
        if n:
            _settle(found[:n], mine, theirs, both, ask, lists, far, near, spares)


@njit(cache=True, nogil=True, error_model="numpy")
def _strip(mine: Any, theirs: Any, start: Any, column: Any, depth: Any, bars: Any, bars_at: Any, found: Any) -> int:
    """A panel of rows with 32 columns: the pairs that reach a bar, and how many they are."""
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    first, groups, shift = depth
    left, starts, right, row_bars = mine.left, mine.starts, theirs.right, mine.bars
    n, stride = 0, groups * DEPTH
    for row in range(start, start + PANEL, ROWS):
        if not candidates(  # type: ignore[call-arg]
            left,
            row,
            stride,
            starts,
            right,
            column * stride,
            first,
            groups,
            shift,
            row_bars,
            bars,
            bars_at,
            sums,
            masks,
        ):
            continue
        for r in range(ROWS):
            mask = masks[r]
            while mask:
                bit = lowest_bit(mask)
                mask &= mask - np.uint32(1)
                found[n, 0], found[n, 1], found[n, 2] = row + r, column + bit, sums[r * COLUMNS + bit]
                n += 1
    return n


@compiled
def _settle(
    found: Any, mine: Any, theirs: Any, both: Any, ask: Any, lists: Any, far: Any, near: Any, spares: Any
) -> None:
    """Look again at the pairs that a strip could not rule out, and offer those that pass."""
    for n in range(len(found) if not spares else _second_look(found, mine, theirs, both, far, near, spares)):
        row, column, total = found[n, 0], found[n, 1], found[n, 2]
        q, i = mine.ids[row], theirs.ids[column]
        for_row = total >= mine.bars[row]
        for_column = both and total >= theirs.bars[column]
        if q < 0 or i < 0 or not (for_row or for_column) or is_barred(ask, q, i):
            continue
        score = score_of(ask, q, i)
        if score < ask.floor:
            continue
        if for_row:
            _offer(mine, row, score, i, ask, lists, far)
        if for_column:
            _offer(theirs, column, score, q, ask, lists, far)


@compiled
def _offer(side: Any, at: Any, score: Any, other: Any, ask: Any, lists: Any, far: Any) -> None:
    """Put `other` into the list of a side's row, and raise the row's bar."""
    q = side.ids[at]
    size = push(lists.ids, lists.best, q, lists.sizes[q], ask.kept, score, other)
    lists.sizes[q] = size
    if size == ask.kept:
        least = least_sum(lists.best[q, 0], side.unit[at], side.margin[at], far[2])
        side.bars[at] = max(least, side.bars[at])


@compiled
def _second_look(found: Any, mine: Any, theirs: Any, both: Any, far: Any, near: Any, spares: Any) -> int:
    """Move the pairs that all coordinates' int8 cannot rule out to the front; how many they are.

    The bars stand for sums of a tile, with its margin taken off already. So that they serve here too, the sum that
    is put in the tile's place has this look's margin added and the tile's (the lesser of both sides) taken off.
    """
    passed = 0
    for n in range(len(found)):
        row, column, total = found[n, 0], found[n, 1], found[n, 2]
        if not (total >= mine.bars[row] or (both and total >= theirs.bars[column])):
            continue
        known = np.int32(total - spares * mine.height[row] * theirs.height[column])
        for j in range(mine.rest.shape[1]):
            known += np.int32(mine.rest[row, j]) * np.int32(theirs.rest[column, j])
        lost = theirs.length[column] * mine.off[row] + mine.length[row] * theirs.off[column]
        counted = min(far[0] * mine.near[row] + far[1], near[0] * theirs.near[column] + near[1])
        known += np.int32(np.ceil((lost - counted) / far[2]))
        found[passed, 0], found[passed, 1], found[passed, 2] = row, column, min(known, total)
        passed += 1
    return passed

"""Queries against items where lists are long: the tile's sums choose first, scores are made at the end.

A list of k that is scored as it fills takes k ln(N / k) scores and as many moves in a heap. Here each query keeps
a reservoir of (sum, column) instead. When it is full, its k-th highest sum says how high the list is sure to
end: with margin as in certified.py a sum is at most margin / steps off, above or below, so whatever lies more
than twice that under the k-th highest is dropped, and the bar is raised to it. In the end about k a query are
left to be scored, the highest sums first, so that the list's own end rules out most of the rest.

Bytes: a reservoir is four lists long, 8 bytes an entry, for each row of one panel a thread. Work: the product, and
about k (1 + ln(N / 4k)) entries a query, none of which is scored before the end unless too many tie.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit, prange

from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.exact.heap import push
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, candidates, lowest_bit
from mllmrec_kernels.exact.plan import Plan
from mllmrec_kernels.exact.problem import Ask, Lists, score_of
from mllmrec_kernels.exact.quantized import PANEL, Packed
from mllmrec_kernels.exact.thresholds import least_sum

_LISTS, _LEAST = 4, 4 * COLUMNS  # a reservoir holds so many lists, and at least so many entries
_NEVER = np.full(COLUMNS, 2**31 - 1, np.int32)


def room(kept: int) -> int:
    """Entries of a reservoir for lists of `kept`."""
    return max(_LISTS * kept, _LEAST)


def reservoir_bytes(kept: int) -> int:
    """Bytes of all threads' reservoirs."""
    return get_num_threads() * PANEL * (8 * room(kept) + 16)


def meet(mine: Packed, theirs: Packed, ask: Ask, lists: Lists, plan: Plan) -> None:
    """Offer every row of `mine` every row of `theirs`, whose ids rise; bars and margins of `mine` are set."""
    _meet_panels(mine, theirs, ask, lists, plan.steps, plan.depth, room(ask.kept), _NEVER)


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _meet_panels(mine: Any, theirs: Any, ask: Any, lists: Any, steps: Any, depth: Any, size: Any, never: Any) -> None:
    for panel in prange(len(mine.ids) // PANEL):
        _meet_panel(panel * PANEL, mine, theirs, ask, lists, steps, depth, size, never)


@njit(cache=True, nogil=True, error_model="numpy")
def _meet_panel(
    start: Any, mine: Any, theirs: Any, ask: Any, lists: Any, steps: Any, depth: Any, size: Any, never: Any
) -> None:
    indptr, excluded, alone = ask.indptr, ask.excluded, ask.alone
    left, starts, right, bars, users, items = mine.left, mine.starts, theirs.right, mine.bars, mine.ids, theirs.ids
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    kept_sums, kept_columns = np.empty((PANEL, size), np.int32), np.empty((PANEL, size), np.int32)
    counts, cursors = np.zeros(PANEL, np.int64), indptr[np.maximum(users[start : start + PANEL], 0)]
    first, groups, shift = depth
    stride = groups * DEPTH
    for column in range(0, len(items), COLUMNS):
        for row in range(start, start + PANEL, ROWS):
            if not candidates(  # type: ignore[call-arg]
                left, row, stride, starts, right, column * stride, first, groups, shift, bars, never, 0, sums, masks
            ):
                continue
            for r in range(row, row + ROWS):
                q, at = users[r], r - start
                if q < 0 or masks[r - row] == 0:
                    continue
                counts[at], cursors[at] = _keep(
                    masks[r - row], sums, (r - row) * COLUMNS, column, items, q if alone else -1, excluded, cursors[at],
                    indptr[q + 1], kept_sums, kept_columns, at, counts[at],
                )  # fmt: skip
                if counts[at] + COLUMNS > size:
                    counts[at] = _drop(kept_sums[at], kept_columns[at], counts[at], r, mine, ask, steps)
                    if counts[at] + COLUMNS > size:  # too many so close: their scores tell them apart
                        _score(kept_sums[at], kept_columns[at], counts[at], r, mine, theirs, ask, lists, steps)
                        counts[at] = 0
    for at in range(PANEL):
        left_over = _drop(kept_sums[at], kept_columns[at], counts[at], start + at, mine, ask, steps)
        _score(kept_sums[at], kept_columns[at], left_over, start + at, mine, theirs, ask, lists, steps)


@compiled
def _keep(
    mask: Any, sums: Any, sums_at: Any, column: Any, items: Any, itself: Any, excluded: Any, cursor: Any, stop: Any,
    kept_sums: Any, kept_columns: Any, at: Any, count: Any,
) -> tuple[int, int]:  # fmt: skip
    """Put the marked sums of one row of a tile into reservoir `at`; its new count, and the row's place in `excluded`.

    Columns rise from call to call, so a query's excluded items, up to `stop`, are passed once.
    """
    while mask:
        bit: int = lowest_bit(mask)  # type: ignore[call-arg]
        mask &= mask - np.uint32(1)
        i = items[column + bit]
        while cursor < stop and excluded[cursor] < i:
            cursor += 1
        if i < 0 or i == itself or (cursor < stop and excluded[cursor] == i):
            continue
        kept_sums[at, count], kept_columns[at, count] = sums[sums_at + bit], column + bit
        count += 1
    return count, cursor


@compiled
def _drop(sums: Any, columns: Any, count: Any, row: Any, mine: Any, ask: Any, steps: Any) -> int:
    """Put the k highest sums first, raise the row's bar by the k-th, drop what is under it; how many are left."""
    kept = ask.kept
    if count <= kept:
        return int(count)
    _select(sums, columns, count, kept)
    least = sums[0]
    for n in range(1, kept):
        least = min(least, sums[n])
    # int32 sums and their distances are exact in float64.
    bar = max(np.floor(least - 2 * mine.margin[row] / steps), np.float64(mine.bars[row]))
    mine.bars[row] = int(bar)
    left = kept
    for n in range(kept, count):
        if sums[n] >= bar:
            sums[left], columns[left] = sums[n], columns[n]
            left += 1
    return int(left)


@compiled
def _select(sums: Any, columns: Any, count: Any, k: Any) -> None:
    """Quickselect: the k highest of `count` to the front, in any order; k < count."""
    low, high = 0, count - 1
    while low < high:
        pivot = sums[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while sums[i] > pivot:
                i += 1
            while sums[j] < pivot:
                j -= 1
            if i <= j:
                sums[i], sums[j] = sums[j], sums[i]
                columns[i], columns[j] = columns[j], columns[i]
                i, j = i + 1, j - 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@compiled
def _score(
    sums: Any, columns: Any, count: Any, row: Any, mine: Any, theirs: Any, ask: Any, lists: Any, steps: Any
) -> None:
    """Offer `count` entries to the row's list by their scores; what the list rules out on the way is not scored."""
    q, items = mine.ids[row], theirs.ids
    floor, kept = ask.floor, ask.kept
    ids, best, size = lists.ids, lists.best, lists.sizes[q]
    unit, margin, bar = mine.unit[row], mine.margin[row], mine.bars[row]
    for n in range(count):
        if sums[n] < bar:
            continue
        i = items[columns[n]]
        score = score_of(ask, q, i)
        if score < floor:
            continue
        size = push(ids, best, q, size, kept, score, i)
        if size == kept:
            bar = max(bar, least_sum(best[q, 0], unit, margin, steps))
    mine.bars[row], lists.sizes[q] = bar, size

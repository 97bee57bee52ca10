"""Queries against items with long lists: tile sums choose the candidates, scores are made at the end.

A list of k that is scored while it fills takes k ln(N / k) scores and as many moves in a heap. Here each query keeps
a buffer of (sum, column) instead. When the buffer is full, its k-th highest sum bounds the end of the list from
below: a sum is at most margin / step off, above or below (thresholds.py). Whatever lies more than twice that under
the k-th highest is dropped, and the threshold is raised to it. In the end about k candidates per query are left to be
scored, the highest sums first, so that the list's own end rules out most of the rest.

Bytes: a buffer is four lists long, 8 bytes per entry, for each row of one panel per thread. A thread quantizes the
queries of its panel itself, so no more of them are held. Work: the product, and about k (1 + ln(N / 4k)) entries per
query, scored only at the end, unless too many tie.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange

from mllmrec_kernels.base.arrays import Int32Array
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS, Depth, candidates, lowest_bit
from mllmrec_kernels.exact.plan import RotationPlan
from mllmrec_kernels.exact.problem import Heaps, TopKProblem, push, score_pair
from mllmrec_kernels.exact.quantized import PANEL, QuantizedRows, quantize_rows, row_bytes
from mllmrec_kernels.exact.thresholds import NEVER, Largest, bounds_of, init_threshold, largest, min_sum

_LISTS, _MIN_ENTRIES = 4, 4 * COLUMNS  # a buffer holds so many lists, and at least so many entries


def working_bytes(k: int, plan: RotationPlan, d: int) -> int:
    """Count the bytes of all threads' buffers and quantized queries.

    Args:
        k: entries per list.
        plan: axes and scales of the product.
        d: columns of a row.
    """
    return get_num_threads() * PANEL * (8 * _capacity(k) + 16 + row_bytes(plan, d, layouts=1))


def _capacity(k: int) -> int:
    """Return the entries of a buffer for lists of k."""
    return max(_LISTS * k, _MIN_ENTRIES)


def fill(right: QuantizedRows, problem: TopKProblem, heaps: Heaps, plan: RotationPlan) -> None:
    """Offer every row of `right` to the list of every query.

    Args:
        right: items, in rising order of their ids.
        problem: the search.
        heaps: the lists, filled in place.
        plan: scales of the product of two bytes per coordinate, on the rows' own axes.
    """
    _fill_panels(
        right, problem, heaps, plan.left_scale, plan.step, plan.error, plan.depth, largest(right), _capacity(problem.k),
        NEVER,
    )  # fmt: skip


@njit(cache=True, nogil=True, parallel=True, error_model="numpy")
def _fill_panels(
    right: QuantizedRows, problem: TopKProblem, heaps: Heaps, scale: float, step: float, error: float, depth: Depth,
    of_right: Largest, size: int, never: Int32Array,
) -> None:  # fmt: skip
    for panel in prange((len(problem.queries) + PANEL - 1) // PANEL):
        _fill_panel(panel * PANEL, right, problem, heaps, scale, step, error, depth, of_right, size, never)


@njit(cache=True, nogil=True, error_model="numpy")
def _fill_panel(
    start: int, right: QuantizedRows, problem: TopKProblem, heaps: Heaps, scale: float, step: float, error: float,
    depth: Depth, of_right: Largest, size: int, never: Int32Array,
) -> None:  # fmt: skip
    first, groups, shift = depth
    stride = groups * DEPTH
    left = _query_panel(problem, start, stride, scale)
    bounds = bounds_of(largest(left), of_right, step, error)
    for row in range(PANEL):
        init_threshold(left, row, problem, heaps, bounds)
    indptr, excluded, exclude_self = problem.indptr, problem.excluded, problem.exclude_self
    row_codes, sum_offsets, column_codes, thresholds, users, items = (
        left.row_codes, left.sum_offsets, right.column_codes, left.thresholds, left.ids, right.ids,
    )  # fmt: skip
    sums, masks = np.empty(ROWS * COLUMNS, np.int32), np.empty(ROWS, np.uint32)
    buffer_sums, buffer_columns = np.empty((PANEL, size), np.int32), np.empty((PANEL, size), np.int32)
    counts, cursors = np.zeros(PANEL, np.int64), indptr[np.maximum(users, 0)]
    for column in range(0, len(items), COLUMNS):
        for row in range(0, PANEL, ROWS):
            if not candidates(
                row_codes, row, stride, sum_offsets, column_codes, column * stride, first, groups, shift, thresholds,
                never, 0, sums, masks,
            ):  # fmt: skip
                continue
            for r in range(row, row + ROWS):
                q = users[r]
                if q < 0 or masks[r - row] == 0:
                    continue
                counts[r], cursors[r] = _keep(
                    masks[r - row], sums, (r - row) * COLUMNS, column, items, q if exclude_self else -1, excluded,
                    cursors[r], indptr[q + 1], buffer_sums, buffer_columns, r, counts[r],
                )  # fmt: skip
                if counts[r] + COLUMNS > size:
                    counts[r] = _drop(buffer_sums[r], buffer_columns[r], counts[r], r, left, problem, step)
                    if counts[r] + COLUMNS > size:  # too many within the margin: only scores separate them
                        _score(buffer_sums[r], buffer_columns[r], counts[r], r, left, right, problem, heaps, step)
                        counts[r] = 0
    for r in range(PANEL):
        count = _drop(buffer_sums[r], buffer_columns[r], counts[r], r, left, problem, step)
        _score(buffer_sums[r], buffer_columns[r], count, r, left, right, problem, heaps, step)


@njit(cache=True, nogil=True, error_model="numpy")
def _query_panel(problem: TopKProblem, start: int, stride: int, step: float) -> QuantizedRows:
    """Quantize the panel of queries from `start` on; those past the last, and without a score, have id -1."""
    queries, ids = problem.queries, np.full(PANEL, -1, np.int32)
    for q in range(start, min(start + PANEL, len(queries))):
        if problem.query_weights[q] != 0.0:
            ids[q - start] = q
    panel = QuantizedRows(
        ids, np.zeros(PANEL * stride, np.int8), np.zeros(PANEL, np.int32), np.zeros(0, np.uint8),
        np.zeros((PANEL, 0), np.int8), np.zeros(PANEL, np.int32), np.zeros(PANEL), np.zeros(PANEL), np.zeros(PANEL),
        np.zeros(PANEL), np.zeros(PANEL), np.zeros(PANEL), np.zeros(PANEL, np.int32),
    )  # fmt: skip
    quantize_rows(queries, ids, problem.query_scale, 0, queries.shape[1], stride, True, 0, step, panel)
    return panel


@jit
def _keep(
    mask: np.uint32, sums: Int32Array, sums_at: int, column: int, items: Int32Array, itself: int,
    excluded: Int32Array, cursor: int, stop: int, buffer_sums: Int32Array, buffer_columns: Int32Array, at: int,
    count: int,
) -> tuple[int, int]:  # fmt: skip
    """Append the marked sums of a tile's row to buffer `at`; return its count and the row's place in `excluded`.

    Columns rise from call to call, so a query's excluded items, up to `stop`, are passed once.
    """
    while mask:
        bit: int = lowest_bit(mask)
        mask &= mask - np.uint32(1)
        i = items[column + bit]
        while cursor < stop and excluded[cursor] < i:
            cursor += 1
        if i < 0 or i == itself or (cursor < stop and excluded[cursor] == i):
            continue
        buffer_sums[at, count], buffer_columns[at, count] = sums[sums_at + bit], column + bit
        count += 1
    return count, cursor


@jit
def _drop(
    sums: Int32Array, columns: Int32Array, count: int, row: int, left: QuantizedRows, problem: TopKProblem,
    step: float,
) -> int:  # fmt: skip
    """Put the k highest sums first, raise the row's threshold by the k-th, drop lower ones; return the count left."""
    k = problem.k
    if count <= k:
        return int(count)
    _select(sums, columns, count, k)
    least = sums[0]
    for n in range(1, k):
        least = min(least, sums[n])
    # int32 sums and their distances are exact in float64.
    threshold = max(np.floor(least - 2 * left.margin[row] / step), np.float64(left.thresholds[row]))
    left.thresholds[row] = int(threshold)
    remaining = k
    for n in range(k, count):
        if sums[n] >= threshold:
            sums[remaining], columns[remaining] = sums[n], columns[n]
            remaining += 1
    return int(remaining)


@jit
def _select(sums: Int32Array, columns: Int32Array, count: int, k: int) -> None:
    """Move the k highest of `count` sums to the front, in any order, by quickselect; k < count."""
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


@jit
def _score(
    sums: Int32Array, columns: Int32Array, count: int, row: int, left: QuantizedRows, right: QuantizedRows,
    problem: TopKProblem, heaps: Heaps, step: float,
) -> None:  # fmt: skip
    """Offer `count` entries to the row's list by their scores, without those that its rising end rules out."""
    q, items = left.ids[row], right.ids
    min_score, k = problem.min_score, problem.k
    ids, scores, size = heaps.ids, heaps.scores, heaps.sizes[q]
    unit, margin, threshold = left.score_unit[row], left.margin[row], left.thresholds[row]
    for n in range(count):
        if sums[n] < threshold:
            continue
        i = items[columns[n]]
        score = score_pair(problem, q, i)
        if score < min_score:
            continue
        size = push(ids, scores, q, size, k, score, i)
        if size == k:
            threshold = max(threshold, min_sum(scores[q, 0], unit, margin, step))
    left.thresholds[row], heaps.sizes[q] = threshold, size

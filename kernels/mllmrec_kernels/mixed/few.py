"""The few items of each user whose sparse part R_u W is not 0, as ascending ids and values.

A user's row is summed in memory of the catalogue's size. Users of a piece of work are looked at together, a block of
items after another: the block's encoded rows then stay in a core's cache for all of them, where each user alone would
fetch its few from memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.int8_tile import lowest_bit
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.mixed.coded_rows import bound_dot, encode_user, prefetch_row
from mllmrec_kernels.mixed.reference import LANES

_WORD = 32  # items that a word of `marks` stands for
USERS = 512  # of one piece of work
_BLOCK_BYTES = 2**19  # of encoded rows that are looked at together
_AHEAD = 2  # items that are prefetched
ROUNDED = 2.0**-22  # of a score that is rounded to float32, and of the float64 sums
LEAST = 2.0**-146  # the same beside 0


class Room(NamedTuple):
    """Working memory of one thread; sums and marks are zero between users.

    Attributes:
        sums: float32 [I].
        marks: uint32 [I / 32], a bit per item that was added to.
        ids: int32 [I], the items with a sum other than 0, ascending.
        values: float32 [I], their sums.
        lanes: float64 [LANES].
    """

    sums: NDArray[np.float32]
    marks: NDArray[np.uint32]
    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    lanes: NDArray[np.float64]


def room(n_items: int) -> Room:
    """Return working memory for rows of `n_items`."""
    words = -(-n_items // _WORD)
    return Room(
        np.zeros(n_items, np.float32), np.zeros(words, np.uint32), np.empty(n_items, np.int32),
        np.empty(n_items, np.float32), np.zeros(LANES),
    )  # fmt: skip


def room_bytes(n_items: int) -> int:
    """Return the bytes of a room."""
    return 12 * n_items + n_items // 8 + 8 * LANES + 64


@jit
def sum_row(sparse: Any, u: Any, room: Any) -> int:
    """Put the entries of R_u W that are not 0 into room.ids and room.values; return how many they are."""
    if len(sparse.dense_weights) > 0:
        return _sum_dense(sparse, u, room)
    sums, marks, ids, values = room.sums, room.marks, sparse.ids, sparse.values
    weight_ids, weight_values = sparse.weight_ids, sparse.weight_values
    for n in range(sparse.indptr[u], sparse.indptr[u + 1]):
        j = ids[n]
        value = values[n] if len(values) > 0 else np.float32(1)
        for m in range(sparse.weight_indptr[j], sparse.weight_indptr[j + 1]):
            i = weight_ids[m]
            sums[i] += value * weight_values[m]
            marks[i >> 5] |= np.uint32(1) << np.uint32(i & 31)
    return _take_marked(room)


@jit
def _take_marked(room: Any) -> int:
    sums, marks, ids, values = room.sums, room.marks, room.ids, room.values
    n = 0
    for word in range(len(marks)):
        mask = marks[word]
        if mask == 0:
            continue
        marks[word] = np.uint32(0)
        while mask:
            i = word * 32 + lowest_bit(mask)
            mask &= mask - np.uint32(1)
            if sums[i] != 0:
                ids[n], values[n] = i, sums[i]
                n += 1
            sums[i] = np.float32(0)
    return n


@jit
def _sum_dense(sparse: Any, u: Any, room: Any) -> int:
    sums, weights, values = room.sums, sparse.dense_weights, sparse.values
    for n in range(sparse.indptr[u], sparse.indptr[u + 1]):
        j = sparse.ids[n]
        value = values[n] if len(values) > 0 else np.float32(1)
        for i in range(len(sums)):
            sums[i] += value * weights[j, i]
    n = 0
    for i in range(len(sums)):
        if sums[i] != 0:
            room.ids[n], room.values[n] = i, sums[i]
            n += 1
        sums[i] = np.float32(0)
    return n


@jit
def find(ids: Any, start: Any, stop: Any, i: Any) -> int:
    """Return the place of i among ids[start:stop], which ascend, -1 where it is not there."""
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        if ids[middle] < i:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and ids[low] == i else -1


@jit
def spread(room: Any, n: Any) -> float:
    """Return the standard deviation of the row that the first n entries of the room stand for; see the reference."""
    total, ids, values, lanes = len(room.sums), room.ids, room.values, room.lanes
    if total == 0:
        return 0.0
    for m in range(n):
        lanes[ids[m] & (LANES - 1)] += np.float64(values[m])
    mean = _fold(lanes) / total
    for m in range(n):
        off = np.float64(values[m]) - mean
        lanes[ids[m] & (LANES - 1)] += off * off
    return float(np.sqrt((_fold(lanes) + np.float64(total - n) * (mean * mean)) / total))


@jit
def _fold(lanes: Any) -> float:
    """Return the sum of all lanes, by halves, and clear them."""
    half = len(lanes) // 2
    while half > 0:
        for m in range(half):
            lanes[m] += lanes[m + half]
        half //= 2
    total = lanes[0]
    for m in range(len(lanes)):
        lanes[m] = 0.0
    return float(total)


class Few(NamedTuple):
    """Items and sparse parts of n users.

    Attributes:
        users: int64 [n].
        indptr: int64 [n + 1], where each user's items lie.
        ids: int32, ascending in each user; the excluded are left out.
        values: float32, x of each, not 0.
        codes: int16 [n, width], the users encoded; width 0 where items are not.
        bounds: float64 [n, 3], of each code.
    """

    users: NDArray[np.int64]
    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    codes: NDArray[np.int16]
    bounds: NDArray[np.float64]


class Bounds(NamedTuple):
    """Bounds of the inner products of one user with some of its few; a tuple, because compiled code takes it as it is.

    Attributes:
        centers: float64 [block].
        radii: float64 [block], beyond which the inner product is not off its center, whether rounded or not, and
            whether the sparse part is added or not.
        added: float64 [block], the sparse parts, scaled.
        is_open: bool [block], for the caller.
    """

    centers: NDArray[np.float64]
    radii: NDArray[np.float64]
    added: NDArray[np.float64]
    is_open: NDArray[np.bool_]


def block_items(width: int, n_items: int) -> int:
    """Return the items that are looked at together."""
    return max(1, _BLOCK_BYTES // (2 * width)) if width else max(1, n_items)


@njit(cache=True, nogil=True, error_model="numpy")
def empty_bounds(block: Any) -> Any:
    """Return room for the bounds of a block of items."""
    return Bounds(np.empty(block), np.empty(block), np.empty(block), np.empty(block, np.bool_))


@njit(cache=True, nogil=True, error_model="numpy")
def gather_few(
    problem: Any, users: Any, room: Any, width: Any, sizes: Any, ex_indptr: Any, excluded: Any, ids: Any, values: Any
) -> Any:
    """Return the few of some users; write the scale of standardized scores.

    Args:
        problem: the scores.
        users: int64 [n].
        room: working memory.
        width: of a user's code; 0 where items are not encoded.
        sizes: of the items' columns, float64 [d].
        ex_indptr, excluded: CSR of the excluded items [U, I].
        ids, values: int32 and float32, memory for the few; longer arrays are made where these are too short.
    """
    indptr = np.zeros(len(users) + 1, np.int64)
    codes, bounds = np.zeros((len(users), width), np.int16), np.zeros((len(users), 3))
    for p in range(len(users)):
        u, total = users[p], indptr[p]
        n = sum_row(problem.sparse, u, room)
        if problem.standardize:
            deviation = spread(room, n)
            problem.scale[u] = np.float32(1 / deviation) if deviation > 0 else np.float32(0)
        if total + n > len(ids):
            more_ids, more_values = np.empty(2 * (total + n), np.int32), np.empty(2 * (total + n), np.float32)
            more_ids[:total], more_values[:total] = ids[:total], values[:total]
            ids, values = more_ids, more_values
        indptr[p + 1] = total + _copy_allowed(room, n, excluded[ex_indptr[u] : ex_indptr[u + 1]], ids, values, total)
        if width > 0:
            encode_user(problem.users, u, sizes, codes, bounds, p)
    return Few(users, indptr, ids, values, codes, bounds)


@jit
def _copy_allowed(room: Any, n: Any, excluded: Any, ids: Any, values: Any, start: Any) -> int:
    count, e = 0, 0
    for m in range(n):
        i = room.ids[m]
        while e < len(excluded) and excluded[e] < i:
            e += 1
        if e == len(excluded) or excluded[e] != i:
            ids[start + count], values[start + count] = i, room.values[m]
            count += 1
    return count


@jit
def score_pair(problem: Any, u: Any, i: Any, x: Any) -> np.float32:
    """Return the score of user u and item i, whose sparse part is x; see mixed/scores.py."""
    return np.float32(np.float64(x) * np.float64(problem.scale[u]) + dot_rows(problem.users, u, problem.items, i))


@jit
def part_of(few: Any, p: Any, i: Any) -> np.float32:
    """Return the sparse part of item i, not excluded, for the user in place p."""
    start = few.indptr[p]
    at = find(few.ids, start, few.indptr[p + 1], i)
    return few.values[at] if at >= 0 else np.float32(0)


@jit
def count_below(ids: Any, start: Any, stop: Any, i: Any) -> int:
    """Return how many of ids[start:stop], which ascend, are below i."""
    m = start
    while m < stop and ids[m] < i:
        m += 1
    return int(m - start)


@jit
def bound_few(problem: Any, rows: Any, few: Any, p: Any, m: Any, n: Any, room: Any) -> None:
    """Bound the inner products of the user in place p with n of their few from place m on; see Bounds."""
    scale = np.float64(problem.scale[few.users[p]])
    for t in range(n):
        if t + _AHEAD < n:
            prefetch_row(rows, few.ids[m + t + _AHEAD])
        center, radius = bound_dot(few.codes, few.bounds, p, rows, few.ids[m + t])
        added = np.float64(few.values[m + t]) * scale
        room.centers[t], room.added[t] = center, added
        room.radii[t] = radius + max(abs(center), abs(center + added)) * ROUNDED


@jit
def side_of(center: Any, radius: Any, score: Any) -> int:
    """Return 1 where a float32 score within `radius` of `center` is above `score`, -1 below, 0 where it may be either.

    The margin stands for the rounding of both scores to float32 and of the float64 sums.
    """
    margin = radius + abs(np.float64(score)) * ROUNDED + abs(center) * ROUNDED + LEAST
    if center - margin > score:
        return 1
    return -1 if center + margin < score else 0

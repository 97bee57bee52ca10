"""One user's sparse part at a time: R_u W as ascending ids and values, in memory of the catalogue's size."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.int8_tile import lowest_bit
from mllmrec_kernels.mixed.reference import LANES

_WORD = 32  # items that a word of `marks` stands for


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

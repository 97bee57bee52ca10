"""The distinct ids of a batch, in time that goes with the batch alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def distinct(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(rows, which) with ids = rows[which]; rows in the order in which they are met.

    What np.unique gives with return_inverse, but by a hash table in place of a sort.

    Args:
        ids: int64 [B], any values.

    Returns:
        rows int64 [distinct ids] and which int64 [B].
    """
    rows, which = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    bits = max(1, int(4 * len(ids)).bit_length())  # a table at most half full
    count = _distinct(ids, np.full(1 << bits, -1, np.int32), np.uint64(64 - bits), rows, which)
    return rows[:count], which


@njit(cache=True, nogil=True)
def _distinct(ids: Any, table: Any, shift: Any, rows: Any, which: Any) -> int:
    count, last = 0, len(table) - 1
    for b in range(len(ids)):
        slot = np.int64((np.uint64(ids[b]) * _GOLDEN) >> shift)
        while table[slot] >= 0 and rows[table[slot]] != ids[b]:
            slot = (slot + 1) & last
        if table[slot] < 0:
            table[slot], rows[count] = count, ids[b]
            count += 1
        which[b] = table[slot]
    return count

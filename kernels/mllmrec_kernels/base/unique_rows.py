"""Find the distinct ids of a batch, in time that grows only with the batch."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Int32Array, Int64Array

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def unique_rows(ids: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return (rows, inverse) with ids = rows[inverse]; rows in order of first appearance.

    As np.unique with return_inverse, by a hash table in place of a sort.

    Args:
        ids: int64 [B], any values.

    Returns:
        rows int64 [distinct ids] and inverse int64 [B].
    """
    rows, inverse = np.empty(len(ids), np.int64), np.empty(len(ids), np.int64)
    bits = max(1, int(4 * len(ids)).bit_length())  # a table at most half full
    count = _unique_rows(ids, np.full(1 << bits, -1, np.int32), np.uint64(64 - bits), rows, inverse)
    return rows[:count], inverse


@njit(cache=True, nogil=True)
def _unique_rows(ids: Int64Array, table: Int32Array, shift: np.uint64, rows: Int64Array, inverse: Int64Array) -> int:
    count, last = 0, len(table) - 1
    for b in range(len(ids)):
        slot = np.int64((np.uint64(ids[b]) * _GOLDEN) >> shift)
        while table[slot] >= 0 and rows[table[slot]] != ids[b]:
            slot = (slot + 1) & last
        if table[slot] < 0:
            table[slot], rows[count] = count, ids[b]
            count += 1
        inverse[b] = table[slot]
    return count

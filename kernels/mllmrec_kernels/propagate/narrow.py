"""Multiply a sparse matrix with a narrow float64 table, on all threads.

SciPy adds one entry after the other to a row of the result. So does this, in the same order, and rounds each product
before it is added. So the bits are the same, for any number of threads. The rows that come next are fetched meanwhile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import prefetch
from mllmrec_kernels.base.parallel import chunks, parallel_for

_ROWS = 1 << 12  # of one piece of work
_LINE = 8  # numbers of a cache line
_AHEAD = 24  # entries between the one that is added and the one that is fetched
Table = NDArray[np.float64]


def multiply_narrow(
    indptr: NDArray[np.integer], indices: NDArray[np.integer], values: NDArray[np.float64], table: Table
) -> Table:
    """Return the product, float64 [R, b].

    Args:
        indptr: [R + 1], where the entries of each row lie.
        indices: the column of each entry, below C.
        values: float64, of each entry.
        table: float64 [C, b].
    """
    out, rows = np.zeros((len(indptr) - 1, table.shape[1])), np.ascontiguousarray(table)

    def _work(start: int, stop: int) -> None:
        _add_rows(indptr, indices, values, rows, start, stop, out)

    parallel_for(_work, chunks(len(out), _ROWS))
    return out


@njit(cache=True, nogil=True)
def _add_rows(indptr: Any, indices: Any, values: Any, table: Any, start: Any, stop: Any, out: Any) -> None:
    width, last = table.shape[1], len(indices) - 1
    flat = table.reshape(table.size)
    for r in range(start, stop):
        for n in range(indptr[r], indptr[r + 1]):
            ahead = indices[min(n + _AHEAD, last)] * width
            for line in range(0, width, _LINE):
                prefetch(flat, ahead + line)
            value, column = values[n], indices[n]
            for j in range(width):
                out[r, j] += value * table[column, j]

"""Weighted sums of sparse matrices whose rows ascend, a row at a time: no array beside the matrices and their sum.

    S = sum over k of c_k W_k    products in float32, added in float64 in the order of k, rounded once to float32

Entries whose sum is 0 are left out. So scipy's sum in float64, converted, has the same bits and takes three times
the memory. Rows are counted first and then written, each by one thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import chunks, parallel_for

_ROWS = 1 << 10  # of one piece of work


def weighted_sum(parts: Sequence[tuple[float, CSR]]) -> CSR:
    """Return S of the module.

    Args:
        parts: c_k and W_k [R, C], at least one.

    Raises:
        KernelInputError: there are none, or their shapes differ.
    """
    shapes = {W.shape for _, W in parts}
    if len(shapes) != 1:
        raise KernelInputError(f"a sum takes matrices of one shape; got {sorted(shapes)}")
    ((n_rows, n_columns),) = shapes
    matrices = tuple((_writable(W.indptr), _writable(W.indices), _writable(W.values())) for _, W in parts)
    shares, places = np.array([share for share, _ in parts], np.float32), np.zeros(n_rows + 1, np.int64)
    none = np.zeros(0, np.int32), np.zeros(0, np.float32)
    parallel_for(lambda start, stop: _add_rows(matrices, shares, start, stop, places, *none), chunks(n_rows, _ROWS))
    indptr = np.cumsum(places)
    ids, values = np.empty(indptr[-1], np.int32), np.empty(indptr[-1], np.float32)
    parallel_for(
        lambda start, stop: _add_rows(matrices, shares, start, stop, indptr, ids, values), chunks(n_rows, _ROWS)
    )
    return CSR(indptr, ids, values, n_columns)


def _writable(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array, or a copy of one that is read-only: for Numba that is another type, and a loop takes one."""
    return array if array.flags.writeable else array.copy()


@njit(cache=True, nogil=True)
def _add_rows(matrices: Any, shares: Any, start: Any, stop: Any, indptr: Any, ids: Any, values: Any) -> None:
    """Write the rows of the sum to their places; without memory for them, their lengths to indptr[row + 1]."""
    cursors, ends = np.zeros(len(shares), np.int64), np.zeros(len(shares), np.int64)
    for r in range(start, stop):
        for k in range(len(shares)):
            cursors[k], ends[k] = matrices[k][0][r], matrices[k][0][r + 1]
        n, at = 0, indptr[r]
        while True:
            i = _next_column(matrices, cursors, ends)
            if i < 0:
                break
            total = _add_column(matrices, shares, cursors, ends, i)
            if total == 0:
                continue
            if len(ids) > 0:
                ids[at + n], values[at + n] = i, np.float32(total)
            n += 1
        if len(ids) == 0:
            indptr[r + 1] = n


@jit
def _next_column(matrices: Any, cursors: Any, ends: Any) -> int:
    """Return the lowest column that a cursor stands at; -1 if all are at their end."""
    lowest = -1
    for k in range(len(cursors)):
        if cursors[k] < ends[k]:
            i = matrices[k][1][cursors[k]]
            if lowest < 0 or i < lowest:
                lowest = i
    return lowest


@jit
def _add_column(matrices: Any, shares: Any, cursors: Any, ends: Any, i: Any) -> float:
    """Return the sum in column i, and move the cursors that stand there."""
    total = 0.0
    for k in range(len(cursors)):
        if cursors[k] < ends[k] and matrices[k][1][cursors[k]] == i:
            total += np.float64(np.float32(matrices[k][2][cursors[k]] * shares[k]))
            cursors[k] += 1
    return total

"""The largest stored entries of each row of a sparse matrix, without sorting the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.parallel import chunks, parallel_for

_ROWS = 256  # of one piece of work


def largest_entries(indptr: NDArray[np.int64], values: NDArray[np.float32], k: int) -> NDArray[np.bool_]:
    """Return which entries are among the k largest of their row by absolute value; of equal ones the first.

    Args:
        indptr: int64 [R + 1], where each row's entries lie.
        values: float32 [nnz], finite.
        k: entries per row, at least 1.

    Returns:
        bool [nnz].
    """
    kept = np.ones(len(values), np.bool_)
    parallel_for(
        lambda start, stop: _mark(indptr[start : stop + 1], values, k, kept),
        chunks(len(indptr) - 1, _ROWS),
    )
    return kept


@njit(cache=True, nogil=True)
def _mark(indptr: Any, values: Any, k: Any, kept: Any) -> None:
    for r in range(len(indptr) - 1):
        first, last = indptr[r], indptr[r + 1]
        if last - first <= k:
            continue
        sizes = np.abs(values[first:last])
        least = np.partition(sizes, len(sizes) - k)[len(sizes) - k]  # the k-th largest
        equal = k - np.sum(sizes > least)
        for n in range(len(sizes)):
            is_equal = sizes[n] == least
            kept[first + n] = sizes[n] > least or (is_equal and equal > 0)
            equal -= is_equal

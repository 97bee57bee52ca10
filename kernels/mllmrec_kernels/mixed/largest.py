"""The largest entries of each row, without a sort: of a stored matrix, or of X^T X, which is not formed."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.mixed.gram import USERS, GramFactor, Pieces, join_pieces

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


def nearest_by_gram(factor: GramFactor, k: int) -> CSR:
    """Return the k largest entries above 0 of each row of X^T X, float32 [I, I]; of equal ones the lower ids.

    The diagonal is left out. Sums are float64, rows of X ascending, and rounded once to float32.

    Args:
        factor: X, without negative values.
        k: entries per row, at least 1.
    """
    n_items = len(factor.column_indptr) - 1
    pieces: Pieces = {}

    def _work(start: int, stop: int) -> None:
        pieces[start] = _nearest(factor, k, start, stop)

    parallel_for(_work, chunks(n_items, USERS))
    return join_pieces(pieces, n_items)


@njit(cache=True, nogil=True)
def _nearest(factor: Any, k: Any, start: Any, stop: Any) -> Any:
    n_items = len(factor.column_indptr) - 1
    sums, seen = np.zeros(n_items), np.zeros(n_items, np.bool_)
    touched, counts = np.empty(n_items, np.int32), np.zeros(stop - start, np.int64)
    ids, values, total = np.empty((stop - start) * k, np.int32), np.empty((stop - start) * k, np.float32), 0
    for i in range(start, stop):
        n = 0
        for e in range(factor.column_indptr[i], factor.column_indptr[i + 1]):
            v, share = factor.rows[e], factor.column_values[e]
            for m in range(factor.indptr[v], factor.indptr[v + 1]):
                j = factor.ids[m]
                sums[j] += share * factor.values[m]
                if not seen[j]:
                    seen[j], touched[n] = True, j
                    n += 1
        sums[i] = 0.0
        kept = _largest(sums, touched[:n], k)
        for j in kept:
            ids[total], values[total] = j, np.float32(sums[j])
            total += 1
        counts[i - start] = len(kept)
        for t in range(n):
            sums[touched[t]], seen[touched[t]] = 0.0, False
    return counts, ids[:total].copy(), values[:total].copy()


@njit(cache=True, nogil=True)
def _largest(sums: Any, touched: Any, k: Any) -> Any:
    """Return the items of the k largest sums above 0, ascending; of equal sums the lower ids."""
    found = touched[sums[touched] > 0]
    if len(found) > k:
        last = np.partition(sums[found], len(found) - k)[len(found) - k]
        above, equal = found[sums[found] > last], np.sort(found[sums[found] == last])
        found = np.concatenate((above, equal[: k - len(above)]))
    return np.sort(found)

"""The largest entries of each row of X^T X or of A B + o A, or of each column of A, without a sort.

Neither product is formed, and A is not transposed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.exact.problem import push, sort_heaps
from mllmrec_kernels.mixed.gram import USERS, GramFactor, Pieces, join_pieces

_ROWS = 64  # of one piece of work
_COLUMNS = 1 << 14  # of one piece of work: their lists stay in a core's cache


def largest_of_product(left: CSR, right: CSR, shares: Sequence[float], k: int) -> list[CSR]:
    """Return the k largest entries by absolute value of each row of A B + o A, for each o; of equal ones the first.

    Products and sums are float32, the columns of A ascending, as scipy's are. Entries of 0 are left out.

    Args:
        left: A, [J, I].
        right: B, [I, I].
        shares: o of each result.
        k: entries per row, at least 1.

    Returns:
        float32 [J, I] for each o.
    """
    found: list[Pieces] = [{} for _ in shares]
    scales = np.array(shares, np.float32)
    arrays = left.indptr, left.indices, left.values(), right.indptr, right.indices, right.values()

    def _work(start: int, stop: int) -> None:
        room, counts = (len(shares), (stop - start) * k), np.zeros((len(shares), stop - start), np.int64)
        ids, values = np.empty(room, np.int32), np.empty(room, np.float32)
        _multiply(*arrays, scales, k, start, stop, counts, ids, values)
        for n, pieces in enumerate(found):
            total = int(counts[n].sum())
            pieces[start] = counts[n], ids[n, :total].copy(), values[n, :total].copy()

    parallel_for(_work, chunks(left.n_rows, _ROWS))
    return [join_pieces(pieces, right.n_columns) for pieces in found]


@njit(cache=True, nogil=True)
def _multiply(
    indptr: Any, columns: Any, weights: Any, right_indptr: Any, right_ids: Any, right_values: Any, shares: Any, k: Any,
    start: Any, stop: Any, counts: Any, ids: Any, values: Any,
) -> None:  # fmt: skip
    n_items = len(right_indptr) - 1
    sums, own, seen = np.zeros(n_items, np.float32), np.zeros(n_items, np.float32), np.zeros(n_items, np.bool_)
    touched, row, totals = np.empty(n_items, np.int32), np.empty(n_items, np.float32), np.zeros(len(shares), np.int64)
    for j in range(start, stop):
        n = 0
        for e in range(indptr[j], indptr[j + 1]):
            i, weight = columns[e], weights[e]
            own[i] = weight
            n = _touch(i, seen, touched, n)
            for m in range(right_indptr[i], right_indptr[i + 1]):
                sums[right_ids[m]] += weight * right_values[m]
                n = _touch(right_ids[m], seen, touched, n)
        found = np.sort(touched[:n])
        for s in range(len(shares)):
            for t in range(n):
                row[t] = sums[found[t]] + shares[s] * own[found[t]]
            count = _keep(found, row[:n], k, ids[s, totals[s] :], values[s, totals[s] :])
            counts[s, j - start] = count
            totals[s] += count
        for t in range(n):
            sums[found[t]], own[found[t]], seen[found[t]] = 0.0, 0.0, False


@njit(cache=True, nogil=True)
def _touch(i: Any, seen: Any, touched: Any, n: Any) -> int:
    """Note that column i has an entry; return how many columns have one."""
    if seen[i]:
        return int(n)
    seen[i], touched[n] = True, i
    return int(n + 1)


@njit(cache=True, nogil=True)
def _keep(found: Any, row: Any, k: Any, ids: Any, values: Any) -> int:
    """Write the k largest entries of a row by absolute value, other than 0; return how many they are."""
    least, equal = np.float32(0), len(row)
    sizes = np.abs(row)
    if np.sum(sizes > 0) > k:
        least = np.partition(sizes, len(sizes) - k)[len(sizes) - k]  # the k-th largest
        equal = k - np.sum(sizes > least)
    count = 0
    for t in range(len(row)):
        is_equal = sizes[t] == least
        if sizes[t] > 0 and (sizes[t] > least or (is_equal and equal > 0)):
            ids[count], values[count] = found[t], row[t]
            count += 1
            equal -= is_equal
    return count


def largest_of_columns(matrix: CSR, k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return the k largest entries above 0 of each column, largest first; of equal ones the lower rows first.

    Args:
        matrix: A, [J, I].
        k: entries per column, at least 1.

    Returns:
        rows int32 [I, k], padded with -1, and entries float32 [I, k], padded with -inf.
    """
    ids = np.full((matrix.n_columns, k), -1, np.int32)
    values = np.full(ids.shape, -np.inf, np.float32)
    sizes = np.zeros(matrix.n_columns, np.int64)
    arrays = matrix.indptr, matrix.indices, matrix.values()
    parallel_for(
        lambda start, stop: _offer_columns(*arrays, start, stop, ids, values, sizes), chunks(len(sizes), _COLUMNS)
    )
    sort_heaps(ids, values, sizes)
    return ids, values


@njit(cache=True, nogil=True)
def _offer_columns(
    indptr: Any, columns: Any, entries: Any, start: Any, stop: Any, ids: Any, values: Any, sizes: Any
) -> None:
    """Offer the entries of columns start to stop to the heap of each."""
    k = ids.shape[1]
    for j in range(len(indptr) - 1):
        row = columns[indptr[j] : indptr[j + 1]]
        first = np.searchsorted(row, start)
        for m in range(first, len(row)):
            i, entry = row[m], entries[indptr[j] + m]
            if i >= stop:
                break
            if entry > 0 and (sizes[i] < k or entry > values[i, 0]):  # a later row goes after an equal entry
                sizes[i] = push(ids, values, i, sizes[i], k, entry, j)


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

"""Scores R_u X^T X by a sparse X, without the matrix X^T X.

    a_v = sum over the entries j of R_u of X[v, j]        float64, j ascending, v ascending
    s_i = sum over the v that were met of a_v X[v, i]     float64, the v met last first; rounded once to float32

The orders are those of scipy's products, so (R_u X^T) X by scipy has the same bits. A user's sums stand in one array
of I numbers. Bytes of a thread: 8 I + 13 V. Work: for user u the entries of the rows of X that share a column with R_u.

These rows are short and lie anywhere in memory. Where X^T X is small, it is multiplied out (`scoring_factor`): a user
then adds a long row per item, which takes a sixth of the time. Sums may differ in the last bit of float64.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.jit import jit, prefetch
from mllmrec_kernels.base.parallel import chunks, parallel_for

USERS = 256  # or items, of one piece of work
_AHEAD = 4  # rows that are prefetched: they lie anywhere in memory
_LINES = 2  # cache lines of a row's ids and of its values
_FIRST_ROOM = 2**14
_MOST_STEPS = 1 << 25  # of X^T X; it has at most as many entries, of 12 bytes each
Pieces = dict[int, tuple[Any, Any, Any]]


class GramFactor(NamedTuple):
    """X by rows and by columns; a tuple, because compiled code takes it as it is.

    Attributes:
        indptr, ids, values: X [V, I] by rows, float64; of `scoring_factor` perhaps X^T X [I, I].
        column_indptr, rows, column_values: the same by columns, rows ascending; beside X^T X the identity.
    """

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    values: NDArray[np.float64]
    column_indptr: NDArray[np.int64]
    rows: NDArray[np.int32]
    column_values: NDArray[np.float64]


def gram_factor(X: sp.csr_array) -> GramFactor:
    """Return X [V, I] as the verbs of this file take it.

    Raises:
        KernelInputError: a value is NaN or infinite.
    """
    by_row, by_column = X.tocsr(), X.T.tocsr()
    if not np.isfinite(by_row.data).all():
        raise KernelInputError("X must be finite")
    parts: list[Any] = []
    for matrix in (by_row, by_column):
        parts += [matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float64)]
    return GramFactor(*parts)


def scoring_factor(X: sp.csr_array) -> GramFactor:
    """Return X [V, I] as scores and ranks take it fastest: X^T X multiplied out, where that is small.

    Raises:
        KernelInputError: a value is NaN or infinite.
    """
    factor = gram_factor(X)
    if (np.diff(factor.indptr) ** 2).sum() > _MOST_STEPS:
        return factor
    n_items = X.shape[1]
    product, every = sp.csr_array(X.T.tocsr() @ X.tocsr()), np.arange(n_items + 1)
    return GramFactor(
        product.indptr.astype(np.int64), product.indices.astype(np.int32), product.data,
        every, every[:-1].astype(np.int32), np.ones(n_items),
    )  # fmt: skip


def score_by_gram(factor: GramFactor, user_items: CSR) -> CSR:
    """Return R X^T X of some users, sparse float32 [B, I]; entries of 0 are left out.

    Args:
        factor: X.
        user_items: R, binary [B, I].
    """
    pieces: Pieces = {}

    def _work(start: int, stop: int) -> None:
        pieces[start] = _sum_users(factor, user_items.indptr, user_items.indices, start, stop)

    parallel_for(_work, chunks(user_items.n_rows, USERS))
    return join_pieces(pieces, user_items.n_columns)


def join_pieces(pieces: Pieces, n_columns: int) -> CSR:
    """Return entries per row, columns and values of consecutive pieces as one matrix; pieces are by their start."""
    counts, ids, values = zip(*(pieces[start] for start in sorted(pieces)), strict=True) if pieces else ((), (), ())
    indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))
    columns = np.concatenate([np.zeros(0, np.int32), *ids])
    return CSR(indptr, columns, np.concatenate([np.zeros(0, np.float32), *values]), n_columns)


@jit
def _meet_rows(factor: Any, columns: Any, shares: Any, is_met: Any, met: Any) -> int:
    """Set `shares` to a of one user; return how many rows share a column, which `met` names.

    `shares` holds 0 and `is_met` False before, and again after the rows are added.
    """
    n = 0
    for c in range(len(columns)):
        j = columns[c]
        for m in range(factor.column_indptr[j], factor.column_indptr[j + 1]):
            v = factor.rows[m]
            shares[v] += factor.column_values[m]
            met[n] = v
            n += not is_met[v]
            is_met[v] = True
    return n


@jit
def _prefetch_rows(factor: Any, met: Any, p: Any) -> None:
    if p >= 2 * _AHEAD:
        prefetch(factor.indptr, met[p - 2 * _AHEAD])
    if p >= _AHEAD:
        start = factor.indptr[met[p - _AHEAD]]
        for line in range(_LINES):
            prefetch(factor.ids, start + 16 * line)
            prefetch(factor.values, start + 8 * line)


@jit
def _add_rows(factor: Any, met: Any, shares: Any, is_met: Any, sums: Any) -> None:
    """Add s of one user to `sums`."""
    for p in range(len(met) - 1, -1, -1):
        _prefetch_rows(factor, met, p)
        v = met[p]
        share = shares[v]
        for m in range(factor.indptr[v], factor.indptr[v + 1]):
            sums[factor.ids[m]] += share * factor.values[m]
        shares[v], is_met[v] = 0.0, False


@njit(cache=True, nogil=True)
def _sum_users(factor: Any, indptr: Any, columns: Any, start: Any, stop: Any) -> Any:
    n_rows, n_items = len(factor.indptr) - 1, len(factor.column_indptr) - 1
    shares, is_met, sums = np.zeros(n_rows), np.zeros(n_rows, np.bool_), np.zeros(n_items)
    met = np.empty(n_rows + 1, np.int32)  # one is written before it is known to be new
    counts, total = np.zeros(stop - start, np.int64), 0
    ids, values = np.empty(_FIRST_ROOM, np.int32), np.empty(_FIRST_ROOM, np.float32)
    for u in range(start, stop):
        n = _meet_rows(factor, columns[indptr[u] : indptr[u + 1]], shares, is_met, met)
        _add_rows(factor, met[:n], shares, is_met, sums)
        if total + n_items > len(ids):
            more_ids, more_values = (
                np.empty(2 * (total + n_items), np.int32),
                np.empty(2 * (total + n_items), np.float32),
            )
            more_ids[:total], more_values[:total] = ids[:total], values[:total]
            ids, values = more_ids, more_values
        before = total
        for i in range(n_items):
            if sums[i] != 0:
                ids[total], values[total] = i, np.float32(sums[i])
                total += 1
                sums[i] = 0.0
        counts[u - start] = total - before
    return counts, ids[:total].copy(), values[:total].copy()

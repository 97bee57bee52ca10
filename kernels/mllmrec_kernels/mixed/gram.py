"""Scores R_u X^T X by a sparse X, and ranks by them, without the matrix X^T X or an array of users x items.

    a_v = sum over the entries j of R_u of X[v, j]        float64, j ascending, v ascending
    s_i = sum over the v that were met of a_v X[v, i]     float64, the v met last first; rounded once to float32

The orders are those of scipy's products, so (R_u X^T) X by scipy has the same bits. A user's sums stand in one array
of I numbers, which counting a rank reads from end to end. Bytes of a thread: 8 I + 12 V. Work: for user u the entries
of the rows of X that share a column with R_u.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import chunks, parallel_for

_USERS = 256  # of one piece of work
_FIRST_ROOM = 2**14


class GramFactor(NamedTuple):
    """X by rows and by columns; a tuple, because compiled code takes it as it is.

    Attributes:
        indptr, ids, values: X [V, I] by rows, float64.
        column_indptr, rows, column_values: the same by columns, rows ascending.
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


def score_by_gram(factor: GramFactor, user_items: CSR) -> CSR:
    """Return R X^T X of some users, sparse float32 [B, I]; entries of 0 are left out.

    Args:
        factor: X.
        user_items: R, binary [B, I].
    """
    pieces: dict[int, tuple[Any, Any, Any]] = {}

    def _work(start: int, stop: int) -> None:
        pieces[start] = _sum_users(factor, user_items.indptr, user_items.indices, start, stop)

    parallel_for(_work, chunks(user_items.n_rows, _USERS))
    counts, ids, values = zip(*(pieces[start] for start in sorted(pieces)), strict=True) if pieces else ((), (), ())
    indptr = np.cumsum(np.concatenate([np.zeros(1, np.int64), *counts]))
    none = np.zeros(0, np.int32), np.zeros(0, np.float32)
    return CSR(
        indptr, np.concatenate([none[0], *ids]), np.concatenate([none[1], *values]), user_items.n_columns
    )  # fmt: skip


def rank_by_gram(factor: GramFactor, user_items: CSR, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item by R X^T X, as rank_heldout counts it.

    Args:
        factor: X.
        user_items: R, binary [B, I].
        exclude: [B, I], items that are not ranked, disjoint from `heldout`.
        heldout: [B, I], items to rank; of equal scores the lower id ranks first.

    Returns:
        int32 [heldout.nnz].
    """
    ranks, users = np.zeros(heldout.nnz, np.int32), np.flatnonzero(np.diff(heldout.indptr))

    def _work(start: int, stop: int) -> None:
        _rank_users(
            factor, user_items.indptr, user_items.indices, users[start:stop], exclude.indptr, exclude.indices,
            heldout.indptr, heldout.indices, ranks,
        )  # fmt: skip

    parallel_for(_work, chunks(len(users), _USERS))
    return ranks


@jit
def _add_user(factor: Any, columns: Any, shares: Any, link: Any, sums: Any) -> None:
    """Add s of one user to `sums`; `shares` holds 0 and `link` -1 before and after."""
    head = -2  # ends the chain of rows that were met
    for n in range(len(columns)):
        j = columns[n]
        for m in range(factor.column_indptr[j], factor.column_indptr[j + 1]):
            v = factor.rows[m]
            shares[v] += factor.column_values[m]
            if link[v] == -1:
                link[v] = head
                head = v
    while head != -2:
        share = shares[head]
        for m in range(factor.indptr[head], factor.indptr[head + 1]):
            sums[factor.ids[m]] += share * factor.values[m]
        following = link[head]
        shares[head], link[head] = 0.0, -1
        head = following


@njit(cache=True, nogil=True)
def _sum_users(factor: Any, indptr: Any, columns: Any, start: Any, stop: Any) -> Any:
    n_rows, n_items = len(factor.indptr) - 1, len(factor.column_indptr) - 1
    shares, link, sums = np.zeros(n_rows), np.full(n_rows, -1, np.int32), np.zeros(n_items)
    counts, total = np.zeros(stop - start, np.int64), 0
    ids, values = np.empty(_FIRST_ROOM, np.int32), np.empty(_FIRST_ROOM, np.float32)
    for u in range(start, stop):
        _add_user(factor, columns[indptr[u] : indptr[u + 1]], shares, link, sums)
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


@njit(cache=True, nogil=True)
def _rank_users(
    factor: Any, indptr: Any, columns: Any, users: Any, ex_indptr: Any, excluded: Any, held_indptr: Any, heldout: Any,
    ranks: Any,
) -> None:  # fmt: skip
    n_rows, n_items = len(factor.indptr) - 1, len(factor.column_indptr) - 1
    shares, link, sums = np.zeros(n_rows), np.full(n_rows, -1, np.int32), np.zeros(n_items)
    scores = np.empty(n_items, np.float32)
    for u in users:
        _add_user(factor, columns[indptr[u] : indptr[u + 1]], shares, link, sums)
        for i in range(n_items):
            scores[i], sums[i] = np.float32(sums[i]), 0.0
        for h in range(held_indptr[u], held_indptr[u + 1]):
            ranks[h] = _count_ahead(scores, heldout[h], excluded[ex_indptr[u] : ex_indptr[u + 1]])


@jit
def _count_ahead(scores: Any, item: Any, excluded: Any) -> np.int32:
    score, ahead = scores[item], np.int32(0)
    for i in range(item):
        ahead += np.int32(scores[i] >= score)
    for i in range(item + 1, len(scores)):
        ahead += np.int32(scores[i] > score)
    for e in excluded:
        ahead -= np.int32(scores[e] > score or (scores[e] == score and e < item))
    return ahead

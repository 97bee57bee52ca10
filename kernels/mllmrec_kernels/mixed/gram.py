"""Scores R_u X^T X by a sparse X, and ranks by them, without the matrix X^T X or an array of users x items.

    a_v = sum over the entries j of R_u of X[v, j]        float64, j ascending, v ascending
    s_i = sum over the v that were met of a_v X[v, i]     float64, the v met last first; rounded once to float32

The orders are those of scipy's products, so (R_u X^T) X by scipy has the same bits. A user's sums stand in one array
of I numbers. A rank counts the items that were added to, and all others are 0. A user of many additions has all items
counted instead: a pass over the array is cheaper than a list of its entries. Bytes of a thread: 17 I + 13 V. Work: for
user u the entries of the rows of X that share a column with R_u.

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
_ADDITIONS = 8  # of a user: from I over so many on, all items are counted
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

    parallel_for(_work, chunks(len(users), USERS))
    return ranks


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
def _count_additions(factor: Any, met: Any) -> int:
    total = 0
    for p in range(len(met)):
        total += factor.indptr[met[p] + 1] - factor.indptr[met[p]]
    return int(total)


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
def _add_rows(factor: Any, met: Any, shares: Any, is_met: Any, sums: Any, seen: Any, touched: Any) -> int:
    """Add s of one user to `sums`; return how many items were added to, which `touched` names and `seen` marks."""
    count = 0
    for p in range(len(met) - 1, -1, -1):
        _prefetch_rows(factor, met, p)
        v = met[p]
        share = shares[v]
        for m in range(factor.indptr[v], factor.indptr[v + 1]):
            i = factor.ids[m]
            sums[i] += share * factor.values[m]
            touched[count] = i
            count += not seen[i]
            seen[i] = True
        shares[v], is_met[v] = 0.0, False
    return count


@jit
def _add_many_rows(factor: Any, met: Any, shares: Any, is_met: Any, sums: Any) -> None:
    """Add s of one user to `sums`, in the order of `_add_rows`, without a list of the items that were added to."""
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
        _add_many_rows(factor, met[:n], shares, is_met, sums)
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
    shares, is_met, sums = np.zeros(n_rows), np.zeros(n_rows, np.bool_), np.zeros(n_items)
    met = np.empty(n_rows + 1, np.int32)  # one is written before it is known to be new, as in `touched`
    seen, touched = np.zeros(n_items, np.bool_), np.empty(n_items + 1, np.int32)
    scores = np.empty(n_items, np.float32)
    for u in users:
        n_met = _meet_rows(factor, columns[indptr[u] : indptr[u + 1]], shares, is_met, met)
        counts_all = _count_additions(factor, met[:n_met]) >= n_items // _ADDITIONS
        if counts_all:
            _add_many_rows(factor, met[:n_met], shares, is_met, sums)
            _round(sums, scores)
            n = 0
        else:
            n = _add_rows(factor, met[:n_met], shares, is_met, sums, seen, touched)
            for t in range(n):
                scores[t] = np.float32(sums[touched[t]])
        for h in range(held_indptr[u], held_indptr[u + 1]):
            i = heldout[h]
            score = np.float32(sums[i])
            if counts_all:
                ahead = _count_all_ahead(scores, i, score)
            else:
                ahead = _count_ahead(touched[:n], scores, i, score, n_items)
            for e in excluded[ex_indptr[u] : ex_indptr[u + 1]]:
                other = np.float32(sums[e])
                ahead -= np.int32(other > score or (other == score and e < i))
            ranks[h] = ahead
        if counts_all:
            sums[:] = 0.0
        for t in range(n):
            sums[touched[t]], seen[touched[t]] = 0.0, False


@jit
def _round(sums: Any, scores: Any) -> None:
    for i in range(len(sums)):
        scores[i] = np.float32(sums[i])


@jit
def _count_all_ahead(scores: Any, item: Any, score: Any) -> np.int32:
    """Count the items ahead of `item` among all."""
    ahead = np.int32(0)
    for i in range(item):
        ahead = np.int32(ahead + np.int32(scores[i] >= score))
    for i in range(item, len(scores)):
        ahead = np.int32(ahead + np.int32(scores[i] > score))
    return ahead


@jit
def _count_ahead(touched: Any, scores: Any, item: Any, score: Any, n_items: Any) -> np.int32:
    """Count the items ahead of `item`: among the touched ones by their scores, and those of score 0."""
    ahead, below = np.int32(0), np.int32(0)
    for t in range(len(touched)):
        is_below = np.int32(touched[t] < item)
        ahead += np.int32(scores[t] > score) + np.int32(scores[t] == score) * is_below
        below += is_below
    if score < 0:
        ahead += np.int32(n_items - len(touched))
    elif score == 0:
        ahead += np.int32(item) - below
    return ahead

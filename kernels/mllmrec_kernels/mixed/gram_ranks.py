"""Ranks by R_u X^T X: P = X^T X is multiplied out for a tile of items at a time, and never stands whole in memory.

Where the users of an item are many, most of P's rows are long: a user adds a row per item, of entries side by side. By
X^T and X (gram.py) the same sums take the rows of all who share an item, which lie anywhere in memory. At 1,000,000
users of 16 items among 200,000 that takes six times as long.

    s_h   the score of each held-out item, from its own row of P, for P is symmetric; all rows once
    rank  tile by tile the items of higher score, and of equal score and lower id; excluded items do not count

The count only grows. So a user whose counts all reach `limit` is left out of the tiles that follow. Sums are float64,
items of a user last first, and are rounded once to float32. Entries of P are sums over users in rising order, as
scipy's are. Bytes: 24 an entry of a tile; of a thread 16 an item of a tile, 8 an item in the first pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import jit, prefetch
from mllmrec_kernels.base.parallel import Span, chunks, parallel_for
from mllmrec_kernels.mixed.gram import USERS, GramFactor

_ITEMS = 64  # held-out items of one piece of work
_WIDTH = 1 << 14  # items of a tile, at most: their sums stay in a core's cache
_ENTRIES = 1 << 23  # of a tile, at most
_REPORTED = 1 << 16  # users between two reports
_FEW = 4  # items of a pass over the whole tile that take the time of one listed addition
_LINES = 2  # cache lines that are prefetched of a row's ids and of its values


class _Tile(NamedTuple):
    """Columns of P; a tuple, because compiled code takes it as it is.

    Attributes:
        indptr, ids, values: by rows, ids from 0 on, float64 [I, stop - start].
        start, stop: the columns.
    """

    indptr: NDArray[np.int32]
    ids: NDArray[np.int32]
    values: NDArray[np.float64]
    start: int
    stop: int


def rank_by_gram(
    factor: GramFactor,
    user_items: CSR,
    exclude: CSR,
    heldout: CSR,
    *,
    limit: int | None = None,
    report: Callable[[int], object] | None = None,
) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item by R X^T X, as rank_heldout counts it.

    Args:
        factor: X.
        user_items: R, binary [B, I].
        exclude: [B, I], items that are not ranked, disjoint from `heldout`.
        heldout: [B, I], items to rank; of equal scores the lower id ranks first.
        limit: ranks of `limit` or more may come out as any number from `limit` on; None: all are counted.
        report: takes the number of users done, parts of users included.

    Returns:
        int32 [heldout.nnz].
    """
    ranks, users = np.zeros(heldout.nnz, np.int32), np.flatnonzero(np.diff(heldout.indptr))
    scores, spans = _score_heldout(factor, user_items, heldout), _tile_spans(factor)
    farthest, n_users = user_items.n_columns + 1, len(users)
    most = np.int32(farthest if limit is None else min(limit, farthest))
    for n, tile in enumerate(_tiles(factor, spans if n_users else [])):

        def _work(start: int, stop: int, users: NDArray[np.int64] = users, tile: _Tile = tile) -> None:
            _rank_users(tile, users[start:stop], user_items.indptr, user_items.indices, exclude.indptr, exclude.indices,
                        heldout.indptr, heldout.indices, scores, ranks, most)  # fmt: skip

        for first, last in chunks(len(users), _REPORTED):
            parallel_for(_work, [(first + start, first + stop) for start, stop in chunks(last - first, USERS)])
            if report:
                report(n_users - len(users) + (len(users) * n + last) // len(spans))
        users = users[np.logical_or.reduceat(ranks < most, heldout.indptr[users])]
        if not len(users):
            break  # the other tiles need not be multiplied out
    if report:
        report(n_users)
    return ranks


def _score_heldout(factor: GramFactor, user_items: CSR, heldout: CSR) -> NDArray[np.float32]:
    """Return the score of each held-out item, float32 [heldout.nnz]: item by item, each for its users."""
    scores, order = np.empty(heldout.nnz, np.float32), np.argsort(heldout.indices, kind="stable")
    items, starts = np.unique(heldout.indices[order], return_index=True)
    bounds, owners = np.append(starts, heldout.nnz), heldout.rows()

    def _work(start: int, stop: int) -> None:
        _score_items(factor, items[start:stop], bounds[start : stop + 1], order, owners, user_items.indptr,
                     user_items.indices, scores)  # fmt: skip

    parallel_for(_work, chunks(len(items), _ITEMS))
    return scores


def _tile_spans(factor: GramFactor) -> list[Span]:
    """Return the columns of each tile: at most _WIDTH, and of at most _ENTRIES entries unless one has more."""
    n_items = len(factor.column_indptr) - 1
    steps = np.concatenate([[0], np.cumsum(np.diff(factor.indptr)[factor.rows])])[factor.column_indptr]
    entries = np.concatenate([[0], np.cumsum(np.minimum(np.diff(steps), n_items))])
    spans, start = list[Span](), 0
    while start < n_items:
        stop = int(np.searchsorted(entries, entries[start] + _ENTRIES, side="right")) - 1
        stop = min(max(stop, start + 1), start + _WIDTH, n_items)
        spans.append((start, stop))
        start = stop
    return spans


def _tiles(factor: GramFactor, spans: list[Span]) -> Iterator[_Tile]:
    """Give the columns of P, tile by tile. They are rows of P, transposed."""
    n_rows, n_items = len(factor.indptr) - 1, len(factor.column_indptr) - 1
    by_row = sp.csr_array((factor.values, factor.ids, factor.indptr), shape=(n_rows, n_items))
    for start, stop in spans:
        first, last = factor.column_indptr[start], factor.column_indptr[stop]
        indptr = factor.column_indptr[start : stop + 1] - first
        own = (factor.column_values[first:last], factor.rows[first:last], indptr)
        product = (sp.csr_array(own, shape=(stop - start, n_rows)) @ by_row).T.tocsr()
        yield _Tile(product.indptr.astype(np.int32), product.indices.astype(np.int32), product.data, start, stop)


@njit(cache=True, nogil=True)
def _score_items(
    factor: Any, items: Any, bounds: Any, order: Any, owners: Any, indptr: Any, columns: Any, scores: Any
) -> None:
    """Score items for the users who hold them out: entries order[bounds[n]:bounds[n + 1]] for items[n]."""
    sums = np.zeros(len(factor.column_indptr) - 1)
    for n in range(len(items)):
        _add_row(factor, items[n], sums)
        for entry in order[bounds[n] : bounds[n + 1]]:
            u, score = owners[entry], 0.0
            for c in range(indptr[u + 1] - 1, indptr[u] - 1, -1):
                score += sums[columns[c]]
            scores[entry] = np.float32(score)
        _clear_row(factor, items[n], sums)


@jit
def _add_row(factor: Any, i: Any, sums: Any) -> None:
    """Add row i of P to `sums`."""
    for e in range(factor.column_indptr[i], factor.column_indptr[i + 1]):
        v, share = factor.rows[e], factor.column_values[e]
        for m in range(factor.indptr[v], factor.indptr[v + 1]):
            sums[factor.ids[m]] += share * factor.values[m]


@jit
def _clear_row(factor: Any, i: Any, sums: Any) -> None:
    for e in range(factor.column_indptr[i], factor.column_indptr[i + 1]):
        v = factor.rows[e]
        for m in range(factor.indptr[v], factor.indptr[v + 1]):
            sums[factor.ids[m]] = 0.0


@njit(cache=True, nogil=True)
def _rank_users(
    tile: Any, users: Any, indptr: Any, columns: Any, ex_indptr: Any, excluded: Any, held_indptr: Any, heldout: Any,
    held_scores: Any, ranks: Any, limit: Any,
) -> None:  # fmt: skip
    width = tile.stop - tile.start
    sums, scores = np.zeros(width), np.empty(width, np.float32)
    touched = np.empty(width, np.int32)
    for u in users:
        own, others = columns[indptr[u] : indptr[u + 1]], excluded[ex_indptr[u] : ex_indptr[u + 1]]
        is_few = _FEW * _count_additions(tile, own) < width
        if is_few:
            n = _add_few(tile, own, sums, touched)
            n = _pack(tile, sums, touched, n, others, scores)
        else:
            _add_rows(tile, own, sums)
            for i in range(width):
                scores[i] = np.float32(sums[i])
                sums[i] = 0.0
        for h in range(held_indptr[u], held_indptr[u + 1]):
            if ranks[h] >= limit:
                continue
            if is_few:
                ranks[h] += _count_few_ahead(tile, touched[:n], scores, others, heldout[h], held_scores[h])
            else:
                ranks[h] += _count_ahead(scores, heldout[h] - tile.start, held_scores[h])
                ranks[h] -= _count_excluded(tile, scores, others, heldout[h], held_scores[h])


@jit
def _count_additions(tile: Any, own: Any) -> int:
    total = 0
    for i in own:
        total += tile.indptr[i + 1] - tile.indptr[i]
    return int(total)


@jit
def _add_few(tile: Any, own: Any, sums: Any, touched: Any) -> int:
    """Add as `_add_rows` does; return the number of additions, whose places `touched` names, some more than once."""
    n = 0
    for c in range(len(own) - 1, -1, -1):
        _prefetch_next(tile, own, c)
        for m in range(tile.indptr[own[c]], tile.indptr[own[c] + 1]):
            sums[tile.ids[m]] += tile.values[m]
            touched[n] = tile.ids[m]
            n += 1
    return n


@jit
def _pack(tile: Any, sums: Any, touched: Any, n: Any, excluded: Any, scores: Any) -> int:
    """Move the sums other than 0 into `scores`, their places to the front of `touched`; return how many they are.

    Those of excluded items are dropped. All sums are 0 afterwards.
    """
    for e in excluded:
        if tile.start <= e < tile.stop:
            sums[e - tile.start] = 0.0
    count = 0
    for t in range(n):
        i = touched[t]
        if sums[i] != 0:  # once for an item that was added to more than once
            touched[count], scores[count] = i, np.float32(sums[i])
            sums[i] = 0.0
            count += 1
    return count


@jit
def _count_few_ahead(tile: Any, places: Any, scores: Any, excluded: Any, item: Any, score: Any) -> np.int32:
    """Count the items of a tile that are ahead of `item`. Items outside `places` have score 0."""
    place, width = item - tile.start, tile.stop - tile.start
    ahead, below = np.int32(0), np.int32(0)
    for t in range(len(places)):
        is_below = np.int32(places[t] < place)
        ahead += np.int32(scores[t] > score) + np.int32(scores[t] == score) * is_below
        below += is_below
    if score > 0:
        return ahead
    zeros, first_zeros = width - len(places), min(max(place, 0), width) - below
    for e in excluded:
        if tile.start <= e < tile.stop:
            zeros -= 1
            first_zeros -= e < item
    return np.int32(ahead + (zeros if score < 0 else first_zeros))


@jit
def _add_rows(tile: Any, own: Any, sums: Any) -> None:
    """Add the rows of a user's items to `sums`, the last item first."""
    for c in range(len(own) - 1, -1, -1):
        _prefetch_next(tile, own, c)
        for m in range(tile.indptr[own[c]], tile.indptr[own[c] + 1]):
            sums[tile.ids[m]] += tile.values[m]


@jit
def _prefetch_next(tile: Any, own: Any, c: Any) -> None:
    """Prefetch the row of the item before place c."""
    if c > 0:
        start = tile.indptr[own[c - 1]]
        for line in range(_LINES):
            prefetch(tile.ids, start + 16 * line)
            prefetch(tile.values, start + 8 * line)


@jit
def _count_ahead(scores: Any, place: Any, score: Any) -> np.int32:
    """Count the items of a tile ahead of one in `place`, which may lie outside the tile."""
    ahead, before = np.int32(0), min(max(place, 0), len(scores))
    for i in range(before):
        ahead = np.int32(ahead + np.int32(scores[i] >= score))
    for i in range(before, len(scores)):
        ahead = np.int32(ahead + np.int32(scores[i] > score))
    return ahead


@jit
def _count_excluded(tile: Any, scores: Any, excluded: Any, item: Any, score: Any) -> np.int32:
    """Count the excluded items of a tile that are ahead of `item`."""
    ahead = np.int32(0)
    for e in excluded:
        if tile.start <= e < tile.stop:
            other = scores[e - tile.start]
            ahead = np.int32(ahead + np.int32(other > score or (other == score and e < item)))
    return ahead

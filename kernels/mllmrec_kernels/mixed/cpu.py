"""Rank, list and score by sparse part plus inner product on the CPU.

An item with x(u, i) = 0 scores the inner product alone, and of 100,000 items some 2,000 are otherwise. So the exact
kernels of the inner product do the catalogue, and the few are corrected:

    rank   each item is counted by its inner product; what the few and the excluded add to that count is subtracted,
           and the few are counted again by their scores. All before the count, which only grows, so that it may stop
           at `limit`.
    topk   the few fill the list first, which sets a high threshold; the inner product then offers all others.

Bytes: of a thread 12 I, and for topk the few of a block of users, 4 bytes each, within `max_bytes`. Work: a dot
product for each of the few, beside the product of the kernel that counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import Span, chunks, parallel_for
from mllmrec_kernels.exact.problem import Heaps, dot_problem, push, ranks_before, sort_heaps
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.mixed.int8_rows import Int8Rows, bound_dot, encode, encode_user, prefetch_ahead, refine_dot, user_code
from mllmrec_kernels.mixed.rows import find, room, room_bytes, spread, sum_row
from mllmrec_kernels.mixed.scores import Problem, SparsePart, count_few
from mllmrec_kernels.rank import cpu as rank_cpu
from mllmrec_kernels.topk import cpu as topk_cpu
from mllmrec_kernels.topk.reference import TopK

_USERS = 128  # of one piece of work
_NO_ITEMS = np.zeros(0, np.int32)


def row_spread(sparse: SparsePart, n_items: int) -> NDArray[np.float64]:
    """Return the standard deviation of each row of R W over the items, float64 [U]."""
    spreads = np.zeros(len(sparse.indptr) - 1)

    def _work(start: int, stop: int) -> None:
        _spread_users(sparse, start, stop, room(n_items), spreads)

    parallel_for(_work, chunks(len(spreads), _USERS))
    return spreads


def rank_mixed(problem: Problem, exclude: CSR, heldout: CSR, *, limit: int, max_bytes: int) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz].

    Args:
        problem: the scores.
        exclude: [U, I], disjoint from `heldout`.
        heldout: [U, I].
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.
    """
    ranks = np.zeros(heldout.nnz, dtype=np.int32)
    if not heldout.nnz:
        return ranks
    scores, n_items = np.empty(heldout.nnz, dtype=np.float32), problem.shape[1]

    rows = encode(problem.items, max_bytes // 2)

    def _correct(start: int, stop: int) -> None:
        _correct_users(problem, rows, start, stop, room(n_items), user_code(rows), exclude.indptr, exclude.indices, heldout.indptr,
                       heldout.indices, scores, ranks)  # fmt: skip

    parallel_for(_correct, chunks(heldout.n_rows, _USERS))
    if problem.items.shape[1] == 0:
        ranks += np.where(scores < 0, n_items, np.where(scores == 0, heldout.indices, 0)).astype(np.int32)
        return ranks
    del rows
    rank_cpu.count_ahead(dot_problem(problem.users, problem.items, 1, None), heldout, scores, ranks, limit, max_bytes)
    return ranks


def topk_mixed(problem: Problem, k: int, exclude: CSR | None, max_bytes: int) -> TopK:
    """Return the k best items of each user.

    Args:
        problem: the scores.
        k: items a user.
        exclude: [U, I], items that are not listed.
        max_bytes: working memory.

    Returns:
        ids int32 [U, k], padded with -1, and scores float32 [U, k], padded with -inf.
    """
    n_users, n_items = problem.shape
    ids = np.full((n_users, k), -1, dtype=np.int32)
    best = np.full((n_users, k), -np.inf, dtype=np.float32)
    if not n_items:
        return ids, best
    heaps = Heaps(ids, best, np.zeros(n_users, np.int64))
    left_out = (np.zeros(n_users + 1, np.int64), _NO_ITEMS) if exclude is None else (exclude.indptr, exclude.indices)
    rows = encode(problem.items, max_bytes // 4)
    for start, stop in _user_blocks(problem, left_out[0], max_bytes // 4):
        block = Heaps(*(part[start:stop] for part in heaps))
        indptr, others = _offer_few(problem, rows, start, stop, block, min(k, n_items), left_out)
        if problem.items.shape[1]:
            dots = dot_problem(problem.users[start:stop], problem.items, k, None)
            topk_cpu.fill(dots._replace(indptr=indptr, excluded=others), block, max_bytes // 2)
    sort_heaps(*heaps)
    return ids, best


def score_mixed(problem: Problem, pairs: CSR) -> NDArray[np.float32]:
    """Return the score of each entry of `pairs` [U, I], float32 [nnz]."""
    scores = np.empty(pairs.nnz, np.float32)

    def _work(start: int, stop: int) -> None:
        _score_users(problem, start, stop, room(problem.shape[1]), pairs.indptr, pairs.indices, scores)

    parallel_for(_work, chunks(pairs.n_rows, _USERS))
    return scores


def _user_blocks(problem: Problem, excluded: NDArray[np.int64], max_bytes: int) -> list[Span]:
    """Cut the users so that the few of a block, at most, fit into `max_bytes`; a block has one user at least."""
    n_users, n_items = problem.shape
    spans, start, ends = [], 0, np.cumsum(count_few(problem.sparse, n_items) + np.diff(excluded))
    free = max(0, max_bytes - get_num_threads() * room_bytes(n_items)) // 8  # a copy is made when they are joined
    while start < n_users:
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + free, side="right")))
        spans.append((start, stop))
        start = stop
    return spans


def _offer_few(
    problem: Problem, rows: Int8Rows, start: int, stop: int, heaps: Heaps, k: int,
    left_out: tuple[NDArray[np.int64], NDArray[np.int32]],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offer the items whose sparse part is not 0, and return the CSR of what the inner product must not offer."""
    pieces: dict[int, NDArray[np.int32]] = {}
    indptr = np.zeros(stop - start + 1, np.int64)

    def _work(first: int, last: int) -> None:
        pieces[first] = _offer_users(problem, rows, start, first, last, room(problem.shape[1]), user_code(rows), *left_out,
                                     heaps.ids, heaps.scores, heaps.sizes, k, indptr)  # fmt: skip

    parallel_for(_work, chunks(stop - start, _USERS))
    return np.cumsum(indptr), np.concatenate([_NO_ITEMS, *(pieces[first] for first in sorted(pieces))])


@njit(cache=True, nogil=True, error_model="numpy")
def _spread_users(sparse: Any, start: Any, stop: Any, room: Any, spreads: Any) -> None:
    for u in range(start, stop):
        spreads[u] = spread(room, sum_row(sparse, u, room))


@jit
def _score(problem: Any, u: Any, x: Any, dot: Any) -> np.float32:
    return np.float32(np.float64(x) * np.float64(problem.scale[u]) + dot)


@njit(cache=True, nogil=True, error_model="numpy")
def _score_users(problem: Any, start: Any, stop: Any, room: Any, indptr: Any, items: Any, scores: Any) -> None:
    for u in range(start, stop):
        if indptr[u] < indptr[u + 1]:
            _score_entries(problem, u, room, sum_row(problem.sparse, u, room), indptr, items, scores)


@jit
def _score_entries(problem: Any, u: Any, room: Any, n: Any, indptr: Any, items: Any, scores: Any) -> None:
    for m in range(indptr[u], indptr[u + 1]):
        at = find(room.ids, n, items[m])
        x = room.values[at] if at >= 0 else np.float32(0)
        scores[m] = _score(problem, u, x, dot_rows(problem.users, u, problem.items, items[m]))


@njit(cache=True, nogil=True, error_model="numpy")
def _correct_users(
    problem: Any, rows: Any, start: Any, stop: Any, room: Any, code: Any, ex_indptr: Any, excluded: Any, indptr: Any,
    heldout: Any, scores: Any, ranks: Any,
) -> None:  # fmt: skip
    for u in range(start, stop):
        if indptr[u] < indptr[u + 1]:
            n = sum_row(problem.sparse, u, room)
            _score_entries(problem, u, room, n, indptr, heldout, scores)
            _subtract_excluded(problem, u, ex_indptr, excluded, indptr, heldout, scores, ranks)
            if len(code.codes) > 0:
                encode_user(problem.users, u, code)
            _correct_few(problem, rows, u, room, code, n, excluded[ex_indptr[u] : ex_indptr[u + 1]], indptr, heldout,
                         scores, ranks)  # fmt: skip


@jit
def _subtract_excluded(
    problem: Any, u: Any, ex_indptr: Any, excluded: Any, indptr: Any, heldout: Any, scores: Any, ranks: Any
) -> None:
    for e in range(ex_indptr[u], ex_indptr[u + 1]):
        i = excluded[e]
        counted = np.float32(dot_rows(problem.users, u, problem.items, i))
        for h in range(indptr[u], indptr[u + 1]):
            ranks[h] -= ranks_before(counted, i, scores[h], heldout[h])


@jit
def _correct_few(
    problem: Any, rows: Any, u: Any, room: Any, code: Any, n: Any, excluded: Any, indptr: Any, heldout: Any,
    scores: Any, ranks: Any,
) -> None:  # fmt: skip
    """Take the few out of the count of the inner product, and count them by their scores."""
    e = 0
    for m in range(n):
        i = room.ids[m]
        if len(code.codes) > 0:
            prefetch_ahead(rows, room.ids, m, n)
        while e < len(excluded) and excluded[e] < i:
            e += 1
        if e == len(excluded) or excluded[e] != i:
            _correct_item(problem, rows, u, code, i, room.values[m], indptr, heldout, scores, ranks)


@jit
def _correct_item(
    problem: Any, rows: Any, u: Any, code: Any, i: Any, x: Any, indptr: Any, heldout: Any, scores: Any, ranks: Any
) -> None:
    added, first, last = np.float64(x) * np.float64(problem.scale[u]), indptr[u], indptr[u + 1]
    if len(code.codes) > 0:
        center, radius = bound_dot(code, rows, i)
        first = _correct_surely(center, radius, added, first, last, scores, ranks)
        if first < last:
            center, radius = refine_dot(code, rows, i, center)
            first = _correct_surely(center, radius, added, first, last, scores, ranks)
    if first < last:
        dot = dot_rows(problem.users, u, problem.items, i)
        counted, score = np.float32(dot), np.float32(added + dot)
        for h in range(first, last):
            ranks[h] += np.int32(ranks_before(score, i, scores[h], heldout[h])) - np.int32(
                ranks_before(counted, i, scores[h], heldout[h])
            )


@jit
def _correct_surely(
    center: Any, radius: Any, added: Any, first: Any, last: Any, scores: Any, ranks: Any
) -> int:
    """Correct the entries from `first` on for an item; return the first that its bound does not settle."""
    for h in range(first, last):
        counted, scored = _side(center, radius, scores[h]), _side(center + added, radius, scores[h])
        if counted == 0 or scored == 0:
            return int(h)
        ranks[h] += np.int32(scored > 0) - np.int32(counted > 0)
    return int(last)


@jit
def _side(center: Any, radius: Any, score: Any) -> int:
    """Return 1 where a float32 score within `radius` of `center` is above `score`, -1 below, 0 where it may be either.

    The margin stands for the rounding of both scores to float32 and of the float64 sums.
    """
    margin = radius + abs(np.float64(score)) * 2.0**-22 + abs(center) * 2.0**-22 + 2.0**-146
    if center - margin > score:
        return 1
    return -1 if center + margin < score else 0


@njit(cache=True, nogil=True, error_model="numpy")
def _offer_users(
    problem: Any, rows: Any, first_user: Any, start: Any, stop: Any, room: Any, code: Any, ex_indptr: Any,
    excluded: Any, ids: Any, best: Any, sizes: Any, k: Any, counts: Any,
) -> Any:  # fmt: skip
    """Offer the few of users first_user + start..stop-1; return these and the excluded, user by user, ascending."""
    others, total = np.empty(1024, np.int32), 0
    for q in range(start, stop):
        u = first_user + q
        n = sum_row(problem.sparse, u, room)
        most = n + ex_indptr[u + 1] - ex_indptr[u]
        if total + most > len(others):
            larger = np.empty(2 * (total + most), np.int32)
            larger[:total] = others[:total]
            others = larger
        row = others[total : total + most]
        count = _merge(room.ids, n, excluded[ex_indptr[u] : ex_indptr[u + 1]], row)
        if len(code.codes) > 0:
            encode_user(problem.users, u, code)
        size = _offer_row(problem, rows, u, q, room, code, n, excluded[ex_indptr[u] : ex_indptr[u + 1]], ids, best, k)
        if problem.items.shape[1] == 0:
            size = _offer_zeros(q, row[:count], len(problem.items), ids, best, size, k)
        sizes[q], counts[q + 1] = size, count
        total += count
    return others[:total].copy()


@jit
def _merge(few: Any, n: Any, excluded: Any, row: Any) -> int:
    """Write the union of two ascending lists to `row`; return its length."""
    m, e, count = 0, 0, 0
    while m < n or e < len(excluded):
        if e == len(excluded) or (m < n and few[m] < excluded[e]):
            row[count] = few[m]
            m += 1
        else:
            if m < n and few[m] == excluded[e]:
                m += 1
            row[count] = excluded[e]
            e += 1
        count += 1
    return count


@jit
def _offer_row(
    problem: Any, rows: Any, u: Any, q: Any, room: Any, code: Any, n: Any, excluded: Any, ids: Any, best: Any, k: Any
) -> int:
    """Offer a user's few, but the excluded; return the size of the heap."""
    size, e = 0, 0
    for m in range(n):
        i, x = room.ids[m], room.values[m]
        if len(code.codes) > 0:
            prefetch_ahead(rows, room.ids, m, n)
        while e < len(excluded) and excluded[e] < i:
            e += 1
        if e < len(excluded) and excluded[e] == i:
            continue
        if size == k and len(code.codes) > 0:
            center, radius = bound_dot(code, rows, i)
            if _side(center + np.float64(x) * np.float64(problem.scale[u]), radius, best[q, 0]) < 0:
                continue
        score = _score(problem, u, x, dot_rows(problem.users, u, problem.items, i))
        size = push(ids, best, q, size, k, score, i)
    return size


@jit
def _offer_zeros(q: Any, others: Any, n_items: Any, ids: Any, best: Any, size: Any, k: Any) -> int:
    """Offer score 0 for the items that are not among `others`, lowest ids first, until the list takes no more."""
    at = 0
    for i in range(n_items):
        if at < len(others) and others[at] == i:
            at += 1
            continue
        if size == k and not ranks_before(np.float32(0), i, best[q, 0], ids[q, 0]):
            break
        size = push(ids, best, q, size, k, np.float32(0), i)
    return size

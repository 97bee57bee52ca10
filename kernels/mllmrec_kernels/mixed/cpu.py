"""Rank, list and score by sparse part plus inner product on the CPU.

An item with x(u, i) = 0 scores the inner product alone; of 100,000 items some 2,000 have another x. So the exact
kernels of the inner product do the catalogue, and these few are corrected:

    rank   each item is counted by its inner product. Before that count, the few and the excluded are subtracted from
           it, and the few are added by their scores. The count then only grows, so it may stop at `limit`.
    topk   the few fill the list first, which sets a high threshold; the inner product then offers all others.

Bytes: 2 d per item for the encoded catalogue, if `max_bytes` holds it; per thread 12 I, and 16 for each of the few of
USERS users. Work: an int16 inner product for each of the few, beside the product of the kernel that counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.parallel import Span, chunks, parallel_for
from mllmrec_kernels.exact.problem import Heaps, dot_problem, sort_heaps
from mllmrec_kernels.mixed.coded_rows import CodedRows
from mllmrec_kernels.mixed.corrections import NOBODY, correct_ranks, merge_excluded, offer_few, offer_zeros
from mllmrec_kernels.mixed.few import (
    USERS,
    Few,
    Room,
    block_items,
    gather_few,
    part_of,
    room,
    room_bytes,
    score_pair,
    spread,
    sum_row,
)
from mllmrec_kernels.mixed.items import MixedItems, check_scores
from mllmrec_kernels.mixed.leading_rows import LeadingRows, lead_users
from mllmrec_kernels.mixed.scores import Problem, SparsePart, count_few
from mllmrec_kernels.rank import cpu as rank_cpu
from mllmrec_kernels.topk import cpu as topk_cpu
from mllmrec_kernels.topk.reference import TopK

_NO_ITEMS = np.zeros(0, np.int32)
_NO_SIZES = np.zeros(0)
AXES_PAY = 256  # users of a call for which items are put on their leading axes, if none did it before
_PIECES = 8  # share of the memory that the few of users listed at once take
_FIRST_ROOM = 2**14  # entries that a thread's few begin with


class _Memory:
    """Working memory of threads, kept from one piece of work to the next: new memory costs a page fault per 4 KiB.

    Args:
        n_items: of the catalogue.
    """

    def __init__(self, n_items: int) -> None:
        self._n_items, self._free = n_items, list[tuple[Room, NDArray[np.int32], NDArray[np.float32]]]()

    @contextmanager
    def few(
        self, problem: Problem, users: NDArray[np.int64], width: int, sizes: NDArray[np.float64], exclude: CSR
    ) -> Iterator[Few]:
        """Give the few of some users, whose memory serves another piece of work afterwards.

        Args:
            problem: the scores.
            users: int64 [n].
            width: of a user's code; 0 where items are not encoded.
            sizes: of the items' columns, float64 [d].
            exclude: [U, I], items that are left out.
        """
        try:
            working, ids, values = self._free.pop()  # one step, so that no two threads get the same
        except IndexError:
            working = room(self._n_items)
            ids, values = np.empty(_FIRST_ROOM, np.int32), np.empty(_FIRST_ROOM, np.float32)
        few = gather_few(problem, users, working, width, sizes, exclude.indptr, exclude.indices, ids, values)
        del ids, values  # few may have longer ones
        yield few
        self._free.append((working, few.ids, few.values))


def row_spread(sparse: SparsePart, n_items: int) -> NDArray[np.float64]:
    """Return the standard deviation of each row of R W over the items, float64 [U]."""
    spreads = np.zeros(len(sparse.indptr) - 1)

    def _work(start: int, stop: int) -> None:
        _spread_users(sparse, start, stop, room(n_items), spreads)

    parallel_for(_work, chunks(len(spreads), USERS))
    return spreads


def score_mixed(problem: Problem, items: MixedItems, pairs: CSR) -> NDArray[np.float32]:
    """Return the score of each entry of `pairs`, float32 [nnz].

    Args:
        problem: the scores.
        items: of the problem.
        pairs: [U, I].
    """
    scores = np.empty(pairs.nnz, np.float32)
    users, memory = np.flatnonzero(np.diff(pairs.indptr)), _Memory(problem.shape[1])
    nothing = CSR(np.zeros(pairs.n_rows + 1, np.int64), _NO_ITEMS, None, problem.shape[1])

    def _work(start: int, stop: int) -> None:
        with memory.few(problem, users[start:stop], 0, _NO_SIZES, nothing) as few:
            _score_pairs(problem, few, pairs.indptr, pairs.indices, scores)

    parallel_for(_work, chunks(len(users), USERS))
    _check_scale(problem, items)
    return scores


def _check_scale(problem: Problem, items: MixedItems) -> None:
    """Refuse standardized scores that left float32, now that their scale is known."""
    if problem.standardize:
        check_scores(problem, items)


def rank_mixed(
    problem: Problem, items: MixedItems, exclude: CSR, heldout: CSR, *, limit: int, max_bytes: int
) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz].

    Args:
        problem: the scores.
        items: of the problem.
        exclude: [U, I], disjoint from `heldout`.
        heldout: [U, I].
        limit: ranks from here on need not be told apart.
        max_bytes: working memory.
    """
    scores, ranks = np.empty(heldout.nnz, np.float32), np.zeros(heldout.nnz, np.int32)
    if not heldout.nnz:
        return ranks
    _correct(problem, items, exclude, heldout, scores, ranks, limit, max_bytes)
    _check_scale(problem, items)
    if problem.items.shape[1] == 0:
        ahead = np.where(scores < 0, problem.shape[1], np.where(scores == 0, heldout.indices, 0))
        return np.asarray(ranks + ahead, np.int32)
    dots = dot_problem(problem.users, problem.items, 1, None)
    rank_cpu.count_ahead(dots, heldout, scores, ranks, limit, max_bytes, items.kept)
    return ranks


def _correct(
    problem: Problem,
    items: MixedItems,
    exclude: CSR,
    heldout: CSR,
    scores: NDArray[np.float32],
    ranks: NDArray[np.int32],
    limit: int,
    max_bytes: int,
) -> None:
    """Score the held-out items, and correct their ranks for the few and the excluded."""
    rows = items.coded(max_bytes // 2)
    width, users = rows.codes.shape[1], np.flatnonzero(np.diff(heldout.indptr))
    block, memory = block_items(width, problem.shape[1]), _Memory(problem.shape[1])

    def _work(start: int, stop: int) -> None:
        with memory.few(problem, users[start:stop], width, rows.sizes, exclude) as few:
            correct_ranks(problem, rows, few, block, exclude.indptr, exclude.indices, heldout.indptr,
                          heldout.indices, scores, ranks, limit)  # fmt: skip

    most = count_few(problem.sparse, problem.shape[1])[users]
    parallel_for(_work, _spans(most, 16, (max_bytes // 2) // get_num_threads(), problem.shape[1], USERS))


def topk_mixed(
    problem: Problem, items: MixedItems, k: int, exclude: CSR | None, max_bytes: int, floor: NDArray[np.float32]
) -> TopK:
    """Return the k best items of each user.

    Args:
        problem: the scores.
        items: of the problem.
        k: items per user.
        exclude: [U, I], items that are not listed.
        max_bytes: working memory.
        floor: float32 [U], items of a lower score are not listed.

    Returns:
        ids int32 [U, k], padded with -1, and scores float32 [U, k], padded with -inf.
    """
    n_users, n_items = problem.shape
    ids = np.full((n_users, k), -1, dtype=np.int32)
    best = np.full((n_users, k), -np.inf, dtype=np.float32)
    if not n_items:
        return ids, best
    heaps = Heaps(ids, best, np.zeros(n_users, np.int64))
    if exclude is None:
        exclude = CSR(np.zeros(n_users + 1, np.int64), _NO_ITEMS, None, n_items)
    rows, leading = items.coded(max_bytes // 2), items.leading(max_bytes // 4 if n_users >= AXES_PAY else 0)
    most = count_few(problem.sparse, n_items) + np.diff(exclude.indptr)
    spans = _spans(most, 8, max_bytes // _PIECES, n_items * get_num_threads(), n_users)
    ends = np.concatenate([[0], np.cumsum(most)])
    # With all that is left, the items can mostly be quantized once for all spans.
    left = max_bytes - max_bytes // _PIECES - rows.codes.nbytes - leading.rows.codes.nbytes
    memory = np.empty(max((ends[stop] - ends[start] for start, stop in spans), default=0), np.int32)
    for start, stop in spans:
        block = Heaps(ids[start:stop], best[start:stop], heaps.sizes[start:stop])
        size = min(k, n_items)
        indptr, others = _offer(problem, rows, leading, (start, stop), block, size, exclude, memory, floor[start:stop])
        if problem.items.shape[1] == 0:
            offer_zeros(indptr, others, n_items, block, size)
        else:
            dots = dot_problem(problem.users[start:stop], problem.items, k, None)
            dots = dots._replace(indptr=indptr, excluded=others)
            topk_cpu.fill(dots, block, max(max_bytes // 4, left), items.kept, n_users)
    _check_scale(problem, items)
    sort_heaps(*heaps)
    left_open = ids == NOBODY
    ids[left_open], best[left_open] = -1, -np.inf
    return ids, best


def _offer(
    problem: Problem,
    rows: CodedRows,
    leading: LeadingRows,
    span: Span,
    heaps: Heaps,
    k: int,
    exclude: CSR,
    memory: NDArray[np.int32],
    floor: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Offer the few of some users; return the CSR of the items that must not be offered after them.

    Args:
        problem: the scores.
        rows: the items encoded.
        leading: the items on their leading axes.
        span: first user, and the one after the last.
        heaps: of these users.
        k: entries that a heap takes.
        exclude: [U, I], items that are not listed.
        memory: for the items that are returned.
        floor: float32, of these users.
    """
    (first, last), width = span, rows.codes.shape[1]
    on_axes = lead_users(problem.users[first:last], leading)
    block = block_items(on_axes.codes.shape[1] or width, problem.shape[1])
    counts, pieces = np.zeros(last - first + 1, np.int64), dict[int, NDArray[np.int32]]()
    working = _Memory(problem.shape[1])

    def _work(start: int, stop: int) -> None:
        users = np.arange(first + start, first + stop)
        with working.few(problem, users, width, rows.sizes, exclude) as few:
            offer_few(problem, rows, leading, few, on_axes, block, heaps, first, k, floor)
            pieces[start] = merge_excluded(few, exclude.indptr, exclude.indices, counts, first)

    parallel_for(_work, chunks(last - first, USERS))
    indptr = np.cumsum(counts)
    return indptr, np.concatenate([_NO_ITEMS, *(pieces[start] for start in sorted(pieces))], out=memory[: indptr[-1]])


def _spans(most: NDArray[np.int64], entry_bytes: int, max_bytes: int, n_items: int, users: int) -> list[Span]:
    """Cut users into pieces of 1 to `users` whose few fit into memory.

    Args:
        most: int64 [n], a bound of each user's few.
        entry_bytes: bytes of one of the few.
        max_bytes: memory of a piece.
        n_items: items of the room that the memory holds too.
        users: users of a piece, at most.
    """
    spans, start, ends = list[Span](), 0, np.cumsum(most)
    entries = max(0, max_bytes - room_bytes(n_items)) // entry_bytes
    while start < len(most):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + entries, side="right"))
        stop = max(start + 1, min(fitting, start + users))
        spans.append((start, stop))
        start = stop
    return spans


@njit(cache=True, nogil=True, error_model="numpy")
def _spread_users(sparse: SparsePart, start: int, stop: int, room: object, spreads: NDArray[np.float64]) -> None:
    for u in range(start, stop):
        spreads[u] = spread(room, sum_row(sparse, u, room))


@njit(cache=True, nogil=True, error_model="numpy")
def _score_pairs(
    problem: Problem, few: Few, indptr: NDArray[np.int64], items: NDArray[np.int32], scores: NDArray[np.float32]
) -> None:
    for p in range(len(few.users)):
        u = few.users[p]
        for n in range(indptr[u], indptr[u + 1]):
            scores[n] = score_pair(problem, u, items[n], part_of(few, p, items[n]))

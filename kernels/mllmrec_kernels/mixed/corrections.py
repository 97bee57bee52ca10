"""Correct ranks and lists of the inner product for the few, whose sparse part is not 0.

A rank counts every item by its inner product; a correction takes the few out of that count and counts them by their
scores. A list takes the few first, and the inner product must not offer them again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mllmrec_kernels.base.jit import jit, prefetch
from mllmrec_kernels.exact.problem import push, ranks_before
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.mixed.coded_rows import bound_dot
from mllmrec_kernels.mixed.few import (
    LEAST,
    ROUNDED,
    bound_few,
    count_below,
    empty_bounds,
    part_of,
    score_pair,
    side_of,
)
from mllmrec_kernels.mixed.leading_rows import bound_leading

NOBODY = 2**31 - 1  # stands below every item of the same score

_NEXT = 2  # users ahead whose few are prefetched
_LINE = 16  # ids or values of a cache line


@njit(cache=True, nogil=True, error_model="numpy")
def correct_ranks(
    problem: Any, rows: Any, few: Any, block: Any, ex_indptr: Any, excluded: Any, indptr: Any, heldout: Any,
    scores: Any, ranks: Any, limit: Any,
) -> None:  # fmt: skip
    """Score the held-out items of the users of `few`, and correct their ranks before anything is counted.

    A user whose held-out items all have `limit` of the few ahead of them is done: their ranks become I.

    Args:
        problem: the scores.
        rows: the items encoded.
        few: the users and their few.
        block: items looked at together.
        ex_indptr, excluded: CSR of the excluded items [U, I].
        indptr, heldout: CSR of the held-out items [U, I].
        scores: float32, one a held-out item, written.
        ranks: int32, one a held-out item, added to.
        limit: ranks from here on need not be told apart.
    """
    before = indptr[few.users[0]]  # entries of earlier users
    above = np.zeros(indptr[few.users[-1] + 1] - before, np.int32)  # few ahead, one a held-out item
    room = empty_bounds(block)
    for p in range(len(few.users)):
        u = few.users[p]
        for h in range(indptr[u], indptr[u + 1]):
            scores[h] = score_pair(problem, u, heldout[h], part_of(few, p, heldout[h]))
        _subtract_excluded(problem, u, ex_indptr, excluded, indptr, heldout, scores, ranks)
    cursors = few.indptr[:-1].copy()
    for start in range(0, len(problem.items), block):
        for p in range(len(cursors)):
            _prefetch_next(few, cursors, p)
            u, m, end = few.users[p], cursors[p], few.indptr[p + 1]
            n = count_below(few.ids, m, end, start + block)
            if n == 0:
                continue
            cursors[p] += n
            if few.codes.shape[1] > 0:
                bound_few(problem, rows, few, p, m, n, room)
                _correct_settled(room, n, indptr[u], indptr[u + 1], scores, ranks, above, before)
            else:
                room.is_open[:n] = True
            _correct_open(problem, few, p, m, n, room, indptr, heldout, scores, ranks, above, before)
            if above[indptr[u] - before : indptr[u + 1] - before].min() >= limit:
                ranks[indptr[u] : indptr[u + 1]] = len(problem.items)
                cursors[p] = end


@jit
def _prefetch_next(few: Any, cursors: Any, p: Any) -> None:
    """Prefetch what a user soon to come has of the block of items: a few lines, far from those of other users."""
    if p + _NEXT >= len(cursors):
        return
    start, width = cursors[p + _NEXT], few.codes.shape[1]
    for line in range(2):
        prefetch(few.ids, start + line * _LINE)
        prefetch(few.values, start + line * _LINE)
    for line in range(0, width, 2 * _LINE):
        prefetch(few.codes, np.int64(p + _NEXT) * width + line)


@jit
def _subtract_excluded(
    problem: Any, u: Any, ex_indptr: Any, excluded: Any, indptr: Any, heldout: Any, scores: Any, ranks: Any
) -> None:
    for e in range(ex_indptr[u], ex_indptr[u + 1]):
        i = excluded[e]
        counted = np.float32(dot_rows(problem.users, u, problem.items, i))
        for h in range(indptr[u], indptr[u + 1]):
            ranks[h] -= np.int32(ranks_before(counted, i, scores[h], heldout[h]))


@jit
def _correct_settled(
    room: Any, n: Any, first: Any, last: Any, scores: Any, ranks: Any, above: Any, before: Any
) -> None:
    """Correct the entries first to last for the items that the bounds settle for all of them; mark the others.

    No branch depends on an item: which side it falls on cannot be predicted.
    """
    room.is_open[:n] = False
    for h in range(first, last):
        score = np.float64(scores[h])
        margin = abs(score) * ROUNDED + LEAST
        for t in range(n):
            counted, added, radius = room.centers[t], room.added[t], room.radii[t] + margin
            room.is_open[t] |= (abs(counted - score) <= radius) | (abs(counted + added - score) <= radius)
    for h in range(first, last):
        score, now, earlier = np.float64(scores[h]), np.int32(0), np.int32(0)
        for t in range(n):
            settled = not room.is_open[t]
            now = np.int32(now + np.int32(settled & (room.centers[t] + room.added[t] > score)))
            earlier = np.int32(earlier + np.int32(settled & (room.centers[t] > score)))
        ranks[h] += now - earlier
        above[h - before] += now


@jit
def _correct_open(
    problem: Any, few: Any, p: Any, m: Any, n: Any, room: Any, indptr: Any, heldout: Any, scores: Any, ranks: Any,
    above: Any, before: Any,
) -> None:  # fmt: skip
    """Correct for those of the n few from place m on that are open, by their scores."""
    u, scale = few.users[p], np.float64(problem.scale[few.users[p]])
    for t in range(n):
        if not room.is_open[t]:
            continue
        i, dot = few.ids[m + t], dot_rows(problem.users, u, problem.items, few.ids[m + t])
        counted, score = np.float32(dot), np.float32(np.float64(few.values[m + t]) * scale + dot)
        for h in range(indptr[u], indptr[u + 1]):
            now = np.int32(ranks_before(score, i, scores[h], heldout[h]))
            ranks[h] += now - np.int32(ranks_before(counted, i, scores[h], heldout[h]))
            above[h - before] += now


@njit(cache=True, nogil=True, error_model="numpy")
def offer_few(
    problem: Any, rows: Any, leading: Any, few: Any, users: Any, block: Any, heaps: Any, first_user: Any, k: Any,
    floor: Any,
) -> None:  # fmt: skip
    """Offer the few to their users' heaps, which are empty.

    First all are bounded, and a heap holds the k of highest center. Their least score is near the end of the list, and
    not above it. Then those are scored whose upper bounds are no lower: that of leading axes, and that of all columns.

    Args:
        problem: the scores.
        rows: the items encoded.
        leading: the items on their leading axes.
        few: the users and their few.
        users: the users on the same axes, from `first_user` on.
        block: items looked at together.
        heaps: of users from `first_user` on.
        first_user: the user of the first heap.
        k: entries that a heap takes.
        floor: float32, of users from `first_user` on; lower scores are not offered.
    """
    highs = np.full(few.indptr[-1], np.inf, np.float32)
    if few.codes.shape[1] > 0 or users.codes.shape[1] > 0:
        cursors, room = few.indptr[:-1].copy(), empty_bounds(block)
        for start in range(0, len(problem.items), block):
            for p in range(len(cursors)):
                _prefetch_next(few, cursors, p)
                m, end = cursors[p], few.indptr[p + 1]
                n = count_below(few.ids, m, end, start + block)
                if users.codes.shape[1] > 0:
                    bound_leading(users, few.users[p] - first_user, leading, few.ids, m, n, room.centers, room.radii)
                    _add_few(problem, few, p, m, n, room)
                else:
                    bound_few(problem, rows, few, p, m, n, room)
                _keep_centers(few, p, m, n, room, highs, heaps, first_user, k)
                cursors[p] += n
    for p in range(len(few.users)):
        _offer_highest(problem, rows, few, p, highs, heaps, first_user, k, floor)


@jit
def _add_few(problem: Any, few: Any, p: Any, m: Any, n: Any, room: Any) -> None:
    """Add the sparse parts of n of the few of the user in place p, from place m on, to bounds; see Bounds."""
    scale = np.float64(problem.scale[few.users[p]])
    for t in range(n):
        added = np.float64(few.values[m + t]) * scale
        room.added[t] = added
        room.radii[t] += max(abs(room.centers[t]), abs(room.centers[t] + added)) * ROUNDED


@jit
def _keep_centers(few: Any, p: Any, m: Any, n: Any, room: Any, highs: Any, heaps: Any, first_user: Any, k: Any) -> None:
    """Offer centers of n of the few of the user in place p, from place m on; write upper bounds into `highs`."""
    q = few.users[p] - first_user
    ids, best, size = heaps.ids, heaps.scores, heaps.sizes[q]
    for t in range(n):
        center = room.centers[t] + room.added[t]
        margin = room.radii[t] + (abs(center) + room.radii[t]) * ROUNDED + LEAST
        highs[m + t] = np.float32(center + margin)
        if size < k or center > best[q, 0]:
            size = push(ids, best, q, size, k, np.float32(center), few.ids[m + t])
    heaps.sizes[q] = size


@jit
def _offer_highest(
    problem: Any, rows: Any, few: Any, p: Any, highs: Any, heaps: Any, first_user: Any, k: Any, floor: Any
) -> None:
    """Offer those of the few of the user in place p that may be among the k highest, by their scores.

    Where the user has a floor, nobody stands for it in the places that are left.
    """
    u = few.users[p]
    q, ids, best, size = u - first_user, heaps.ids, heaps.scores, 0
    least, scale = floor[q], np.float64(problem.scale[u])
    if k > 0 and heaps.sizes[q] == k:
        lowest = np.float32(np.inf)
        for e in range(k):
            lowest = min(lowest, score_pair(problem, u, ids[q, e], part_of(few, p, ids[q, e])))
        least = max(least, lowest)
    for m in range(few.indptr[p], few.indptr[p + 1]):
        if highs[m] < least:
            continue
        i = few.ids[m]
        if few.codes.shape[1] > 0 and least > -np.inf:
            center, radius = bound_dot(few.codes, few.bounds, p, rows, i)
            if side_of(center + np.float64(few.values[m]) * scale, radius, least) < 0:
                continue
        score = score_pair(problem, u, i, few.values[m])
        if score >= floor[q]:
            size = push(ids, best, q, size, k, score, i)
        if size == k:
            least = max(least, best[q, 0])
    while floor[q] > -np.inf and size < k:
        size = push(ids, best, q, size, k, floor[q], NOBODY)
    heaps.sizes[q] = size
    ids[q, size:], best[q, size:] = -1, np.float32(-np.inf)


@njit(cache=True, nogil=True, error_model="numpy")
def merge_excluded(few: Any, ex_indptr: Any, excluded: Any, counts: Any, first_user: Any) -> Any:
    """Return the few and the excluded of each user, ascending, user by user; counts[u - first_user + 1] of them."""
    total = few.indptr[-1]
    for p in range(len(few.users)):
        total += ex_indptr[few.users[p] + 1] - ex_indptr[few.users[p]]
    merged, at = np.empty(total, np.int32), 0
    for p in range(len(few.users)):
        u = few.users[p]
        left, right = few.ids[few.indptr[p] : few.indptr[p + 1]], excluded[ex_indptr[u] : ex_indptr[u + 1]]
        _merge(left, right, merged[at : at + len(left) + len(right)])
        counts[u - first_user + 1] = len(left) + len(right)
        at += len(left) + len(right)
    return merged


@jit
def _merge(left: Any, right: Any, merged: Any) -> None:
    """Merge two ascending lists that share nothing."""
    a, b = 0, 0
    for at in range(len(merged)):
        if b == len(right) or (a < len(left) and left[a] < right[b]):
            merged[at] = left[a]
            a += 1
        else:
            merged[at] = right[b]
            b += 1


@njit(cache=True, nogil=True, error_model="numpy")
def offer_zeros(indptr: Any, others: Any, n_items: Any, heaps: Any, k: Any) -> None:
    """Offer score 0 for the items that row q of a CSR does not name, lowest ids first, until heap q takes no more."""
    for q in range(len(indptr) - 1):
        size, at = heaps.sizes[q], indptr[q]
        for i in range(n_items):
            if at < indptr[q + 1] and others[at] == i:
                at += 1
                continue
            if size == k and not ranks_before(np.float32(0), i, heaps.scores[q, 0], heaps.ids[q, 0]):
                break
            size = push(heaps.ids, heaps.scores, q, size, k, np.float32(0), i)
        heaps.sizes[q] = size

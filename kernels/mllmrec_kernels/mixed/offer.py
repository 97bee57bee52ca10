"""Offer the few to the lists, and name the items that the inner product must not offer."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.problem import push, ranks_before
from mllmrec_kernels.mixed.few import score_pair, side_of
from mllmrec_kernels.mixed.int8_rows import bound_dot


@njit(cache=True, nogil=True, error_model="numpy")
def offer_few(problem: Any, rows: Any, few: Any, block: Any, heaps: Any, first_user: Any, k: Any) -> None:
    """Offer the few to their users' heaps.

    Args:
        problem: the scores.
        rows: the items encoded.
        few: the users and their few.
        block: items looked at together.
        heaps: of users from `first_user` on.
        first_user: the user of the first heap.
        k: entries that a heap takes.
    """
    cursors = few.indptr[:-1].copy()
    for start in range(0, len(problem.items), block):
        for p in range(len(cursors)):
            cursors[p] = _offer_block(problem, rows, few, p, cursors[p], start + block, heaps, first_user, k)


@jit
def _offer_block(
    problem: Any, rows: Any, few: Any, p: Any, m: Any, stop: Any, heaps: Any, first_user: Any, k: Any
) -> int:
    u, ids, end = few.users[p], few.ids, few.indptr[p + 1]
    q, best, scale = u - first_user, heaps.scores, np.float64(problem.scale[u])
    size = heaps.sizes[q]
    while m < end and ids[m] < stop:
        i, x, below = ids[m], few.values[m], False
        if size == k and few.codes.shape[1] > 0:
            center, radius = bound_dot(few.codes, few.bounds, p, rows, i)
            below = side_of(center + np.float64(x) * scale, radius, best[q, 0]) < 0
        if not below:
            size = push(heaps.ids, best, q, size, k, score_pair(problem, u, i, x), i)
        m += 1
    heaps.sizes[q] = size
    return int(m)


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

"""Correct ranks for the few: out of the count of the inner product, into that of the scores."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.problem import ranks_before
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.mixed.few import part_of, score_pair, side_of
from mllmrec_kernels.mixed.int8_rows import bound_dot, refine_dot


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
    for p in range(len(few.users)):
        u = few.users[p]
        for h in range(indptr[u], indptr[u + 1]):
            scores[h] = score_pair(problem, u, heldout[h], part_of(few, p, heldout[h]))
        _subtract_excluded(problem, u, ex_indptr, excluded, indptr, heldout, scores, ranks)
    cursors = few.indptr[:-1].copy()
    for start in range(0, len(problem.items), block):
        for p in range(len(cursors)):
            u, end = few.users[p], few.indptr[p + 1]
            if cursors[p] == end:
                continue
            cursors[p] = _correct_block(
                problem, rows, few, p, cursors[p], start + block, indptr, heldout, scores, ranks, above, before
            )
            if above[indptr[u] - before : indptr[u + 1] - before].min() >= limit:
                ranks[indptr[u] : indptr[u + 1]] = len(problem.items)
                cursors[p] = end


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
def _correct_block(
    problem: Any, rows: Any, few: Any, p: Any, m: Any, stop: Any, indptr: Any, heldout: Any, scores: Any, ranks: Any,
    above: Any, before: Any,
) -> int:  # fmt: skip
    """Correct for the few from place m on whose ids are below `stop`; return the place of the next."""
    u, ids, end = few.users[p], few.ids, few.indptr[p + 1]
    first, last, scale = indptr[u], indptr[u + 1], np.float64(problem.scale[u])
    while m < end and ids[m] < stop:
        i, added, open_from = ids[m], np.float64(few.values[m]) * scale, first
        if few.codes.shape[1] > 0:
            center, radius = bound_dot(few.codes, few.bounds, p, rows, i)
            open_from = _correct_surely(center, radius, added, first, last, scores, ranks, above, before)
            if open_from < last:
                center, radius = refine_dot(few.codes, few.bounds, p, rows, i, center)
                open_from = _correct_surely(center, radius, added, open_from, last, scores, ranks, above, before)
        if open_from < last:
            dot = dot_rows(problem.users, u, problem.items, i)
            counted, score = np.float32(dot), np.float32(added + dot)
            for h in range(open_from, last):
                now = np.int32(ranks_before(score, i, scores[h], heldout[h]))
                ranks[h] += now - np.int32(ranks_before(counted, i, scores[h], heldout[h]))
                above[h - before] += now
        m += 1
    return int(m)


@jit
def _correct_surely(
    center: Any, radius: Any, added: Any, first: Any, last: Any, scores: Any, ranks: Any, above: Any, before: Any
) -> int:
    """Correct the entries from `first` on for an item; return the first that its bound does not settle."""
    for h in range(first, last):
        counted, scored = side_of(center, radius, scores[h]), side_of(center + added, radius, scores[h])
        if counted == 0 or scored == 0:
            return int(h)
        ranks[h] += np.int32(scored > 0) - np.int32(counted > 0)
        above[h - before] += np.int32(scored > 0)
    return int(last)

"""The few items of each user whose sparse part is not 0, for some users at once.

Users of a piece of work are looked at together, a block of items after another: the block's encoded rows then stay
in a core's cache for all of them, where each user alone would fetch its few from memory.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.score import dot_rows
from mllmrec_kernels.mixed.int8_rows import encode_user
from mllmrec_kernels.mixed.rows import find, sum_row

USERS = 512  # of one piece of work
_BLOCK_BYTES = 2**18  # of encoded rows that are looked at together
_FIRST_ROOM = 2**14


class Few(NamedTuple):
    """Items and sparse parts of n users.

    Attributes:
        users: int64 [n].
        indptr: int64 [n + 1], where each user's items lie.
        ids: int32, ascending in each user; the excluded are left out.
        values: float32, x of each, not 0.
        codes: int16 [n, width], the users encoded; width 0 where items are not.
        bounds: float64 [n, 3], of each code.
    """

    users: NDArray[np.int64]
    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    codes: NDArray[np.int16]
    bounds: NDArray[np.float64]


def block_items(width: int, n_items: int) -> int:
    """Return the items that are looked at together."""
    return max(1, _BLOCK_BYTES // width) if width else max(1, n_items)


@njit(cache=True, nogil=True, error_model="numpy")
def gather_few(problem: Any, users: Any, room: Any, width: Any, ex_indptr: Any, excluded: Any) -> Any:
    """Return the few of some users, int64 [n]."""
    indptr = np.zeros(len(users) + 1, np.int64)
    ids, values = np.empty(_FIRST_ROOM, np.int32), np.empty(_FIRST_ROOM, np.float32)
    codes, bounds = np.zeros((len(users), width), np.int16), np.zeros((len(users), 3))
    for p in range(len(users)):
        u, total = users[p], indptr[p]
        n = sum_row(problem.sparse, u, room)
        if total + n > len(ids):
            more_ids, more_values = np.empty(2 * (total + n), np.int32), np.empty(2 * (total + n), np.float32)
            more_ids[:total], more_values[:total] = ids[:total], values[:total]
            ids, values = more_ids, more_values
        indptr[p + 1] = total + _copy_allowed(room, n, excluded[ex_indptr[u] : ex_indptr[u + 1]], ids, values, total)
        if width > 0:
            encode_user(problem.users, u, codes, bounds, p)
    return Few(users, indptr, ids, values, codes, bounds)


@jit
def _copy_allowed(room: Any, n: Any, excluded: Any, ids: Any, values: Any, start: Any) -> int:
    count, e = 0, 0
    for m in range(n):
        i = room.ids[m]
        while e < len(excluded) and excluded[e] < i:
            e += 1
        if e == len(excluded) or excluded[e] != i:
            ids[start + count], values[start + count] = i, room.values[m]
            count += 1
    return count


@jit
def score_pair(problem: Any, u: Any, i: Any, x: Any) -> np.float32:
    """Return the score of user u and item i, whose sparse part is x; see mixed/scores.py."""
    return np.float32(np.float64(x) * np.float64(problem.scale[u]) + dot_rows(problem.users, u, problem.items, i))


@jit
def part_of(few: Any, p: Any, i: Any) -> np.float32:
    """Return the sparse part of item i, not excluded, for the user in place p."""
    start = few.indptr[p]
    at = find(few.ids, start, few.indptr[p + 1], i)
    return few.values[at] if at >= 0 else np.float32(0)


@jit
def side_of(center: Any, radius: Any, score: Any) -> int:
    """Return 1 where a float32 score within `radius` of `center` is above `score`, -1 below, 0 where it may be either.

    The margin stands for the rounding of both scores to float32 and of the float64 sums.
    """
    margin = radius + abs(np.float64(score)) * 2.0**-22 + abs(center) * 2.0**-22 + 2.0**-146
    if center - margin > score:
        return 1
    return -1 if center + margin < score else 0

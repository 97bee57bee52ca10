"""Ranks of held-out items on short lists by a weighted sum of parts, for several weights of one part at once.

A search of weights moves one part at a time: the scores are a + w b, with b of that part and a of all others. A user's
a and b stay in cache while all weights are tried; an array of sums for each weight would go through memory. The parts
are added in their order, each by one fused multiply-add where the processor has it. So the number of threads changes no
bit.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.parallel import chunks, parallel_for

_USERS = 512  # of one piece of work


def trial_ranks(
    scores: NDArray[np.float32],
    floor: NDArray[np.float32],
    weights: NDArray[np.float32],
    moved: int,
    trials: NDArray[np.float32],
    indptr: NDArray[np.int64],
    columns: NDArray[np.int64],
) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item for each weight; of equal scores a held-out item ranks last.

    Args:
        scores: of each part, float32 [parts, B, C], finite.
        floor: added to all, float32 [B, C]; -inf where a list has no item.
        weights: of the parts, float32 [parts].
        moved: the part whose weight is tried.
        trials: its weights, float32 [n].
        indptr: int64 [B + 1], where each user's held-out items lie.
        columns: int64 [H], the place of each in the user's list.

    Returns:
        int32 [n, H].
    """
    ranks, beside = np.empty((len(trials), len(columns)), np.int32), weights.astype(np.float32)
    beside[moved] = 0

    def _work(start: int, stop: int) -> None:
        _count(scores, floor, beside, moved, trials, indptr, columns, start, stop, ranks)

    parallel_for(_work, chunks(len(floor), _USERS))
    return ranks


@njit(cache=True, nogil=True, fastmath={"contract"})
def _count(
    scores: Any, floor: Any, beside: Any, moved: Any, trials: Any, indptr: Any, columns: Any, start: Any, stop: Any,
    ranks: Any,
) -> None:  # fmt: skip
    a = np.empty(floor.shape[1], np.float32)
    for u in range(start, stop):
        a[:] = floor[u]
        for k in range(len(beside)):
            if beside[k] != 0:
                for c in range(len(a)):
                    a[c] += beside[k] * scores[k, u, c]
        b = scores[moved, u]
        for h in range(indptr[u], indptr[u + 1]):
            for n in range(len(trials)):
                w, ahead = trials[n], np.int32(-1)  # the item itself is counted
                own = a[columns[h]] + w * b[columns[h]]
                for c in range(len(a)):
                    ahead += np.int32(a[c] + w * b[c] >= own)
                ranks[n, h] = ahead

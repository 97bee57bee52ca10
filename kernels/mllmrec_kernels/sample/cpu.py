"""Negatives without rejection, in Numba: binary search for the r-th seen item outside the user's row.

Number the seen items 0..S-1 and let p_0 < p_1 < ... be the numbers of the user's items. Below p_m lie p_m - m
numbers that are not the user's, which rises with m: the r-th of them is r + m, with m the count of items for
which p_m - m <= r. log2(d_u) steps per sample and one random number, whatever the user has seen.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.sample.reference import GOLDEN, MIX_1, MIX_2, seen_items

_G, _M1, _M2 = np.uint64(GOLDEN), np.uint64(MIX_1), np.uint64(MIX_2)
_LOW = np.uint64(0xFFFFFFFF)

# A trainer calls thousands of times with one matrix; O(nnz) each time would cost more than the sampling.
_numbered: WeakKeyDictionary[CSR, tuple[NDArray[np.int32], NDArray[np.int32]]] = WeakKeyDictionary()


def number_items(user_items: CSR) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the seen items, int32 [S], and each item's number among them, int32 [I]; -1 if unseen."""
    if user_items not in _numbered:
        seen = seen_items(user_items)
        number = np.full(user_items.n_columns, -1, np.int32)
        number[seen] = np.arange(len(seen), dtype=np.int32)
        _numbered[user_items] = seen, number
    return _numbered[user_items]


@njit(cache=True)
def _random_bits(seed: np.uint64, b: int) -> np.uint64:
    z = seed + np.uint64(b + 1) * _G
    z = (z ^ (z >> np.uint64(30))) * _M1
    z = (z ^ (z >> np.uint64(27))) * _M2
    return z ^ (z >> np.uint64(31))


@njit(cache=True)
def _scaled(bits: np.uint64, n: int) -> np.int64:
    """floor(bits n / 2^64) for n < 2^31, in two halves that each fit 64 bits."""
    high = (bits >> np.uint64(32)) * np.uint64(n)
    low = ((bits & _LOW) * np.uint64(n)) >> np.uint64(32)
    return np.int64((high + low) >> np.uint64(32))


@njit(cache=True, parallel=True)
def _sample(
    indptr: NDArray[np.int64], indices: NDArray[np.int32], users: NDArray[np.integer], seed: np.uint64,
    seen: NDArray[np.int32], number: NDArray[np.int32], out: NDArray[np.int32],
) -> None:  # fmt: skip
    for b in prange(len(users)):
        start, stop = indptr[users[b]], indptr[users[b] + 1]
        choices = len(seen) - (stop - start)
        if choices <= 0:
            out[b] = -1
            continue
        r = _scaled(_random_bits(seed, b), choices)
        low, high = start, stop
        while low < high:
            middle = (low + high) // 2
            if number[indices[middle]] - (middle - start) <= r:
                low = middle + 1
            else:
                high = middle
        out[b] = seen[r + low - start]


def sample_negatives(user_items: CSR, users: NDArray[np.integer], seed: int) -> NDArray[np.int32]:
    """Return the samples, int32 [B]; -1 if there is none.

    Args:
        user_items: [U, I], the pattern.
        users: integer [B], rows of `user_items`.
        seed: start of the random sequence, below 2^63.
    """
    out = np.empty(len(users), np.int32)
    _sample(user_items.indptr, user_items.indices, users, np.uint64(seed), *number_items(user_items), out)
    return out

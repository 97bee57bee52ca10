"""The contract of sample_negatives: the random bits of each sample, and the item they give.

Sample b owns the b-th number of the splitmix64 sequence that starts at `seed`. So neither the order of evaluation nor
the number of threads matters. Of the S seen items, S - d_u are not the user's; r = floor(bits (S - d_u) / 2^64) is
uniform over them (to within 2^-64 (S - d_u)), and the sample is the r-th of them. That is the distribution of "draw a
seen item, redraw while it is the user's", in one draw, also for a user who has seen nearly everything.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR

GOLDEN = 0x9E3779B97F4A7C15
MIX_1 = 0xBF58476D1CE4E5B9
MIX_2 = 0x94D049BB133111EB


def random_bits(seed: int, n: int) -> NDArray[np.uint64]:
    """Return the first n numbers of splitmix64 from `seed`, uint64 [n] (Steele, Lea and Flood, OOPSLA 2014)."""
    z = np.uint64(seed) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_2)
    return z ^ (z >> np.uint64(31))


def seen_items(user_items: CSR) -> NDArray[np.int32]:
    """Return the ids of the items with at least one entry, ascending; int32."""
    return np.flatnonzero(np.bincount(user_items.indices, minlength=user_items.n_columns)).astype(np.int32)


def sample_negatives(user_items: CSR, users: NDArray[np.integer], seed: int) -> NDArray[np.int32]:
    """Return the samples, int32 [B]; -1 if there is none.

    Args:
        user_items: [U, I], the pattern.
        users: integer [B], rows of `user_items`.
        seed: start of the random sequence, below 2^63.
    """
    seen = seen_items(user_items)
    negatives = np.full(len(users), -1, dtype=np.int32)
    for b, (u, bits) in enumerate(zip(users, random_bits(seed, len(users)), strict=True)):
        choices = np.setdiff1d(seen, user_items.row(u))
        if len(choices):
            negatives[b] = choices[int(bits) * len(choices) >> 64]
    return negatives

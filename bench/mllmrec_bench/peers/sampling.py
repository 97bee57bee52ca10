"""sample_negatives beside rejection in Python and in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec_bench.peers.case import Case, scipy_peer, sizes


def sample_negatives(user_items: CSR, users: NDArray[np.int64], *, data: str) -> Case:
    """One unseen item for each of `users`.

    Args:
        user_items: binary [U, I].
        users: int64 [B]; none of them may have seen everything, or the peers would never end.
        data: what the interactions are, for the case's name.
    """
    generator = np.random.default_rng(0)
    return Case(
        "sample_negatives",
        f"{data} {sizes(U=user_items.n_rows, I=user_items.n_columns, B=len(users))}",
        lambda: kernels.sample_negatives(user_items, users, generator=generator),
        (
            scipy_peer("NumPy, vectorised rejection", lambda: _vectorised(user_items, users)),
            scipy_peer("Python rejection loop", lambda: _loop(user_items, users)),
        ),
    )


def _seen(user_items: CSR) -> NDArray[np.int64]:
    return np.unique(user_items.indices).astype(np.int64)


def _vectorised(user_items: CSR, users: NDArray[np.int64]) -> Callable[[], NDArray[np.int64]]:
    seen, rng = _seen(user_items), np.random.default_rng(1)
    pairs = user_items.rows() * user_items.n_columns + user_items.indices

    def run() -> NDArray[np.int64]:
        negatives = rng.choice(seen, len(users))
        open_ = np.arange(len(users))
        while len(open_):
            keys = users[open_] * user_items.n_columns + negatives[open_]
            places = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
            open_ = open_[pairs[places] == keys]
            negatives[open_] = rng.choice(seen, len(open_))
        return negatives

    return run


def _loop(user_items: CSR, users: NDArray[np.int64]) -> Callable[[], Any]:
    import random

    seen, rng = _seen(user_items).tolist(), random.Random(1)
    own = [set(user_items.row(user).tolist()) for user in range(user_items.n_rows)]
    asked = users.tolist()

    def run() -> NDArray[np.int64]:
        negatives = []
        for user in asked:
            item = rng.choice(seen)
            while item in own[user]:
                item = rng.choice(seen)
            negatives.append(item)
        return np.array(negatives)

    return run

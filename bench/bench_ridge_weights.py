"""ridge_weights beside NumPy and scipy, and alone at the size of a large catalogue."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from mllmrec_bench import interactions
from mllmrec_bench.peers import ridge_weights
from mllmrec_kernels import CSR

from mllmrec.models.ridge import ridge_support

EACH = 30  # neighbors by shared users, and by vectors


def catalogue(vectors: np.ndarray) -> tuple[CSR, np.ndarray, CSR]:
    """Two users per item with ten interactions each; an item's neighbors are 30 by shared users and 30 by vectors."""
    items = len(vectors)
    user_items = interactions.interactions(2 * items, items, 20 * items)
    return user_items, vectors, ridge_support(vectors, user_items, EACH, EACH)


def test_generated(compare: Callable[..., None], like_real: Callable[[int], tuple[str, np.ndarray]]) -> None:
    name, vectors = like_real(10_000)
    compare(ridge_weights(*catalogue(vectors), data=name))


def test_a_large_catalogue(compare: Callable[..., None], like_real: Callable[[int], tuple[str, np.ndarray]]) -> None:
    """A peer would take minutes a round; ours is timed once."""
    name, vectors = like_real(100_000)
    compare(
        ridge_weights(*catalogue(vectors), data=f"ridge {len(vectors):,} x 60, {name}", without_peers=True), rounds=1
    )

"""rank_mixed and topk_mixed beside dense blocks in NumPy, as models had them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from mllmrec_bench import interactions
from mllmrec_bench.peers import rank_mixed, topk_mixed
from mllmrec_kernels import CSR, MixedScores, row_spread

_WEIGHTS = 185  # of an item, as the ridge of the ensemble has
_WIDTH = 256


@cache
def problem(users: int, items: int) -> tuple[MixedScores, CSR, CSR]:
    """Return scores of a spread of 1 for both parts, what users have, and what they hold out; 11 items per user."""
    rng = np.random.default_rng(5)
    exclude, heldout = interactions.held_out(interactions.interactions(users, items, 11 * users), share=0.15)
    near = rng.integers(0, items, (items, _WEIGHTS))
    pattern = CSR.from_pairs(np.repeat(np.arange(items), _WEIGHTS), near.ravel(), (items, items))
    weights = CSR(pattern.indptr, pattern.indices, rng.exponential(0.05, pattern.nnz).astype(np.float32), items)
    p, q = interactions.towers(users, items, _WIDTH)
    spread = np.sqrt(np.maximum(np.einsum("ud,de,ue->u", p, np.cov(q.T), p, optimize=True), 1e-12))
    scale = (1 / np.maximum(row_spread(exclude, weights), 1e-12)).astype(np.float32)
    return MixedScores(exclude, weights, scale, (p / spread[:, None]).astype(np.float32), q), exclude, heldout


def test_rank(compare: Callable[..., None], sized: Callable[[int], int]) -> None:
    compare(rank_mixed(*problem(sized(4_000), sized(25_000)), None, data="generated"), rounds=3)


def test_rank_below_a_limit(compare: Callable[..., None], sized: Callable[[int], int]) -> None:
    compare(rank_mixed(*problem(sized(4_000), sized(25_000)), 20, data="generated"), rounds=3)


def test_topk(compare: Callable[..., None], sized: Callable[[int], int]) -> None:
    scores, exclude, _ = problem(sized(4_000), sized(25_000))
    compare(topk_mixed(scores, exclude, 20, data="generated"), rounds=3)

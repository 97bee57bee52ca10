"""Generate interactions, graphs and vectors of users and items, at any size.

The interactions of an item, and of a user, are a floor plus a log-normal tail. Floors and tails
are set by Amazon's 5-cores (Baby, Sports): there the top 1 % of the items hold 12 % of the interactions and
the top 10 % hold 42-46 %; of the users 5 % and 25 %.
"""

from __future__ import annotations

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors

_ITEMS = (0.20, 1.25)  # floor as a share of the mean, sigma of the tail
_USERS = (0.65, 1.20)


def interactions(users: int, items: int, count: int, *, seed: int = 0) -> CSR:
    """Return exactly `count` distinct user-item pairs with long tails on both sides, binary CSR [users, items].

    Args:
        users: number of users.
        items: number of items.
        count: number of pairs, at most half of all.
        seed: of the draw.

    Raises:
        InputError: a size below 1, or more than half of all pairs.
    """
    if min(users, items, count) < 1 or 2 * count > users * items:
        raise InputError(f"cannot draw {count:,} interactions of {users:,} users with {items:,} items; at most half")
    rng = np.random.default_rng(seed)
    by_user, by_item = _cumulated(users, _USERS, rng), _cumulated(items, _ITEMS, rng)
    keys = np.zeros(0, dtype=np.int64)
    while len(keys) < count:
        missing = count - len(keys) + 100
        rows = np.searchsorted(by_user, rng.random(missing), side="right")
        columns = np.searchsorted(by_item, rng.random(missing), side="right")
        keys = np.union1d(keys, rows * items + columns)
    kept = np.sort(rng.permutation(len(keys))[:count])
    return CSR.from_pairs(keys[kept] // items, keys[kept] % items, (users, items))


def graph(nodes: int, edges_per_node: int, *, seed: int = 0) -> CSR:
    """Return a directed graph with positive weights, float32 CSR [nodes, nodes].

    Every node has edges to about `edges_per_node` others; in-degrees have the tail of the items. Ends lie
    anywhere: nodes are not ordered by neighborhood, which would help a cache.

    Args:
        nodes: number of nodes.
        edges_per_node: edges out of each node.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    weights = _cumulated(nodes, _ITEMS, rng)
    ends = np.searchsorted(weights, rng.random(nodes * edges_per_node), side="right")
    pattern = CSR.from_pairs(np.repeat(np.arange(nodes), edges_per_node), ends, (nodes, nodes))
    return CSR(pattern.indptr, pattern.indices, rng.uniform(0.5, 1.5, pattern.nnz).astype(np.float32), nodes)


def towers(users: int, items: int, d: int, *, seed: int = 0) -> tuple[Vectors, Vectors]:
    """Return vectors like a trained model's, float32 [users, d] and [items, d]: norms differ with popularity.

    Args:
        users: number of users.
        items: number of items.
        d: dimensions.
        seed: of the draw.
    """
    rng = np.random.default_rng(seed)
    spread = (1 + np.arange(d)) ** -0.25
    tastes, goods = (rng.standard_normal((n, d)) * spread for n in (users, items))
    goods += 0.5 * rng.standard_normal((items, 1)) * spread
    tastes += 0.5 * spread
    return tastes.astype(np.float32), goods.astype(np.float32)


def held_out(user_items: CSR, *, share: float = 0.25, seed: int = 0) -> tuple[CSR, CSR]:
    """Split a matrix into training and held-out pairs.

    Args:
        user_items: [U, I].
        share: of the pairs that are held out, 0 to 1.
        seed: of the draw.

    Returns:
        Training pairs and held-out pairs, disjoint.
    """
    chosen = np.random.default_rng(seed).random(user_items.nnz) < share
    rows = user_items.rows()
    kept, held = (CSR.from_pairs(rows[m], user_items.indices[m], user_items.shape) for m in (~chosen, chosen))
    return kept, held


def _cumulated(n: int, tail: tuple[float, float], rng: np.random.Generator) -> NDArray[np.float64]:
    """Return cumulated probabilities of n ids with a floor and a log-normal tail of mean 1; the last is 1."""
    floor, sigma = tail
    weights = floor + (1 - floor) * rng.lognormal(-(sigma**2) / 2, sigma, n)
    cumulated: NDArray[np.float64] = np.cumsum(weights) / weights.sum()
    cumulated[-1] = 1.0
    return cumulated

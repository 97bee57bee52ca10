"""Make the inputs of bench_gpu.py; the same at each call."""

from __future__ import annotations

import numpy as np
import torch
from mllmrec_kernels import CSR, MixedScores


def embeddings(n: int, d: int) -> torch.Tensor:
    """Unit rows in clusters with a falling spectrum, float32 [n, d] on the device."""
    generator = torch.Generator("cuda").manual_seed(0)
    centres = torch.randn(max(1, n // 25), d, device="cuda", generator=generator)
    which = torch.randint(len(centres), (n,), device="cuda", generator=generator)
    rows = centres[which].add_(torch.randn(n, d, device="cuda", generator=generator), alpha=0.7)
    rows *= (1 + torch.arange(d, device="cuda")).rsqrt()
    return torch.nn.functional.normalize(rows, dim=1)


def random_graph(n: int, degree: int) -> CSR:
    """A graph of uniform edges, 1 / degree each."""
    generator = np.random.default_rng(0)
    pattern = CSR.from_pairs(np.repeat(np.arange(n), degree), generator.integers(0, n, n * degree), (n, n))
    return CSR(pattern.indptr, pattern.indices, np.full(pattern.nnz, 1 / degree, np.float32), n)


def interactions(users: int, items: int, mean: int) -> CSR:
    """Interactions with items by a power law."""
    generator = np.random.default_rng(1)
    weights = 1 / (10 + np.arange(items)) ** 0.8
    chosen = generator.choice(items, users * mean, p=weights / weights.sum())
    return CSR.from_pairs(generator.integers(0, users, users * mean), chosen, (users, items))


def mixed_problem(users: int, items: int, neighbors: int, width: int) -> tuple[MixedScores, CSR, CSR]:
    """Scores by rows of item weights and vectors on the device, what users have, and an item each holds out."""
    rng = np.random.default_rng(3)
    have = interactions(users, items, 11)
    near = (np.arange(items)[:, None] + np.cumsum(rng.integers(1, items // neighbors, (items, neighbors)), 1)) % items
    indptr = np.arange(0, items * neighbors + 1, neighbors, dtype=np.int64)
    values = rng.exponential(0.05, items * neighbors).astype(np.float32)
    weights = CSR(indptr, np.sort(near, axis=1).astype(np.int32).ravel(), values, items)
    generator = torch.Generator("cuda").manual_seed(3)
    x, y = (torch.randn(n, width, device="cuda", generator=generator) / width**0.5 for n in (users, items))
    drawn = rng.integers(0, items, users)
    free = np.asarray(have.to_scipy()[np.arange(users), drawn]).ravel() == 0
    heldout = CSR.from_pairs(np.flatnonzero(free), drawn[free], (users, items))
    return MixedScores(have, weights, np.ones(users, np.float32), x, y), have, heldout

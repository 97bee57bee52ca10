"""iALS: two tables of factors by alternating least squares (Rendle et al., Revisiting the Performance of iALS on
Item Recommendation Benchmarks, RecSys 2022).

With p_u, q_i of width r, n_u items of user u, n_i users of item i, and a = w |R| / (U I), so that all pairs
together weigh w times what the observed ones do, it minimises

    sum over R of (1 - p_u q_i)² + a sum over all (u, i) of (p_u q_i)²
        + lambda (sum over u of (n_u + a I) |p_u|² + sum over i of (n_i + a U) |q_i|²)

Given one table, each row of the other is one r x r system. Rows are solved in batches of like degree. Memory:
(U + I) r, and a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from torch import Tensor

from mllmrec import storage
from mllmrec.dataset import Histories
from mllmrec.encode import Vectors
from mllmrec.models.scorer import Lists, VectorScorer

SWEEPS = 10  # of a part of the blend; alone, model.sweeps
_BATCH = 1 << 20  # gathered numbers of a batch of rows, about
_START = 0.1  # spread of the first item factors, over sqrt(r)


@dataclass(frozen=True, slots=True)
class Factors:
    """A fitted factorisation.

    Attributes:
        users: p, float32 [U, r].
        items: q, float32 [I, r].
        histories: digest of the training histories.
    """

    users: Vectors
    items: Vectors
    histories: str

    @property
    def summary(self) -> str:
        """One line for a person."""
        return f"iALS, {self.users.shape[1]} factors"

    @property
    def scorer(self) -> VectorScorer:
        """The model as the evaluation sees it."""
        return VectorScorer(self.users, self.items)

    def similar(self, k: int) -> Lists:
        """See VectorScorer."""
        return self.scorer.similar(k)

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write user_factors.npy, item_factors.npy and factors.json."""
        storage.write_array(path("user_factors.npy"), self.users)
        storage.write_array(path("item_factors.npy"), self.items)
        storage.write_json(path("factors.json"), {"histories": self.histories})
        return ["user_factors.npy", "item_factors.npy", "factors.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Factors:
        """Read what save wrote."""
        users, items = (np.array(storage.read_array(path(f"{side}_factors.npy"))) for side in ("user", "item"))
        return Factors(users, items, storage.read_json(path("factors.json"))["histories"])


def ials(
    histories: Histories, *, rank: int, unobserved: float, shrinkage: float, seed: int, sweeps: int = SWEEPS
) -> Factors:
    """Fit both tables.

    Args:
        histories: training histories.
        rank: r.
        unobserved: w >= 0.
        shrinkage: lambda > 0.
        seed: of the first item factors.
        sweeps: how often both tables are solved.

    Raises:
        LeakError: the histories hold held-out interactions.
    """
    histories.require_training("iALS")
    by_user = histories.user_items()
    by_item = by_user.transpose()
    density = by_user.nnz / max(1, by_user.n_rows * by_user.n_columns)
    share = unobserved * density  # a
    start = torch.Generator().manual_seed(seed)
    items = torch.randn(by_user.n_columns, rank, generator=start) * (_START / rank**0.5)
    users = torch.zeros(by_user.n_rows, rank)
    for _ in range(sweeps):
        users = _solve(by_user, items, share, shrinkage)
        items = _solve(by_item, users, share, shrinkage)
    return Factors(users.numpy(), items.numpy(), histories.digest)


def _solve(rows: CSR, factors: Tensor, share: float, shrinkage: float) -> Tensor:
    """The best row factors [R, r] given the other side's [C, r]."""
    rank = factors.shape[1]
    degrees = np.diff(rows.indptr)
    everything = share * (factors.T @ factors)  # [r, r]
    padded = torch.cat([factors, torch.zeros(1, rank)])  # a row of zeros stands for no neighbour
    solved = torch.zeros(rows.n_rows, rank)
    for batch in _batches(degrees, rank):
        near = padded[_neighbours(rows, batch)]  # [B, n, r]
        shrink = shrinkage * (torch.from_numpy(degrees[batch]) + share * rows.n_columns)
        systems = near.mT @ near + everything + shrink[:, None, None].float() * torch.eye(rank)
        factor = torch.linalg.cholesky(systems)
        solved[torch.from_numpy(batch)] = torch.cholesky_solve(near.sum(1)[..., None], factor)[..., 0]
    return solved


def _batches(degrees: NDArray[np.int64], rank: int) -> Iterator[NDArray[np.int64]]:
    """Rows with neighbours, those of like degree together."""
    order = np.argsort(degrees, kind="stable")
    order = order[degrees[order] > 0]
    while len(order):
        widest = int(degrees[order[-1]])
        size = max(1, _BATCH // (rank * max(widest, rank)))
        yield order[-size:]
        order = order[:-size]


def _neighbours(rows: CSR, batch: NDArray[np.int64]) -> Tensor:
    """Neighbour ids of each row, filled up with n_columns; int64 [B, n]."""
    degrees = np.diff(rows.indptr)[batch]
    places = np.arange(degrees.max())
    inside = places < degrees[:, None]
    ids = np.full(inside.shape, rows.n_columns, np.int64)
    ids[inside] = rows.indices[(rows.indptr[batch][:, None] + places)[inside]]
    return torch.from_numpy(ids)

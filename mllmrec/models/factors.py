"""iALS: two tables of factors by alternating least squares (Rendle et al., Revisiting the Performance of iALS on
Item Recommendation Benchmarks, RecSys 2022).

With p_u, q_i of width r, n_u items of user u, n_i users of item i, and a = w |R| / (U I), so that all pairs
together weigh w times what the observed ones do, it minimises

    sum over R of (1 - p_u q_i)² + a sum over all (u, i) of (p_u q_i)²
        + lambda (sum over u of (n_u + a I) |p_u|² + sum over i of (n_i + a U) |q_i|²)

Given one table, each row of the other is one r x r system (als_factors). Memory: (U + I) r.

With item vectors, |q_i|² becomes |q_i - m_i|², m_i what q_i should be by its vector and the other items' factors
(projection.py, solved anew each sweep): an item of few users takes its place from what it is like, one of many users
from them. It is regression-based latent factors (Agarwal and Chen, KDD 2009) for implicit data.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mllmrec_kernels import CSR, als_factors

from mllmrec.dataset import Histories
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.models.content_regression import Prediction
from mllmrec.models.scorer import Lists, VectorScorer

SWEEPS = 10  # of a part of the blend; alone, model.sweeps
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
    histories: Histories,
    *,
    rank: int,
    unobserved: float,
    shrinkage: float,
    seed: int,
    sweeps: int = SWEEPS,
    content: Prediction | None = None,
) -> Factors:
    """Fit both tables.

    Args:
        histories: training histories.
        rank: r.
        unobserved: w >= 0.
        shrinkage: lambda > 0.
        seed: of the first item factors.
        sweeps: how often both tables are solved.
        content: predicts item factors by vectors of the items; without it they shrink to 0.

    Raises:
        LeakError: the histories hold held-out interactions.
    """
    histories.require_training("iALS")
    by_user = histories.user_items()
    by_item = by_user.transpose()
    density = by_user.nnz / max(1, by_user.n_rows * by_user.n_columns)
    share = unobserved * density  # a
    start = torch.Generator().manual_seed(seed)
    items = (torch.randn(by_user.n_columns, rank, generator=start) * (_START / rank**0.5)).numpy()
    users = np.zeros((by_user.n_rows, rank), np.float32)
    prior = None
    for _ in range(sweeps):
        users = _half_sweep(by_user, items, share, shrinkage)
        items = _half_sweep(by_item, users, share, shrinkage, prior)
        prior = content.of(items) if content else None
    return Factors(users, items, histories.digest)


def _half_sweep(rows: CSR, factors: Vectors, share: float, shrinkage: float, prior: Vectors | None = None) -> Vectors:
    """The best row factors [R, r] given the other side's [C, r] and what they shrink to [R, r]."""
    shrink = shrinkage * (np.diff(rows.indptr) + share * rows.n_columns)
    return als_factors(rows, factors, unobserved_weight=share, regularization=shrink, prior=prior)

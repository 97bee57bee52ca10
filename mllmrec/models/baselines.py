"""Baselines of every evaluation: a model that does not beat them has learned nothing.

They have no settings and see only training interactions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.item_knn import ItemKNN, ItemKNNConfig
from mllmrec.models.scoring import VECTOR_USERS, VectorScorer, ranks_by_users


def popularity(user_items: CSR) -> VectorScorer:
    """Score an item by its number of training users, the same for everybody."""
    counts = np.bincount(user_items.indices, minlength=user_items.n_columns).astype(np.float32)
    return VectorScorer(np.ones((user_items.n_rows, 1), np.float32), counts[:, None])


def log_popularity(user_items: CSR) -> VectorScorer:
    """Score an item by log(1 + its number of training users), the same for everybody."""
    counts = np.log1p(np.bincount(user_items.indices, minlength=user_items.n_columns)).astype(np.float32)
    return VectorScorer(np.ones((user_items.n_rows, 1), np.float32), counts[:, None])


@dataclass(frozen=True, slots=True)
class UntrainedContent:
    """Scores an item by the cosine of its vector to the mean vector of the user's training items.

    Means are made for the users at hand: those of a large shop take more memory than its item vectors.

    Attributes:
        items: float32 [I, d], item vectors.
        user_items: binary [U, I], training interactions.
        scored: float32 [m, d], vectors of the items that are ranked.
        backend: of the kernel that ranks; see VectorScorer.
    """

    items: Vectors
    user_items: CSR
    scored: Vectors
    backend: str = "auto"

    def of(self, users: NDArray[np.int64]) -> VectorScorer:
        """Return the vectors of users [B] and of the ranked items."""
        return VectorScorer(
            mean_of_owned(self.items, self.user_items.take_rows(users)), self.scored, backend=self.backend
        )

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the rank of each held-out item; see Recommender.ranks.

        Args:
            exclude: [U, m], items that are not ranked.
            heldout: [U, m], items to rank.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.
        """

        def rank(users: NDArray[np.int64], *taken: CSR) -> NDArray[np.int32]:
            return self.of(users).ranks(*taken, limit=limit)

        return ranks_by_users(rank, exclude, heldout, progress, users=VECTOR_USERS)

    def among(self, items: NDArray[np.int64]) -> UntrainedContent:
        """Return the ranker of only some items, int64 [m]; see Recommender.among."""
        return replace(self, scored=self.items[items])


def baselines(items: Vectors, user_items: CSR) -> dict[str, VectorScorer | UntrainedContent | ItemKNN]:
    """Return the baselines, by the names that tables print.

    Args:
        items: float32 [I, d], item vectors.
        user_items: binary [U, I], training interactions.
    """
    every_neighbor = ItemKNNConfig(n_neighbors=0, weighting="cosine")
    return {
        "popularity": popularity(user_items),
        "content, untrained": UntrainedContent(items, user_items, items),
        "item-kNN": ItemKNN(every_neighbor).fit(user_items),
    }

"""Baselines of every evaluation: a model that does not beat them has learned nothing.

They have no settings and see only training interactions.
"""

from __future__ import annotations

import numpy as np
from mllmrec_kernels import CSR

from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.models.item_knn import ItemKNN, ItemKNNConfig
from mllmrec.models.scoring import VectorScorer


def popularity(user_items: CSR) -> VectorScorer:
    """Score an item by its number of training users, the same for everybody."""
    counts = np.bincount(user_items.indices, minlength=user_items.n_columns).astype(np.float32)
    return VectorScorer(np.ones((user_items.n_rows, 1), np.float32), counts[:, None])


def log_popularity(user_items: CSR) -> VectorScorer:
    """Score an item by log(1 + its number of training users), the same for everybody."""
    counts = np.log1p(np.bincount(user_items.indices, minlength=user_items.n_columns)).astype(np.float32)
    return VectorScorer(np.ones((user_items.n_rows, 1), np.float32), counts[:, None])


def untrained_content(items: Vectors, user_items: CSR) -> VectorScorer:
    """Score an item by the cosine of its vector to the mean vector of the user's training items."""
    return VectorScorer(mean_of_owned(items, user_items), items)


def baselines(items: Vectors, user_items: CSR) -> dict[str, VectorScorer | ItemKNN]:
    """Return the baselines, by the names that tables print.

    Args:
        items: float32 [I, d], item vectors.
        user_items: binary [U, I], training interactions.
    """
    every_neighbor = ItemKNNConfig(n_neighbors=0, weighting="cosine")
    return {
        "popularity": popularity(user_items),
        "content, untrained": untrained_content(items, user_items),
        "item-kNN": ItemKNN(every_neighbor).fit(user_items),
    }

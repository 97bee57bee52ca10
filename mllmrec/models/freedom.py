"""FREEDOM (Zhou and Shen, A Tale of Two Graphs, ACM Multimedia 2023), for one modality.

item graph    frozen: the K nearest items by cosine, D^-1/2 S D^-1/2; one step over the items' ids
user-item     in each epoch a part of the edges, drawn with p ~ 1 / sqrt(d_u d_i) ("degree-sensitive
graph         pruning"); the whole graph when it scores
vectors       users: the mean over k = 0..K of A^k E^(0); items: the same plus the item graph's step
loss          BPR of the vectors + w BPR of users with projected features
"""

from __future__ import annotations

import numpy as np
import torch
from mllmrec_kernels import CSR, bpr_loss, propagate
from numpy.typing import NDArray
from torch import Tensor, nn

from mllmrec.models.network import Network, bipartite, distinct, embedding, squares


class FREEDOM(Network):
    """See the module.

    Args:
        user_items: training interactions.
        features: float32 [I, d_e], frozen.
        item_graph: S, normalised; the refined graph in its place is "+GR".
        dim: d.
        layers: K of the user-item graph.
        decay: L2 of a batch's E^(0).
        keep: share of the edges that an epoch keeps.
        feature_loss: w.
    """

    features: Tensor

    def __init__(
        self,
        user_items: CSR,
        features: Tensor,
        item_graph: CSR,
        dim: int,
        layers: int,
        decay: float,
        keep: float,
        feature_loss: float,
    ) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)
        self.table = embedding(sum(user_items.shape), dim)
        self.project = nn.Linear(features.shape[1], dim)
        self._user_items, self._item_graph = user_items, item_graph
        self._whole = self._pruned = bipartite(user_items)
        self._layers, self._decay, self._keep, self._feature_loss = layers, decay, keep, feature_loss
        self._chance = edge_chances(user_items)

    def start_epoch(self, generator: np.random.Generator) -> None:
        """Draw the edges of an epoch, without replacement."""
        kept = max(1, round(self._keep * self._user_items.nnz))
        chosen = generator.choice(self._user_items.nnz, size=kept, replace=False, p=self._chance)
        rows, columns = self._user_items.rows()[chosen], self._user_items.indices[chosen]
        self._pruned = bipartite(CSR.from_pairs(rows, columns, self._user_items.shape))

    def _vectors(self, graph: CSR) -> tuple[Tensor, Tensor]:
        n = self._user_items.n_rows
        mixed = propagate(graph, self.table, layers=self._layers, combine="mean")
        alike = propagate(self._item_graph, self.table[n:], layers=1, combine="last")
        return mixed[:n], mixed[n:] + alike

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """See Network."""
        h_user, h_item = self._vectors(self._pruned)
        n = self._user_items.n_rows
        ranked = bpr_loss(h_user, h_item, users, positives, negatives)
        columns, which = distinct(torch.cat([positives, negatives]))
        projected = self.project(self.features[columns])  # [distinct items, d]
        by_features = bpr_loss(h_user, projected, users, which[: len(users)], which[len(users) :])
        shrink = squares(self.table[users], self.table[n + positives], self.table[n + negatives])
        return ranked + self._feature_loss * by_features + self._decay * shrink

    def vectors(self) -> tuple[Tensor, Tensor]:
        """See Network; the whole user-item graph."""
        return self._vectors(self._whole)


def edge_chances(user_items: CSR) -> NDArray[np.float64]:
    """p of each edge, proportional to 1 / sqrt(d_u d_i), summing to 1; float64 [nnz]."""
    users, items = user_items.rows(), user_items.indices
    by_user = np.bincount(users, minlength=user_items.n_rows)
    by_item = np.bincount(items, minlength=user_items.n_columns)
    chance = 1 / np.sqrt(by_user[users] * by_item[items])
    return np.asarray(chance / chance.sum(), np.float64)

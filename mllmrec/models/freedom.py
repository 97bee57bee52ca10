"""FREEDOM: a frozen item graph beside a pruned user-item graph, for one modality.

Zhou and Shen, A Tale of Two Graphs: Freezing and Denoising Graph Structures for Multimodal Recommendation, ACM
Multimedia 2023.

item graph    frozen: the K nearest items by cosine, D^-1/2 S D^-1/2; one step over the items' ids (equations 1-5)
user-item     in each epoch a part of the edges, drawn with p ~ 1 / sqrt(d_u d_i) ("degree-sensitive pruning",
graph         equations 6-7); the whole graph when it scores
vectors       users: the mean over k = 0..K of A^k E^(0); items: the same plus the item graph's step
loss          BPR of the vectors + w BPR of users with projected features
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from mllmrec_kernels import CSR, bpr_loss, propagate
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor, nn

from mllmrec.config import Count, GraphConfig, ModelConfig
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, bipartite, embedding, rate_candidates, squares, unique_rows
from mllmrec.training.loop import Network

# FREEDOM's own item graph: the ten nearest, the item itself among them, directed, no threshold.
_OWN_GRAPH = GraphConfig(mode="paper", semantic_neighbors=10, cooccurrence_neighbors=0, threshold=-1)


class FREEDOMConfig(ModelConfig):
    """Settings of FREEDOM."""

    kind: Literal["freedom"] = "freedom"
    refined: bool = False  # graph refinement (+GR): our item graph in place of its own
    gcn_layers: Count = 2  # K, user-item propagation steps
    decay: Annotated[float, Field(ge=0)] = 1e-4  # L2 of a batch's E^(0)
    edge_keep: Annotated[float, Field(gt=0, le=1)] = 0.2  # share of user-item edges that an epoch keeps
    feature_loss: Annotated[float, Field(ge=0)] = 1e-3  # w


class FREEDOM(NetworkModel):
    """See the module."""

    Config = FREEDOMConfig
    config: FREEDOMConfig
    title = "FREEDOM"
    reads = frozenset({"items", "graph"})
    candidates = rate_candidates("model.feature_loss", (1e-3, 1e-5, 1e-1))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel."""
        config, features = self.config, data.required_items(self.title)
        item_graph = self._graph(data, None if config.refined else _OWN_GRAPH)
        return FREEDOMNetwork(
            data.user_items, torch.from_numpy(features), item_graph, self.context.train.dim, config.gcn_layers,
            config.decay, config.edge_keep, config.feature_loss,
        )  # fmt: skip


class FREEDOMNetwork(Network):
    """Ids of users and items, and a projection of the features.

    Args:
        user_items: training interactions.
        features: float32 [I, d_e], frozen.
        item_graph: S, normalized.
        dim: d.
        layers: K of the user-item graph.
        decay: L2 of a batch's E^(0).
        keep: share of the edges that an epoch keeps, in (0, 1].
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
        step = propagate(self._item_graph, self.table[n:], layers=1, combine="last")
        return mixed[:n], mixed[n:] + step

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """
        h_user, h_item = self._vectors(self._pruned)
        n = self._user_items.n_rows
        ranking = bpr_loss(h_user, h_item, users, positives, negatives)
        columns, which = unique_rows(torch.cat([positives, negatives]))
        projected = self.project(self.features[columns])  # [distinct items, d]
        by_features = bpr_loss(h_user, projected, users, which[: len(users)], which[len(users) :])
        shrink = squares(self.table[users], self.table[n + positives], self.table[n + negatives])
        return ranking + self._feature_loss * by_features + self._decay * shrink

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return vectors by the whole user-item graph; see Network."""
        return self._vectors(self._whole)


def edge_chances(user_items: CSR) -> NDArray[np.float64]:
    """Return p of each edge, proportional to 1 / sqrt(d_u d_i), summing to 1; float64 [nnz]."""
    users, items = user_items.rows(), user_items.indices
    by_user = np.bincount(users, minlength=user_items.n_rows)
    by_item = np.bincount(items, minlength=user_items.n_columns)
    chance = 1 / np.sqrt(by_user[users] * by_item[items])
    return np.asarray(chance / chance.sum(), np.float64)

"""LightGCN: embeddings propagated over the user-item graph.

He et al., LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation, SIGIR 2020, equations 3-8.
With A the symmetrically normalized user-item graph and a_k = 1 / (K + 1),

    E = mean over k = 0..K of A^k E^(0),   y_ui = E_u . E_i.

"+GR" (graph refinement) adds one step of the item graph over the items' E^(0), as FREEDOM adds its own.
"""

from __future__ import annotations

from typing import Annotated, Literal

from mllmrec_kernels import CSR, bpr_loss, propagate
from pydantic import Field
from torch import Tensor

from mllmrec.config import Count, ModelConfig
from mllmrec.models.base import FitData
from mllmrec.models.network_model import (
    NetworkModel,
    Penalty,
    PenaltyName,
    bipartite,
    embedding,
    penalty_of,
    rate_candidates,
    squares,
)
from mllmrec.training.loop import Network


class LightGCNConfig(ModelConfig):
    """Settings of LightGCN."""

    kind: Literal["lightgcn"] = "lightgcn"
    refined: bool = False  # graph refinement (+GR)
    gcn_layers: Count = 2  # K, user-item propagation steps
    decay: Annotated[float, Field(ge=0)] = 1e-4  # weight of the penalty of a batch's E^(0)
    penalty: PenaltyName = "squares"  # norms: as RecBole and MMRec have it


class LightGCN(NetworkModel):
    """See the module."""

    Config = LightGCNConfig
    config: LightGCNConfig
    title = "LightGCN"
    reads = frozenset({"items", "graph"})
    candidates = rate_candidates("model.decay", (1e-4, 1e-3, 1e-2))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel."""
        config = self.config
        refined = self._graph(data) if config.refined else None
        penalty = penalty_of(config.penalty)
        return LightGCNNetwork(
            data.user_items, self.context.train.dim, config.gcn_layers, config.decay, refined, penalty
        )


class LightGCNNetwork(Network):
    """One table of ids, users before items.

    Args:
        user_items: training interactions.
        dim: d.
        layers: K.
        decay: weight of the penalty.
        item_graph: normalized item graph of "+GR"; None: none.
        penalty: of a batch's E^(0).
    """

    def __init__(
        self, user_items: CSR, dim: int, layers: int, decay: float, item_graph: CSR | None = None,
        penalty: Penalty = squares,
    ) -> None:  # fmt: skip
        super().__init__()
        self._n_users = user_items.n_rows
        self.table = embedding(sum(user_items.shape), dim)
        self._graph, self._item_graph = bipartite(user_items), item_graph
        self._layers, self._decay, self._penalty = layers, decay, penalty

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """
        h_user, h_item = self.vectors()
        ranking = bpr_loss(h_user, h_item, users, positives, negatives)
        first, second = self.table[self._n_users + positives], self.table[self._n_users + negatives]
        return ranking + self._decay * self._penalty(self.table[users], first, second)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return E of users and items; see Network."""
        mixed = propagate(self._graph, self.table, layers=self._layers, combine="mean")
        items = mixed[self._n_users :]
        if self._item_graph is not None:
            items = items + propagate(self._item_graph, self.table[self._n_users :], layers=1, combine="last")
        return mixed[: self._n_users], items

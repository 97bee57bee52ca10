"""MLLMRec: two towers over frozen features (docs/method.md, sections 3 and 4), and its ablations.

With E_U, E_I the frozen vectors of users and items and A the normalized item graph,

    E* = sum over l = 0..L of A^l E_I,   h_u = MLP_U(E_U)_u,   h_i = MLP_I(E*)_i,   y_ui = h_u . h_i,

trained by BPR. E* is a constant, computed once. Training touches only the two projectors, and only the distinct rows
of a batch pass them. Two variants need every row at each step and pay for it: user-item propagation, and ids with it.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from mllmrec_kernels import CSR, bpr_loss, mlp, propagate
from mllmrec_kernels.bpr.torch_op import bpr_of_rows
from torch import Tensor, nn

from mllmrec.config import Count, ModelConfig
from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, bipartite, embedding, unique_rows
from mllmrec.training.loop import Network

_WIDER, _SLOPE = 4, 0.01  # the hidden layer is 4 d wide; LeakyReLU's slope below 0


class MLLMRecConfig(ModelConfig):
    """Settings of MLLMRec; those of its training are in TrainConfig."""

    kind: Literal["mllmrec"] = "mllmrec"
    reasoning: bool = True  # False: the mean of a user's items stands in place of the profile
    user_item_layers: Count = 0  # GCN_UI; 2 in the paper's ablation
    ids: bool = False  # a learned embedding is added to each tower


class MLLMRec(NetworkModel):
    """See the module; without user features, the mean of a user's items stands for the profile."""

    Config = MLLMRecConfig
    config: MLLMRecConfig
    title = "MLLMRec"
    candidates = tuple((f"train.learning_rate={rate}",) for rate in (1e-3, 5e-4, 2e-3, 5e-3))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel."""
        train, features, users = self.context.train, data.required_items(self.title), data.users
        if users is None or not self.config.reasoning:
            users = mean_of_owned(features, data.user_items)
        propagated = propagate_items(features, self._graph(data), train.layers)
        return MLLMRecNetwork(
            torch.from_numpy(users),
            torch.from_numpy(propagated),
            train.dim,
            ids=self.config.ids,
            user_items=data.user_items,
            user_item_layers=self.config.user_item_layers,
        )


def propagate_items(items: Vectors, graph: CSR, layers: int) -> Vectors:
    """Return E* = sum over l = 0..L of A^l E, float32 [I, d_e]; with L = 0 it is E.

    Args:
        items: E, float32 [I, d_e].
        graph: A, normalized [I, I].
        layers: L.
    """
    return np.asarray(propagate(graph, items, layers=layers, combine="sum"), dtype=np.float32)


class Projector(nn.Module):
    """Map e to h = W2 LeakyReLU(W1 e + b1) + b2, from d_e through 4 d to d."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, _WIDER * dim)
        self.out = nn.Linear(_WIDER * dim, dim)

    def forward(self, table: Tensor, rows: Tensor | None = None) -> Tensor:
        """Return the projected rows of a table [N, d_e], or all of them: [B, d]."""
        return mlp(table, rows, self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias, slope=_SLOPE)


class MLLMRecNetwork(Network):
    """The two projectors over constant features.

    Args:
        users: float32 [U, d_e], frozen.
        items: float32 [I, d_e], frozen and propagated.
        dim: d.
        ids: add a learned embedding to each user and item.
        user_items: training interactions, for GCN_UI.
        user_item_layers: GCN_UI: h + sum over l of A_UI^l [h / |h|], l = 0..layers; 0: only h.
    """

    user_features: Tensor
    item_features: Tensor

    def __init__(
        self,
        users: Tensor,
        items: Tensor,
        dim: int,
        *,
        ids: bool = False,
        user_items: CSR | None = None,
        user_item_layers: int = 0,
    ) -> None:
        super().__init__()
        self.register_buffer("user_features", users, persistent=False)
        self.register_buffer("item_features", items, persistent=False)
        self.user = Projector(users.shape[1], dim)
        self.item = Projector(items.shape[1], dim)
        self.user_ids = embedding(len(users), dim) if ids else None
        self.item_ids = embedding(len(items), dim) if ids else None
        self._layers = user_item_layers
        self.shuffles_users = not ids and not user_item_layers
        self.replayable = self.own_threads = not user_item_layers
        self._graph = bipartite(user_items) if user_items is not None and user_item_layers else None

    def _users(self, rows: Tensor) -> Tensor:
        h: Tensor = self.user(self.user_features, rows)
        return h if self.user_ids is None else h + self.user_ids[rows]

    def _items(self, rows: Tensor) -> Tensor:
        h: Tensor = self.item(self.item_features, rows)
        return h if self.item_ids is None else h + self.item_ids[rows]

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch; on the CPU only distinct rows are projected.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """
        if self._graph is not None:
            return bpr_loss(*self.vectors(), users, positives, negatives)
        if users.is_cuda:
            h_items = self._items(torch.cat([positives, negatives]))
            return bpr_of_rows(self._users(users), h_items[: len(users)], h_items[len(users) :])
        rows, of_user = unique_rows(users)
        columns, of_item = unique_rows(torch.cat([positives, negatives]))
        of_positive, of_negative = of_item[: len(users)], of_item[len(users) :]
        return bpr_loss(self._users(rows), self._items(columns), of_user, of_positive, of_negative)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return h of users and items; see Network."""
        h_user, h_item = self.user(self.user_features), self.item(self.item_features)
        if self.user_ids is not None and self.item_ids is not None:
            h_user, h_item = h_user + self.user_ids, h_item + self.item_ids
        if self._graph is None:
            return h_user, h_item
        h = torch.cat([h_user, h_item]).float()
        h = h + propagate(self._graph, nn.functional.normalize(h), layers=self._layers, combine="sum")
        return h[: len(h_user)], h[len(h_user) :]

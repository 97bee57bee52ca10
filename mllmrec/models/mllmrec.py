"""MLLMRec itself: two towers over frozen features (method 2.7-2.8), and its ablations.

The item side is propagated over the item graph once, before training: with frozen features E* is a
constant. Training touches only the two projectors, and of a batch only its distinct rows pass them. The two
variants that need every row at each step, user-item propagation and nothing else, pay for it.
"""

from __future__ import annotations

import numpy as np
import torch
from mllmrec_kernels import CSR, bpr_loss, mlp, propagate
from mllmrec_kernels.bpr.torch_op import bpr_of_rows
from torch import Tensor, nn

from mllmrec.features.encode import Vectors
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.models.network import Network, bipartite, distinct, embedding

_WIDER, _SLOPE = 4, 0.01  # the hidden layer is 4 d wide; LeakyReLU's slope below 0


def propagated_items(items: Vectors, graph: ItemGraph, layers: int) -> Vectors:
    """E* = sum over l = 0..L of A^l E (method 2.7), float32 [I, d_e]; with L = 0 it is E."""
    return np.asarray(propagate(graph.normalised, items, layers=layers, combine="sum"), dtype=np.float32)


class Projector(nn.Module):
    """h = W2 LeakyReLU(W1 e + b1) + b2, from d_e through 4 d to d (method 2.8)."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, _WIDER * dim)
        self.out = nn.Linear(_WIDER * dim, dim)

    def forward(self, table: Tensor, rows: Tensor | None = None) -> Tensor:
        """The named rows of a table [N, d_e], or all of them: [B, d]."""
        return mlp(table, rows, self.hidden.weight, self.hidden.bias, self.out.weight, self.out.bias, slope=_SLOPE)


class MLLMRec(Network):
    """The two projectors over constant features.

    Args:
        users: float32 [U, d_e], frozen.
        items: float32 [I, d_e], frozen and propagated.
        dim: d.
        ids: add a learned embedding to each user and item.
        user_items: training interactions, for GCN_UI.
        user_item_layers: GCN_UI (method 2.8): h + sum over l of A_UI^l [h / |h|], l = 0..layers; 0: h alone.
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
        self.whole_users = not ids and not user_item_layers
        self.same_steps = self.own_threads = not user_item_layers
        self._graph = bipartite(user_items) if user_items is not None and user_item_layers else None

    def _users(self, rows: Tensor) -> Tensor:
        h: Tensor = self.user(self.user_features, rows)
        return h if self.user_ids is None else h + self.user_ids[rows]

    def _items(self, rows: Tensor) -> Tensor:
        h: Tensor = self.item(self.item_features, rows)
        return h if self.item_ids is None else h + self.item_ids[rows]

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """See Network; on the CPU only distinct rows are projected."""
        if self._graph is not None:
            return bpr_loss(*self.vectors(), users, positives, negatives)
        if users.is_cuda:
            h_items = self._items(torch.cat([positives, negatives]))
            return bpr_of_rows(self._users(users), h_items[: len(users)], h_items[len(users) :])
        rows, of_user = distinct(users)
        columns, of_item = distinct(torch.cat([positives, negatives]))
        of_positive, of_negative = of_item[: len(users)], of_item[len(users) :]
        return bpr_loss(self._users(rows), self._items(columns), of_user, of_positive, of_negative)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """See Network."""
        h_user, h_item = self.user(self.user_features), self.item(self.item_features)
        if self.user_ids is not None and self.item_ids is not None:
            h_user, h_item = h_user + self.user_ids, h_item + self.item_ids
        if self._graph is None:
            return h_user, h_item
        h = torch.cat([h_user, h_item]).float()
        h = h + propagate(self._graph, nn.functional.normalize(h), layers=self._layers, combine="sum")
        return h[: len(h_user)], h[len(h_user) :]

"""MLLMRec itself: two towers over frozen features (method 2.7-2.8).

The item side is propagated over the item graph once, before training: with frozen features E* is a
constant. Training touches only the two projectors.
"""

from __future__ import annotations

import numpy as np
from mllmrec_kernels import propagate
from torch import Tensor, nn

from mllmrec.encode import Vectors
from mllmrec.graph import ItemGraph

_WIDER = 4  # the hidden layer is 4 d wide


def propagated_items(items: Vectors, graph: ItemGraph, layers: int) -> Vectors:
    """E* = sum over l = 0..L of A^l E (method 2.7), float32 [I, d_e]; with L = 0 it is E."""
    return np.asarray(propagate(graph.normalised, items, layers=layers, combine="sum"), dtype=np.float32)


class Projector(nn.Module):
    """h = W2 LeakyReLU(W1 e + b1) + b2, from d_e through 4 d to d (method 2.8)."""

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, _WIDER * dim)
        self.out = nn.Linear(_WIDER * dim, dim)

    def forward(self, rows: Tensor) -> Tensor:
        """[B, d_e] -> [B, d]."""
        projected: Tensor = self.out(nn.functional.leaky_relu(self.hidden(rows), negative_slope=0.01))
        return projected


class MLLMRec(nn.Module):
    """The two projectors."""

    def __init__(self, user_features: int, item_features: int, dim: int) -> None:
        super().__init__()
        self.user = Projector(user_features, dim)
        self.item = Projector(item_features, dim)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """BPR (method 2.8): the mean over the batch of -log sigma(y_ui - y_uj).

        Args:
            users: float32 [B, d], projected users.
            positives, negatives: float32 [B, d], projected items.
        """
        difference = (users * (positives - negatives)).sum(dim=1)
        return nn.functional.softplus(-difference).mean()

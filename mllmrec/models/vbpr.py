"""VBPR: BPR-MF with item features.

He and McAuley, VBPR: Visual Bayesian Personalized Ranking from Implicit Feedback, AAAI 2016, equation 4. With frozen
features f_i, ids g and tastes t,

    y_ui = b_i + g_u . g_i + t_u . E f_i + B . f_i.

The decay weighs the L2 norms of a batch's ids and tastes, of E and of B.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from mllmrec_kernels.bpr.torch_op import bpr_of_rows
from pydantic import Field
from torch import Tensor, nn

from mllmrec.config import ModelConfig
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, embedding, rate_candidates, squares
from mllmrec.training.loop import Network


class VBPRConfig(ModelConfig):
    """Settings of VBPR."""

    kind: Literal["vbpr"] = "vbpr"
    decay: Annotated[float, Field(ge=0)] = 1e-4  # weight of the L2 penalty


class VBPR(NetworkModel):
    """See the module."""

    Config = VBPRConfig
    config: VBPRConfig
    title = "VBPR"
    reads = frozenset({"items"})
    candidates = rate_candidates("model.decay", (1e-4, 1e-3, 1e-2))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel."""
        features = torch.from_numpy(data.required_items(self.title))
        return VBPRNetwork(data.user_items.n_rows, features, self.context.train.dim, self.config.decay)


class VBPRNetwork(Network):
    """Ids, tastes, E and B.

    Args:
        users: number of users.
        features: f, float32 [I, d_e], frozen.
        dim: d; g and t have half of it each.
        decay: weight of the L2 penalty.
    """

    replayable = True
    features: Tensor

    def __init__(self, users: int, features: Tensor, dim: int, decay: float) -> None:
        super().__init__()
        half = max(1, dim // 2)
        self.register_buffer("features", features, persistent=False)
        self.user_ids, self.item_ids = embedding(users, half), embedding(len(features), half)
        self.user_tastes = embedding(users, half)
        self.project = embedding(features.shape[1], half)  # E, transposed
        self.feature_bias = nn.Parameter(torch.zeros(features.shape[1], 1))  # B
        self.bias = nn.Parameter(torch.zeros(len(features), 1))
        self._decay = decay

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """
        tables = self.user_ids[users], self.user_tastes[users], self.item_ids[positives], self.item_ids[negatives]
        shrink = squares(*tables) + (self.project.square().sum() + self.feature_bias.square().sum()) / 2
        return bpr_of_rows(self._users(users), self._items(positives), self._items(negatives)) + self._decay * shrink

    def _users(self, rows: Tensor) -> Tensor:
        ones = torch.ones(len(rows), 1, device=rows.device)
        return torch.cat([self.user_ids[rows], self.user_tastes[rows], ones], dim=1)

    def _items(self, rows: Tensor) -> Tensor:
        f = self.features[rows]
        return torch.cat([self.item_ids[rows], f @ self.project, self.bias[rows] + f @ self.feature_bias], dim=1)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return [g, t, 1] and [g, E f, b + B f]; see Network."""
        users = torch.arange(len(self.user_ids), device=self.features.device)
        return self._users(users), self._items(torch.arange(len(self.features), device=self.features.device))

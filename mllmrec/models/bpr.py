"""BPR-MF: matrix factorization by Bayesian personalized ranking.

Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, UAI 2009, section 4.3.1. With p_u, q_i of
width d and an item's bias b_i (the user's bias falls out of the ranking),

    y_ui = p_u . q_i + b_i,   loss = mean of -log sigma(y_ui - y_uj) + decay x penalty(p_u, q_i, q_j).

p and q start Xavier normal, as in RecBole and MMRec; the tables of the other networks start Xavier uniform.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from mllmrec_kernels.bpr.torch_op import bpr_of_rows
from pydantic import Field
from torch import Tensor, nn

from mllmrec.config import ModelConfig
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, Penalty, PenaltyName, penalty_of, rate_candidates, squares
from mllmrec.training.loop import Network


class BPRConfig(ModelConfig):
    """Settings of BPR-MF."""

    kind: Literal["bpr"] = "bpr"
    decay: Annotated[float, Field(ge=0)] = 1e-4  # weight of the penalty
    penalty: PenaltyName = "squares"  # norms: as RecBole and MMRec have it
    bias: bool = True  # items have a bias


class BPR(NetworkModel):
    """See the module."""

    Config = BPRConfig
    config: BPRConfig
    title = "BPR-MF"
    reads = frozenset()
    candidates = rate_candidates("model.decay", (1e-2, 2e-2, 1e-3))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel."""
        dim, config = self.context.train.dim, self.config
        return BPRNetwork(*data.user_items.shape, dim, config.decay, penalty_of(config.penalty), bias=config.bias)


class BPRNetwork(Network):
    """The two tables.

    Args:
        users: number of users.
        items: number of items.
        dim: width of p and q.
        decay: weight of the penalty.
        penalty: of a batch's p and q.
        bias: whether b_i is learned; otherwise it stays 0.
    """

    replayable = True

    def __init__(
        self, users: int, items: int, dim: int, decay: float, penalty: Penalty = squares, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.users, self.items = (nn.Parameter(nn.init.xavier_normal_(torch.empty(n, dim))) for n in (users, items))
        self.bias = nn.Parameter(torch.zeros(items, 1), requires_grad=bias)
        self._decay, self._penalty = decay, penalty

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """
        p, q, r = self.users[users], self.items[positives], self.items[negatives]
        ranking = bpr_of_rows(self._with_one(p), self._with_bias(q, positives), self._with_bias(r, negatives))
        return ranking + self._decay * self._penalty(p, q, r)

    def _with_one(self, p: Tensor) -> Tensor:
        return torch.cat([p, torch.ones_like(p[:, :1])], dim=1)

    def _with_bias(self, q: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([q, self.bias[rows]], dim=1)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return [p, 1] and [q, b]; see Network."""
        return self._with_one(self.users), torch.cat([self.items, self.bias], dim=1)

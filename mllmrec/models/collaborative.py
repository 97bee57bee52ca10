"""Yardsticks that learn ids: BPR-MF, VBPR and LightGCN, each as its paper's equations have it."""

from __future__ import annotations

import torch
from mllmrec_kernels import CSR, bpr_loss, propagate
from mllmrec_kernels.bpr.torch_op import bpr_of_rows
from torch import Tensor, nn

from mllmrec.models.network import Network, Penalty, bipartite, embedding, squares


class BPRMF(Network):
    """y_ui = p_u . q_i + b_i (Rendle et al., BPR, UAI 2009; the user's bias falls out of the ranking).

    p and q start Xavier normal, as in RecBole and MMRec, the tables of the other networks Xavier uniform.

    Args:
        users, items: how many there are.
        dim: width of p and q.
        decay: weight of the penalty.
        penalty: what is said of a batch's p and q.
        bias: whether b_i is learnt; otherwise it stays 0.
    """

    same_steps = True

    def __init__(
        self, users: int, items: int, dim: int, decay: float, penalty: Penalty = squares, *, bias: bool = True
    ) -> None:
        super().__init__()
        self.users, self.items = (nn.Parameter(nn.init.xavier_normal_(torch.empty(n, dim))) for n in (users, items))
        self.bias = nn.Parameter(torch.zeros(items, 1), requires_grad=bias)
        self._decay, self._penalty = decay, penalty

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """See Network."""
        p, q, r = self.users[users], self.items[positives], self.items[negatives]
        better = bpr_of_rows(self._with_one(p), self._with_bias(q, positives), self._with_bias(r, negatives))
        return better + self._decay * self._penalty(p, q, r)

    def _with_one(self, p: Tensor) -> Tensor:
        return torch.cat([p, torch.ones_like(p[:, :1])], dim=1)

    def _with_bias(self, q: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([q, self.bias[rows]], dim=1)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """See Network."""
        return self._with_one(self.users), torch.cat([self.items, self.bias], dim=1)


class VBPR(Network):
    """y_ui = b_i + g_u . g_i + t_u . E f_i + B . f_i (He and McAuley, VBPR, AAAI 2016, equation 4).

    Args:
        users: number of users.
        features: f, float32 [I, d_e], frozen.
        dim: width of g and of t, each half of the model's d.
        decay: L2 of a batch's ids, of E and of B.
    """

    same_steps = True
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
        """See Network."""
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
        """See Network."""
        everybody = torch.arange(len(self.user_ids), device=self.features.device)
        return self._users(everybody), self._items(torch.arange(len(self.features), device=self.features.device))


class LightGCN(Network):
    """E = mean over k = 0..K of A^k E^(0) (He et al., LightGCN, SIGIR 2020, equations 3-8, a_k = 1 / (K + 1)).

    Args:
        user_items: training interactions.
        dim: d.
        layers: K.
        decay: weight of the penalty.
        item_graph: graph refinement (+GR): a normalised item graph whose one step over the items' E^(0) is
            added to their vectors, as FREEDOM adds its own.
        penalty: what is said of a batch's E^(0).
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
        """See Network."""
        h_user, h_item = self.vectors()
        ranked = bpr_loss(h_user, h_item, users, positives, negatives)
        first, second = self.table[self._n_users + positives], self.table[self._n_users + negatives]
        return ranked + self._decay * self._penalty(self.table[users], first, second)

    def vectors(self) -> tuple[Tensor, Tensor]:
        """See Network."""
        mixed = propagate(self._graph, self.table, layers=self._layers, combine="mean")
        items = mixed[self._n_users :]
        if self._item_graph is not None:
            items = items + propagate(self._item_graph, self.table[self._n_users :], layers=1, combine="last")
        return mixed[: self._n_users], items

"""CLCRec: contrastive learning that lets an item's content stand for its embedding.

Wei et al., Contrastive Learning for Cold-Start Item Recommendation, ACM Multimedia 2021. With p_u and q_i embeddings
of ids, f_i frozen features, z_i = W2 leaky_relu(W1 f_i + b1) + b2, and N negatives that a batch shares,

    L(a, i) = -log( exp(a . x_i / t) / (exp(a . x_i / t) + sum over negatives j of exp(a . x_j / t)) )
    loss    = w L_RE + (1 - w) L_UI + decay x |p_u, q_i, q_j|^2 / 2

    L_RE   re-expression: a = q_i, x = z, all of unit length: the content says which embedding is the item's
    L_UI   a = p_u, x = q or, for a share of the items drawn anew for each batch, z: content in an embedding's place

The score is p_u . q_i of a warm item, with training interactions, and p_u . z_i of a cold one, without any.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, leaky_relu, normalize

from mllmrec.config import ModelConfig, Positive, Share
from mllmrec.evaluation.groups import is_warm
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, embedding, rate_candidates, squares
from mllmrec.training.loop import Network

_HIDDEN = 256  # width between the two layers of the content's encoder


class CLCRecConfig(ModelConfig):
    """Settings of CLCRec."""

    kind: Literal["clcrec"] = "clcrec"
    temperature: Annotated[float, Field(gt=0)] = 0.2  # t
    reexpression: Share = 0.5  # w
    replaced: Share = 0.5  # share of a batch's items whose content stands for their embedding
    n_negatives: Positive = 256  # N
    decay: Annotated[float, Field(ge=0)] = 1e-4  # L2 of a batch's embeddings


class CLCRec(NetworkModel):
    """See the module."""

    Config = CLCRecConfig
    config: CLCRecConfig
    title = "CLCRec"
    reads = frozenset({"items"})
    candidates = rate_candidates("model.temperature", (0.2, 0.5, 2.0))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel."""
        features = torch.from_numpy(np.ascontiguousarray(data.required_items(self.title), np.float32))
        warm = is_warm(data.user_items)
        dim = self.context.train.dim
        return CLCRecNetwork(data.user_items.n_rows, features, torch.from_numpy(warm), dim, self.config)


class CLCRecNetwork(Network):
    """Ids of users and items, and the encoder of content.

    Args:
        users: number of users.
        features: f, float32 [I, d_e], frozen.
        warm: bool [I], items with training interactions.
        dim: d of embeddings and content.
        config: settings of the loss.
    """

    features: Tensor
    warm: Tensor

    def __init__(self, users: int, features: Tensor, warm: Tensor, dim: int, config: CLCRecConfig) -> None:
        super().__init__()
        self.register_buffer("features", features, persistent=False)
        self.register_buffer("warm", warm, persistent=False)
        self.user_ids, self.item_ids = embedding(users, dim), embedding(len(features), dim)
        self.first, self.second = nn.Linear(features.shape[1], _HIDDEN), nn.Linear(_HIDDEN, dim)
        self._config, self._generator = config, torch.Generator()

    def start_epoch(self, generator: np.random.Generator) -> None:
        """Seed the draws of replaced items."""
        self._generator.manual_seed(int(generator.integers(2**63)))

    def _content(self, rows: Tensor) -> Tensor:
        """Return z of items [n], float32 [n, d]."""
        encoded: Tensor = self.second(leaky_relu(self.first(self.features[rows])))
        return encoded

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have; the first N serve the whole batch.
        """
        config, shared = self._config, negatives[: self._config.n_negatives]
        items = torch.cat([positives, shared])
        z, q, p = self._content(items), self.item_ids[items], self.user_ids[users]
        draw = torch.rand(len(items), generator=self._generator).to(items.device)
        x = torch.where((draw < config.replaced)[:, None], z, q)
        of_items = self._contrast(normalize(q[: len(users)], dim=1), normalize(z, dim=1))
        of_users = self._contrast(p, x)
        shrink = squares(p, q[: len(users)], self.item_ids[shared])
        return config.reexpression * of_items + (1 - config.reexpression) * of_users + config.decay * shrink

    def _contrast(self, anchors: Tensor, candidates: Tensor) -> Tensor:
        """Return the mean of L: anchors [B, d] against their own candidate and the shared ones, [B + N, d]."""
        own = (anchors * candidates[: len(anchors)]).sum(dim=1, keepdim=True)
        others = anchors @ candidates[len(anchors) :].T
        scores = torch.cat([own, others], dim=1) / self._config.temperature
        return cross_entropy(scores, torch.zeros(len(anchors), dtype=torch.int64, device=scores.device))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return p, and q of warm items beside z of cold ones; see Network."""
        every = torch.arange(len(self.features), device=self.features.device)
        return self.user_ids.detach(), torch.where(self.warm[:, None], self.item_ids, self._content(every))

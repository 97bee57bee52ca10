"""AlphaRec: a projection of frozen language-model vectors, with no table of ids.

Sheng et al., Language Representations Can be What Recommenders Need: Findings and Potentials, ICLR 2025. v_i is the
vector of item i, v_u the mean of the vectors of user u's training items, and f one perceptron for both,
d -> d / 2 -> width with LeakyReLU. B is the symmetrically normalized user-item graph:

    Z = 1 / (K + 1) sum over k = 0..K of B^k f(v),   score_ui = cos(z_u, z_i),
    loss = mean of -log( exp(y_ui / tau) / (exp(y_ui / tau) + sum over negatives j of exp(y_uj / tau)) ).

The negatives of a batch are shared: the first `negatives` of those that the trainer draws for its pairs.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from mllmrec_kernels import CSR, propagate
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from mllmrec.config import Count, ModelConfig, Positive
from mllmrec.features.encode import Vectors, mean_of_owned
from mllmrec.models.base import FitData
from mllmrec.models.network_model import NetworkModel, bipartite, rate_candidates
from mllmrec.training.loop import Network


class AlphaRecConfig(ModelConfig):
    """Settings of AlphaRec."""

    kind: Literal["alpharec"] = "alpharec"
    temperature: Annotated[float, Field(gt=0)] = 0.15  # tau
    negatives: Positive = 256  # of a batch
    gcn_layers: Count = 2  # K


class AlphaRec(NetworkModel):
    """See the module."""

    Config = AlphaRecConfig
    config: AlphaRecConfig
    title = "AlphaRec"
    reads = frozenset({"items"})
    candidates = rate_candidates("model.temperature", (0.15, 0.2), (1e-3, 3e-3))

    def build(self, data: FitData) -> Network:
        """Return the untrained network; see NetworkModel.

        Raises:
            InputError: there are no item vectors.
        """
        return AlphaRecNetwork(data.user_items, data.required_items(self.title), self.context.train.dim, self.config)


class AlphaRecNetwork(Network):
    """One perceptron for users and items.

    Args:
        user_items: training interactions.
        vectors: float32 [I, d], frozen.
        dim: width of Z.
        config: temperature, negatives, layers.
    """

    def __init__(self, user_items: CSR, vectors: Vectors, dim: int, config: AlphaRecConfig) -> None:
        super().__init__()
        self._n_users, self._config, self._graph = user_items.n_rows, config, bipartite(user_items)
        frozen = torch.cat([torch.from_numpy(mean_of_owned(vectors, user_items)), torch.from_numpy(vectors)])
        self.register_buffer("_frozen", frozen, persistent=False)
        width = max(1, vectors.shape[1] // 2)
        self.project = nn.Sequential(nn.Linear(vectors.shape[1], width), nn.LeakyReLU(), nn.Linear(width, dim))

    _frozen: Tensor  # [U + I, d]

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], drawn for the pairs.
        """
        z_user, z_item = self.vectors()
        z = z_user[users]
        positive = (z * z_item[positives]).sum(dim=1, keepdim=True)
        others = z @ z_item[negatives[: self._config.negatives].clamp(min=0)].T
        scores = torch.cat([positive, others], dim=1) / self._config.temperature
        return functional.cross_entropy(scores, torch.zeros(len(users), dtype=torch.int64, device=users.device))

    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return Z of users and items, of unit rows; see Network."""
        mixed = propagate(self._graph, self.project(self._frozen), layers=self._config.gcn_layers, combine="mean")
        unit = functional.normalize(mixed, dim=1)
        return unit[: self._n_users], unit[self._n_users :]

"""Turbo-CF and MM-GF: polynomial filters of item similarities, without training.

Park et al., Turbo-CF: Matrix Decomposition-Free Graph Filtering for Fast Recommendation, SIGIR 2024: with P of
item_filter.py and a polynomial f of it,

    score_u = R_u f(P).

Roh et al., MM-GF: Multi-Modal Graph Filtering (arXiv 2503.04406), adds the same filter on item vectors, here one table
of them, with its own weight b:

    score_u = R_u (f(P) + b f(P_V)).

Both papers fit on training and validation interactions together; these read only training. P and f(P) keep their
`neighbors` strongest entries per item. Memory: I x neighbors.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from mllmrec.config import ModelConfig, Positive, Share
from mllmrec.models.base import FitData
from mllmrec.models.item_filter import (
    Filter,
    apply_filter,
    as_weights,
    similar_by_users,
    similar_by_vectors,
)
from mllmrec.models.item_weight_model import ItemWeightModel


class TurboCFConfig(ModelConfig):
    """Settings of Turbo-CF."""

    kind: Literal["turbo-cf"] = "turbo-cf"
    filter: Filter = "linear"  # f
    exponent: Share = 0.5  # a
    power: Annotated[float, Field(gt=0)] = 1.0  # s
    neighbors: Positive = 1000  # entries kept an item


class TurboCF(ItemWeightModel):
    """See the module."""

    Config = TurboCFConfig
    config: TurboCFConfig
    title = "Turbo-CF"
    reads = frozenset()
    candidates = tuple(
        (f"model.filter={form}", f"model.power={power}")
        for form in ("linear", "second", "third")
        for power in (1.0, 0.7, 0.5)
    )

    def _fit(self, data: FitData) -> None:
        """Compute f(P)."""
        R, config = data.user_items, self.config
        P = similar_by_users(R, config.exponent, config.power, config.neighbors)
        self.set_weights(R, as_weights(apply_filter(P, config.filter, config.neighbors, self.context.progress)))


class MMGFConfig(ModelConfig):
    """Settings of MM-GF."""

    kind: Literal["mm-gf"] = "mm-gf"
    filter: Filter = "linear"  # f
    exponent: Share = 0.5  # a
    power: Annotated[float, Field(gt=0)] = 0.7  # s
    content_weight: Annotated[float, Field(ge=0)] = 3.0  # b
    neighbors: Positive = 1000  # entries kept an item


class MMGF(ItemWeightModel):
    """See the module; without item features it is Turbo-CF."""

    Config = MMGFConfig
    config: MMGFConfig
    title = "MM-GF"
    reads = frozenset({"items"})
    candidates = tuple(
        (f"model.content_weight={b}", f"model.power={power}") for b in (3, 1, 10) for power in (0.7, 1.0, 0.5)
    )

    def _fit(self, data: FitData) -> None:
        """Compute f(P) + b f(P_V)."""
        R, config, progress = data.user_items, self.config, self.context.progress
        settings = config.exponent, config.power, config.neighbors
        weights = apply_filter(similar_by_users(R, *settings), config.filter, config.neighbors, progress)
        if data.items is not None and config.content_weight:
            P = similar_by_vectors(data.items, *settings)
            weights = weights + config.content_weight * apply_filter(P, config.filter, config.neighbors, progress)
        self.set_weights(R, as_weights(weights))

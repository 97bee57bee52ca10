"""Item-to-item transitions: what users take after an item, within a few places.

The yardstick of data with time. Items of a user stand in their order; j follows i at distance t where t - 1 items lie
between them and j is strictly later. With the sum over all users, for t up to a window L,

    T_ij = sum of 1 / t over all places where j follows i,   W_ij = T_ij / (n_i n_j)^b,   score_u = R_u W,

R_u with a half-life of u's items (recency.py). T is not symmetric. Memory: |R| L.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from pydantic import Field

from mllmrec.config import ModelConfig, Positive
from mllmrec.dataset import Histories
from mllmrec.errors import InputError
from mllmrec.models.base import FitData
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.recency import HalfLives


class TransitionsConfig(ModelConfig):
    """Settings of the transitions."""

    kind: Literal["transitions"] = "transitions"
    window: Positive = 5  # L, places
    popularity_exponent: Annotated[float, Field(ge=0, le=1)] = 0.5  # b
    half_lives: HalfLives = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)  # of a user's items; validation chooses


class Transitions(ItemWeightModel):
    """See the module."""

    Config = TransitionsConfig
    config: TransitionsConfig
    title = "item transitions"
    reads = frozenset()
    candidates = tuple(
        (f"model.window={window}", f"model.popularity_exponent={b}") for window in (5, 2, 20) for b in (0.5, 0.3, 0.7)
    )

    def _fit(self, data: FitData) -> None:
        """Count transitions.

        Raises:
            InputError: the training interactions have no order.
        """
        config, seen = self.config, required_order(self.context.histories, self.title)
        W = transition_weights(data.user_items, seen, config.window, config.popularity_exponent)
        self.choose_rows(data, W, config.half_lives)


def transition_weights(user_items: CSR, histories: Histories, window: int = 5, exponent: float = 0.5) -> CSR:
    """Return W of the module, [I, I].

    Args:
        user_items: R, binary [U, I].
        histories: the same interactions in their order.
        window: L.
        exponent: b.
    """
    counts = np.bincount(user_items.indices, minlength=user_items.n_columns)
    scale = sp.diags_array(np.maximum(counts, 1) ** -exponent)
    return CSR.from_scipy(sp.csr_array(scale @ count_transitions(histories, window) @ scale))


def required_order(histories: Histories | None, title: str) -> Histories:
    """Return the histories.

    Args:
        histories: of a run; None: there is none.
        title: of the model that needs their order.

    Raises:
        InputError: they have no order.
    """
    if histories is None or histories.times is None:
        raise InputError(
            f"{title} needs times or places of the training interactions; prepare the dataset with --column "
            "timestamp=NAME, or leave this model out"
        )
    return histories


def count_transitions(histories: Histories, window: int) -> sp.csr_array:
    """Return T of the module, float64 [I, I].

    Args:
        histories: training histories with an order.
        window: L.
    """
    times, items = required_order(histories, "a transition").times, histories.items
    users = np.repeat(np.arange(histories.n_users), np.diff(histories.indptr))
    total = sp.csr_array((histories.n_items, histories.n_items), dtype=np.float64)
    if times is None:
        return total
    for distance in range(1, min(window, int(np.diff(histories.indptr).max(initial=1)) - 1) + 1):
        kept = (users[:-distance] == users[distance:]) & (times[:-distance] < times[distance:])
        pairs = items[:-distance][kept], items[distance:][kept]
        total = total + sp.csr_array((np.full(kept.sum(), 1 / distance), pairs), shape=total.shape)
    return sp.csr_array(total)

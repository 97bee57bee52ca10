"""EASE with knowledge of item vectors: L3AE, and Additive EASE.

Moon et al., LLM-Enhanced Linear Autoencoders for Recommendation, CIKM 2025. With R [U, I] the interactions,
G = R^T R and V [I, d] the item vectors, both regress each item on the vectors of all others:

    P_V = (V V^T + lambda_V I)^-1,   C_ij = -P_V,ij / P_V,jj,   C_jj = 0.

L3AE shrinks EASE's weights to C instead of to 0. It minimizes |R - R B|² + lambda |B|² + w |B - C|² with B_jj = 0:

    P = (G + (lambda + w) I)^-1,   B = w P C - P diag((1 + w (P C)_jj) / P_jj),   B_jj = 0,   score_u = R_u B.

Its authors take lambda below 0, so only lambda + w must be above it. Additive EASE adds what each side gives by itself:

    B_R = EASE of G + lambda I,   score_u = R_u (g B_R + (1 - g) C).

Without item features C is 0. C is never formed: off its diagonal it is left right^T, of two tables [I, d]. Its diagonal
has no part in B, for B_jj = 0 whatever it is pulled to. With Y = w P left,

    B = Y right^T - P diag((1 + y_j . right_j) / P_jj),   B_jj = 0.

Memory: dense_weights.py.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mllmrec.config import Share
from mllmrec.models.base import FitData
from mllmrec.models.dense_weights import (
    Factors,
    add_to_diagonal,
    gram_of_items,
    invert,
    refuse_large,
    regression_of_vectors,
    weights_of,
)
from mllmrec.models.ease import DenseConfig
from mllmrec.models.item_weight_model import ItemWeightModel


class L3AEConfig(DenseConfig):
    """Settings of L3AE."""

    kind: Literal["l3ae"] = "l3ae"
    regularization: float = -50.0  # lambda
    content_pull: Annotated[float, Field(ge=0)] = 150.0  # w
    content_regularization: Annotated[float, Field(gt=0)] = 10.0  # lambda_V

    @model_validator(mode="after")
    def _check_sum(self) -> Self:
        if self.regularization + self.content_pull <= 0:
            raise ValueError("regularization and content_pull must together be above 0")
        return self


class L3AE(ItemWeightModel):
    """See the module."""

    Config = L3AEConfig
    config: L3AEConfig
    title = "L3AE"
    reads = frozenset({"items"})
    candidates = tuple(
        (f"model.content_pull={w}", f"model.regularization={lam}") for w in (150, 100, 200) for lam in (-50, 0, -75)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B.

        Raises:
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`, or a regularization is lost
                in rounding.
        """
        R, config, progress = data.user_items, self.config, self.context.progress
        refuse_large(self.title, R.n_columns, config.dense_gib)
        progress("fit L3AE", 0, 2)
        C = regression_of_vectors(data.items_or_zeros(), config.content_regularization, self.title)
        w = config.content_pull
        G = gram_of_items(R)
        add_to_diagonal(G, config.regularization + w)
        progress("fit L3AE", 1, 2)
        invert(G, self.title)
        Y = w * (G @ C.left)
        B = weights_of(G, (1 + (Y * C.right).sum(axis=1)) / np.diag(G), Factors(Y, C.right))
        progress("fit L3AE", 2, 2)
        self.set_weights(R, B)


class AdditiveEASEConfig(DenseConfig):
    """Settings of Additive EASE."""

    kind: Literal["additive-ease"] = "additive-ease"
    content_regularization: Annotated[float, Field(gt=0)] = 10.0  # lambda_V
    interaction_share: Share = 0.7  # g


class AdditiveEASE(ItemWeightModel):
    """See the module."""

    Config = AdditiveEASEConfig
    config: AdditiveEASEConfig
    title = "Additive EASE"
    reads = frozenset({"items"})
    candidates = tuple(
        (f"model.interaction_share={g}", f"model.regularization={lam}")
        for g in (0.7, 0.5, 0.9)
        for lam in (50, 100, 200)
    )

    def _fit(self, data: FitData) -> None:
        """Fit both sides.

        Raises:
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`, or a regularization is lost
                in rounding.
        """
        R, config, progress = data.user_items, self.config, self.context.progress
        refuse_large(self.title, R.n_columns, config.dense_gib)
        progress("fit Additive EASE", 0, 2)
        C = regression_of_vectors(data.items_or_zeros(), config.content_regularization, self.title)
        g = config.interaction_share
        G = gram_of_items(R)
        add_to_diagonal(G, config.regularization)
        progress("fit Additive EASE", 1, 2)
        invert(G, self.title)
        B = weights_of(G, g / np.diag(G), Factors((1 - g) * C.left, C.right))
        progress("fit Additive EASE", 2, 2)
        self.set_weights(R, B)

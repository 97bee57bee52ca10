"""EASE with knowledge of item vectors: L3AE, and Additive EASE.

Moon et al., LLM-Enhanced Linear Autoencoders for Recommendation, CIKM 2025. With R [U, I] the interactions,
G = R^T R and V [I, d] the item vectors, both regress each item on the vectors of all others:

    P_V = (V V^T + lambda_V I)^-1,   C_ij = -P_V,ij / P_V,jj,   C_jj = 0.

L3AE shrinks EASE's weights to C instead of to 0. It minimizes |R - R B|² + lambda |B|² + w |B - C|² with B_jj = 0:

    P = (G + (lambda + w) I)^-1,   B = w P C - P diag((1 + w (P C)_jj) / P_jj),   B_jj = 0,   score_u = R_u B.

Its authors take lambda below 0, so only lambda + w must be above it. Additive EASE adds what each side gives by itself:

    B_R = EASE of G + lambda I,   score_u = R_u (g B_R + (1 - g) C).

Without item features C is 0. Memory: seven float64 matrices of I x I at the peak.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from mllmrec.config import Share
from mllmrec.features.encode import Vectors
from mllmrec.models.base import FitData
from mllmrec.models.ease import (
    DenseConfig,
    Square,
    gram_of_items,
    inverse,
    refuse_large,
    regressed_items,
)
from mllmrec.models.item_weight_model import ItemWeightModel

_DENSE_MATRICES = 7  # float64, I x I, at the peak


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
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`.
        """
        R, config, progress = data.user_items, self.config, self.context.progress
        refuse_large(self.title, R.n_columns, _DENSE_MATRICES, config.dense_gib)
        progress("fit L3AE", 0, 2)
        C = content_weights(data.items_or_zeros(), config.content_regularization, self.title)
        progress("fit L3AE", 1, 2)
        G, w = gram_of_items(R), config.content_pull
        G[np.diag_indices(len(G))] += config.regularization + w
        P = inverse(G, self.title)
        PC = w * (P @ C)
        B = PC - P * ((1 + np.diag(PC)) / np.diag(P))
        np.fill_diagonal(B, 0)
        progress("fit L3AE", 2, 2)
        self.set_weights(R, B.astype(np.float32))


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
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`.
        """
        R, config, progress = data.user_items, self.config, self.context.progress
        refuse_large(self.title, R.n_columns, _DENSE_MATRICES, config.dense_gib)
        progress("fit Additive EASE", 0, 2)
        C = content_weights(data.items_or_zeros(), config.content_regularization, self.title)
        progress("fit Additive EASE", 1, 2)
        G, g = gram_of_items(R), config.interaction_share
        G[np.diag_indices(len(G))] += config.regularization
        B = g * regressed_items(inverse(G, self.title)) + (1 - g) * C
        progress("fit Additive EASE", 2, 2)
        self.set_weights(R, B.astype(np.float32))


def content_weights(vectors: Vectors, regularization: float, title: str) -> Square:
    """Return C of the module, float64 [I, I].

    Args:
        vectors: V, float32 [I, d].
        regularization: lambda_V > 0.
        title: of the model, as an error names it.
    """
    V = vectors.astype(np.float64)
    gram = V @ V.T
    gram[np.diag_indices(len(gram))] += regularization
    return regressed_items(inverse(gram, title))

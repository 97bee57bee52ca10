"""EASE: each item regressed on all others, in closed form; two variants of it.

Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8. With R [U, I] the interactions,

    P = (R^T R + lambda I)^-1,   B_ij = -P_ij / P_jj,   B_jj = 0,   score_u = R_u B.

With item vectors V [I, d], R^T R + w V V^T stands for R^T R: EASE on the interactions with sqrt(w) V^T stacked below
as further users. Memory: dense_weights.py.

**Neighbors' columns.** EASE gives a cold item, one without a training interaction, only the weights of its content.
`EASENeighbors` scores it as the warm items of the nearest vectors. With N_c the 20 nearest warm items of a cold item c
by cosine, and s_cj these cosines, none below 0,

    B_:c = scale x (sum over j in N_c of s_cj B_:j) / (sum over j in N_c of s_cj).

The scale weighs cold items against warm ones in one ranking: what they gain, warm ones lose.

**Dropout.** Steck, Autoencoders that don't overfit towards the Identity, NeurIPS 2020: dropping each interaction with
probability p and predicting the dropped ones gives, in expectation, a penalty that grows with an item's users,

    L = lambda I + p / (1 - p) diag(G),   G = R^T R,   P = (G + L)^-1.

EDLAE keeps the diagonal of B at 0; RDLAE (Moon et al., It's Enough: Relaxing Diagonal Constraints in Linear
Autoencoders for Recommendation, SIGIR 2023) lets it rise to x:

    B = I - P diag(max(L_jj, (1 - x) / P_jj)),   score_u = R_u B.

With x = 0 that is EDLAE, with p = 0 besides it is EASE. The diagonal touches only a user's own items, which are not
recommended, and is stored as 0.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mllmrec.config import ModelConfig, Share
from mllmrec.evaluation.groups import is_warm
from mllmrec.models.base import FitData
from mllmrec.models.dense_weights import (
    add_products,
    add_to_diagonal,
    gram_of_items,
    invert,
    refuse_large,
    weights_of,
)
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.new_items import place
from mllmrec.models.recency import HalfLives
from mllmrec.models.ridge import strength_candidates


class DenseConfig(ModelConfig):
    """Settings of a model that holds matrices of items x items."""

    regularization: Annotated[float, Field(gt=0)] = 50.0  # lambda
    dense_gib: Annotated[float, Field(gt=0)] = 8.0  # the most that the dense matrices may take


class EASEConfig(DenseConfig):
    """Settings of EASE."""

    kind: Literal["ease"] = "ease"
    content_weight: Annotated[float, Field(ge=0)] = 20.0  # w; 0: only interactions
    half_lives: HalfLives = (0.0,)  # of a user's items; of several, validation chooses


class EASE(ItemWeightModel):
    """See the module; without item features, content counts nothing."""

    Config = EASEConfig
    config: EASEConfig
    title = "EASE"
    reads = frozenset({"items"})
    candidates = strength_candidates(
        (20, 50), (20, 100), (40, 100), (40, 200), (100, 200), (10, 50), (10, 100), (40, 400), (100, 400)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B.

        Raises:
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`, or G is not definite.
        """
        R, V = data.user_items, data.items
        refuse_large(self.title, R.n_columns, self.config.dense_gib)
        progress = self.context.progress
        progress("fit EASE", 0, 2)
        G = gram_of_items(R)
        if self.config.content_weight and V is not None:
            add_products(G, V, self.config.content_weight)
        add_to_diagonal(G, self.config.regularization)
        progress("fit EASE", 1, 2)
        invert(G, self.title)
        B = weights_of(G, 1 / np.diag(G))
        del G  # the larger part of the memory
        progress("fit EASE", 2, 2)
        self.choose_rows(data, B, self.config.half_lives)


class EASENeighborsConfig(EASEConfig):
    """Settings of EASE with neighbors' columns."""

    kind: Literal["ease-neighbors"] = "ease-neighbors"  # type: ignore[assignment]
    cold_scale: Annotated[float, Field(gt=0)] = 1.0  # scale


class EASENeighbors(EASE):
    """See the module; without item features, cold items stay at zero."""

    Config = EASENeighborsConfig
    config: EASENeighborsConfig
    title = "EASE + content, neighbors' columns"
    reads = frozenset({"items"})
    candidates = tuple(
        (f"model.content_weight={weight}", f"model.regularization={strength}", f"model.cold_scale={scale}")
        for weight, strength in ((20, 50), (20, 100), (40, 200))
        for scale in (1.0, 0.7, 1.3)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B, then replace the columns of cold items; see EASE."""
        super()._fit(data)
        cold = np.flatnonzero(~is_warm(data.user_items))
        if data.items is None or not len(cold) or not isinstance(self.weights, np.ndarray):
            return
        shares = place(data.items, data.items[cold], data.user_items)
        B = self.weights.copy()
        B[:, cold] = self.config.cold_scale * (shares @ self.weights.T).T
        self.set_weights(data.user_items, B, self.rows, self.half_life)


class EDLAEConfig(DenseConfig):
    """Settings of EDLAE."""

    kind: Literal["edlae"] = "edlae"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.25  # p
    diagonal_limit: Share = 0.0  # x; above 0: RDLAE


class EDLAE(ItemWeightModel):
    """See the module."""

    Config = EDLAEConfig
    config: EDLAEConfig
    title = "EDLAE"
    reads = frozenset()
    candidates = tuple(
        (f"model.dropout={p}", f"model.regularization={lam}") for p in (0.25, 0.1, 0.5) for lam in (50, 100, 200)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B.

        Raises:
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`.
        """
        R, config, progress = data.user_items, self.config, self.context.progress
        refuse_large(self.title, R.n_columns, config.dense_gib)
        progress("fit EDLAE", 0, 2)
        G = gram_of_items(R)
        penalty = config.regularization + config.dropout / (1 - config.dropout) * np.diag(G)
        add_to_diagonal(G, penalty)
        progress("fit EDLAE", 1, 2)
        invert(G, self.title)
        B = weights_of(G, np.maximum(penalty, (1 - config.diagonal_limit) / np.diag(G)))
        progress("fit EDLAE", 2, 2)
        self.set_weights(R, B)

"""EASE: each item regressed on all others, in closed form.

Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8. With R [U, I] the interactions,

    P = (R^T R + lambda I)^-1,   B_ij = -P_ij / P_jj,   B_jj = 0,   score_u = R_u B.

With item vectors V [I, d], R^T R + w V V^T stands for R^T R: EASE on the interactions with sqrt(w) V^T stacked below
as further users. Memory: six float64 matrices of I x I at the peak.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mllmrec.models.base import FitData
from mllmrec.models.dense import DenseConfig, gram_of_items, inverse, refuse_large, regressed_items
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.recency import HalfLives
from mllmrec.models.ridge import strength_candidates

_DENSE_MATRICES = 6  # float64, I x I, at the peak: 863 MiB were measured for 4,344 items


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
        refuse_large(self.title, R.n_columns, _DENSE_MATRICES, self.config.dense_gib)
        progress = self.context.progress
        progress("fit EASE", 0, 2)
        G = gram_of_items(R)
        if self.config.content_weight and V is not None:
            G += self.config.content_weight * (V.astype(np.float64) @ V.astype(np.float64).T)
        G[np.diag_indices(R.n_columns)] += self.config.regularization
        progress("fit EASE", 1, 2)
        B = regressed_items(inverse(G, self.title))
        progress("fit EASE", 2, 2)
        self.choose_rows(data, B.astype(np.float32), self.config.half_lives)

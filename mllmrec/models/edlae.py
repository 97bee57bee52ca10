"""EDLAE and RDLAE: EASE with a penalty that grows with an item's users, as dropout of the input has it.

Steck, Autoencoders that don't overfit towards the Identity, NeurIPS 2020: dropping each interaction with probability
p and predicting the dropped ones gives, in expectation, the penalty

    L = lambda I + p / (1 - p) diag(G),   G = R^T R,   P = (G + L)^-1.

EDLAE keeps the diagonal of B at 0; RDLAE (Moon et al., It's Enough: Relaxing Diagonal Constraints in Linear
Autoencoders for Recommendation, SIGIR 2023) lets it rise to x:

    B = I - P diag(max(L_jj, (1 - x) / P_jj)),   score_u = R_u B.

With x = 0 that is EDLAE, with p = 0 besides it is EASE. The diagonal touches only a user's own items, which are not
recommended, and is stored as 0. Memory: six float64 matrices of I x I at the peak.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from mllmrec.config import Share
from mllmrec.models.base import FitData
from mllmrec.models.ease import DenseConfig, gram_of_items, inverse, refuse_large
from mllmrec.models.item_weight_model import ItemWeightModel

_DENSE_MATRICES = 6  # float64, I x I, at the peak


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
        refuse_large(self.title, R.n_columns, _DENSE_MATRICES, config.dense_gib)
        progress("fit EDLAE", 0, 2)
        G = gram_of_items(R)
        penalty = config.regularization + config.dropout / (1 - config.dropout) * np.diag(G)
        G[np.diag_indices(len(G))] += penalty
        progress("fit EDLAE", 1, 2)
        P = inverse(G, self.title)
        B = P * -np.maximum(penalty, (1 - config.diagonal_limit) / np.diag(P))
        np.fill_diagonal(B, 0)
        progress("fit EDLAE", 2, 2)
        self.set_weights(R, B.astype(np.float32))

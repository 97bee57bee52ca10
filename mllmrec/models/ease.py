"""EASE: each item regressed on all others, in closed form.

Steck, Embarrassingly Shallow Autoencoders for Sparse Data, WWW 2019, equation 8. With R [U, I] the interactions,

    P = (R^T R + lambda I)^-1,   B_ij = -P_ij / P_jj,   B_jj = 0,   score_u = R_u B.

With item vectors V [I, d], R^T R + w V V^T stands for R^T R: EASE on the interactions with sqrt(w) V^T stacked below
as further users. Memory: six float64 matrices of I x I at the peak.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg import lapack

from mllmrec.config import ModelConfig
from mllmrec.errors import TrainingError
from mllmrec.models.base import FitData
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.ridge import strength_candidates

_DENSE_MATRICES = 6  # float64, I x I, at the peak: 863 MiB were measured for 4,344 items


class EASEConfig(ModelConfig):
    """Settings of EASE."""

    kind: Literal["ease"] = "ease"
    content_weight: Annotated[float, Field(ge=0)] = 20.0  # w; 0: interactions alone
    regularization: Annotated[float, Field(gt=0)] = 50.0  # lambda
    dense_gib: Annotated[float, Field(gt=0)] = 8.0  # the most that the dense matrices may take


class EASE(ItemWeightModel):
    """See the module; without item features, content counts nothing."""

    Config = EASEConfig
    config: EASEConfig
    title = "EASE"
    candidates = strength_candidates(
        (20, 50), (20, 100), (40, 100), (40, 200), (100, 200), (10, 50), (10, 100), (40, 400), (100, 400)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B.

        Raises:
            TrainingError: the catalogue is too large for dense matrices within `dense_gib`, or G is not definite.
        """
        R, V = data.user_items, data.items
        self._refuse_large(R.n_columns)
        progress = self.context.progress
        progress("fit EASE", 0, 2)
        G = np.asarray((R.to_scipy().T @ R.to_scipy()).toarray(), np.float64)
        if self.config.content_weight and V is not None:
            G += self.config.content_weight * (V.astype(np.float64) @ V.astype(np.float64).T)
        G[np.diag_indices(R.n_columns)] += self.config.regularization
        progress("fit EASE", 1, 2)
        P = _inverse(G)
        B = np.asarray(P / -np.diag(P), np.float32)
        np.fill_diagonal(B, 0)
        progress("fit EASE", 2, 2)
        self.set_weights(R, B)

    def _refuse_large(self, n_items: int) -> None:
        gib = _DENSE_MATRICES * 8 * n_items * n_items / 2**30
        if gib > self.config.dense_gib:
            raise TrainingError(
                f"EASE over {n_items:,} items needs {gib:,.1f} GiB of dense matrices, and model.dense_gib is "
                f"{self.config.dense_gib:g}; raise it, or take model.kind=ridge, which holds neighbors alone"
            )


def _inverse(G: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the inverse of a symmetric positive definite matrix."""
    factor, failed = lapack.dpotrf(G, lower=1)
    if failed:
        raise TrainingError("EASE's matrix is not positive definite; raise model.regularization")
    P, _ = lapack.dpotri(factor, lower=1)
    lower = np.tril(P, -1)
    return np.asarray(lower + lower.T + np.diag(np.diag(P)))

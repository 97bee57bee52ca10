"""Regressions of interactions on frozen item vectors, in closed form (docs/method.md, section 8).

`project_vectors` finds a linear map of the vectors under which items that users buy together are close. With V the
centered vectors [I, d], R~ = D_U^-1/2 R D_I^-1/2 and C = R~^T R~ less its diagonal, it regresses C on V from both
sides:

    M = A^-1 V^T C V A^-1,   A = V^T V + lambda I,   lambda = c tr(V^T V) / d.

Its positive part is Q W Q^T, and Z = V Q W^1/2. V^T C V is a sum over users: no array of items x items is made.

`LeaveOneOutRegression` predicts an item's row of any table from its vector and the other items' rows. With
H = V A^-1 V^T, the prediction without item i is ((H q)_i - H_ii q_i) / (1 - H_ii): the exact solution of the ridge
regression that leaves item i out.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors, normalize_rows
from mllmrec.models.graph_filter import normalize_bipartite

_MAP_STRENGTH = 0.1  # c of the map
_PREDICTION_STRENGTH = 1.0  # c of a prediction
_ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding
_BLOCK = 1 << 14  # rows in float64 at once


def project_vectors(vectors: Vectors, user_items: CSR) -> Vectors:
    """Return Z of the module with unit rows.

    Args:
        vectors: float32 [I, d].
        user_items: R, binary [U, I], training interactions.

    Returns:
        float32 [I, r <= d]; zeros [I, 1] where the vectors tell nothing about co-purchase.
    """
    V, nothing = _center(vectors), np.zeros((len(vectors), 1), np.float32)
    damped, scale = _damp(V, _MAP_STRENGTH)
    if not scale:
        return nothing
    inverse = np.linalg.inv(damped)
    values, Q = np.linalg.eigh(inverse @ _smoothed_gram(V, user_items) @ inverse)
    kept = values > _ROUNDING * np.abs(values).max()
    if not kept.any():
        return nothing
    return normalize_rows(V @ (Q[:, kept] * values[kept] ** 0.5).astype(np.float32))


class LeaveOneOutRegression:
    """Predicts each item's row of a table by ridge regression on the other items' rows; see the module.

    Args:
        vectors: float32 [I, d].
    """

    def __init__(self, vectors: Vectors) -> None:
        self._X = _center(vectors)
        damped, scale = _damp(self._X, _PREDICTION_STRENGTH)
        self._inverse = np.linalg.inv(damped) if scale else np.zeros_like(damped)
        self._own = np.concatenate(  # H_ii
            [np.empty(0), *(((x @ self._inverse) * x).sum(axis=1) for x in _blocks(self._X))]
        )

    def predict(self, table: Vectors) -> Vectors:
        """Return the prediction of each row of a table [I, r], float32 [I, r]."""
        coefficients = self._inverse @ (self._X.T @ table)  # [d, r]
        fitted = self._X @ coefficients.astype(np.float32)
        own = self._own[:, None]
        return np.asarray((fitted - own * table) / (1 - own), np.float32)


def _center(vectors: Vectors) -> Vectors:
    """Less their mean, which is taken in float64."""
    centered: Vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return centered


def _blocks(table: Vectors) -> Iterator[NDArray[np.float64]]:
    """Yield the rows in float64, some at a time."""
    for start in range(0, len(table), _BLOCK):
        yield table[start : start + _BLOCK].astype(np.float64)


def _damp(X: Vectors, strength: float) -> tuple[NDArray[np.float64], float]:
    """Return X^T X + lambda I, [d, d], and lambda: `strength` times the mean eigenvalue of X^T X."""
    width = X.shape[1]
    gram = sum((x.T @ x for x in _blocks(X)), np.zeros((width, width)))
    scale = strength * float(np.trace(gram)) / max(1, width)
    return gram + scale * np.eye(width), scale


def _smoothed_gram(V: Vectors, user_items: CSR) -> NDArray[np.float64]:
    """Return V^T (R~^T R~ less its diagonal) V, [d, d]."""
    scaled, _ = normalize_bipartite(user_items.to_scipy())
    gram = np.zeros((V.shape[1], V.shape[1]))
    for start in range(0, scaled.shape[0], _BLOCK):
        smoothed = (scaled[start : start + _BLOCK] @ V).astype(np.float64)
        gram += smoothed.T @ smoothed
    diagonal = np.asarray(scaled.multiply(scaled).sum(axis=0)).ravel()  # the diagonal
    for start, v in zip(range(0, len(V), _BLOCK), _blocks(V), strict=True):
        gram -= v.T @ (diagonal[start : start + _BLOCK, None] * v)
    return gram

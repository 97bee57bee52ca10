"""Projectors of the frozen item vectors in closed form: what training interactions say that matters in them.

Two things are fitted, and neither has an array of items x items:

    projected      a linear map of the vectors under which items that users buy together are close
    Prediction     what an item's row of any table would be, judged by its vector and the other items' rows

With V the centred vectors [I, d], R~ = D_U^-1/2 R D_I^-1/2 and C = R~^T R~ less its diagonal, the map comes from
C regressed on V from both sides,

    M = A^-1 V^T C V A^-1,   A = V^T V + lambda I,   lambda = c tr(V^T V) / d,

whose positive part is Q W Q^T: the cosines of Z = V Q W^1/2 are the similarities that content can tell of
co-purchase. V^T C V is a sum over users, so all it takes is the vectors and d x d numbers.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mllmrec.dataset import Histories
from mllmrec.features.encode import Vectors, normalise_rows
from mllmrec.models.graph_filter import normalised

_MAP_STRENGTH = 0.1  # c of the map
_PREDICTION_STRENGTH = 1.0  # c of a prediction
_ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding
_BLOCK = 1 << 14  # rows in float64 at once


def projected(vectors: Vectors, histories: Histories) -> Vectors:
    """Z of the module, unit rows, float32 [I, r <= d]; zeros [I, 1] where the vectors say nothing of co-purchase.

    Args:
        vectors: float32 [I, d].
        histories: training histories.

    Raises:
        LeakError: the histories hold held-out interactions.
    """
    histories.require_training("the projector")
    V, nothing = _centred(vectors), np.zeros((len(vectors), 1), np.float32)
    damped, scale = _damped(V, _MAP_STRENGTH)
    if not scale:
        return nothing
    inverse = np.linalg.inv(damped)
    values, Q = np.linalg.eigh(inverse @ _smoothed_gram(V, histories) @ inverse)
    kept = values > _ROUNDING * np.abs(values).max()
    if not kept.any():
        return nothing
    return normalise_rows(V @ (Q[:, kept] * values[kept] ** 0.5).astype(np.float32))


class Prediction:
    """A ridge regression of each column of a table on the items' vectors, each item predicted by the others alone.

    An item's own row has no part in its prediction: with H = X A^-1 X^T, the prediction without item i is
    ((H q)_i - H_ii q_i) / (1 - H_ii), the exact solution of the regression that leaves it out.

    Args:
        vectors: float32 [I, d].
    """

    def __init__(self, vectors: Vectors) -> None:
        self._X = _centred(vectors)
        damped, scale = _damped(self._X, _PREDICTION_STRENGTH)
        self._inverse = np.linalg.inv(damped) if scale else np.zeros_like(damped)
        self._own = np.concatenate(  # H_ii
            [np.empty(0), *(((x @ self._inverse) * x).sum(axis=1) for x in _blocks(self._X))]
        )

    def of(self, table: Vectors) -> Vectors:
        """The prediction of each row, float32 [I, r]."""
        coefficients = self._inverse @ (self._X.T @ table)  # [d, r]
        fitted = self._X @ coefficients.astype(np.float32)
        own = self._own[:, None]
        return np.asarray((fitted - own * table) / (1 - own), np.float32)


def _centred(vectors: Vectors) -> Vectors:
    """Less their mean, which is taken in float64."""
    centred: Vectors = vectors - vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    return centred


def _blocks(table: Vectors) -> Iterator[NDArray[np.float64]]:
    """The rows in float64, some at a time."""
    for start in range(0, len(table), _BLOCK):
        yield table[start : start + _BLOCK].astype(np.float64)


def _damped(X: Vectors, strength: float) -> tuple[NDArray[np.float64], float]:
    """X^T X + lambda I, [d, d], and lambda: `strength` times the mean eigenvalue of X^T X."""
    width = X.shape[1]
    gram = sum((x.T @ x for x in _blocks(X)), np.zeros((width, width)))
    scale = strength * float(np.trace(gram)) / max(1, width)
    return gram + scale * np.eye(width), scale


def _smoothed_gram(V: Vectors, histories: Histories) -> NDArray[np.float64]:
    """V^T (R~^T R~ less its diagonal) V, [d, d]."""
    scaled, _ = normalised(histories.user_items().to_scipy())
    gram = np.zeros((V.shape[1], V.shape[1]))
    for start in range(0, scaled.shape[0], _BLOCK):
        smoothed = (scaled[start : start + _BLOCK] @ V).astype(np.float64)
        gram += smoothed.T @ smoothed
    own = np.asarray(scaled.multiply(scaled).sum(axis=0)).ravel()  # what an item is to itself
    for start, v in zip(range(0, len(V), _BLOCK), _blocks(V), strict=True):
        gram -= v.T @ (own[start : start + _BLOCK, None] * v)
    return gram

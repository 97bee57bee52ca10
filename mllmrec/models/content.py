"""Content: the cosine of an item's vector to the mean of the user's, in three spaces; and regressions on vectors.

With v_i the item vectors, and Z the vectors of the space,

    score_ui = z_i . m_u,   m_u = the mean of the z_j of the user's items, of unit length.

    plain          z_i = v_i
    half-whitened  centered, in coordinates on the principal axes, times (eigenvalue)^-1/4, of unit length
    projected      by a linear map under which items that users buy together are close (`project_vectors`)

Half-whitening halves the logarithm of what the large axes weigh beside the small ones: they hold what all items share.
A cold item is scored as any other, so these are yardsticks of what only an item's vector is worth.

The regressions are closed forms (docs/method.md, section 8). With V the centered vectors [I, d],
R~ = D_U^-1/2 R D_I^-1/2 and C = R~^T R~ less its diagonal, `project_vectors` regresses C on V from both sides:

    M = A^-1 V^T C V A^-1,   A = V^T V + lambda I,   lambda = c tr(V^T V) / d.

Its positive part is Q W Q^T, and Z = V Q W^1/2. V^T C V is a sum over users: no array of items x items is made.

`LeaveOneOutRegression` predicts an item's row of any table from its vector and the other items' rows. With
H = V A^-1 V^T, the prediction without item i is ((H q)_i - H_ii q_i) / (1 - H_ii): the exact solution of the ridge
regression that leaves item i out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Self

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from mllmrec_kernels.base.parallel import chunks, parallel_for
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work
from mllmrec.config import ModelConfig
from mllmrec.features.encode import Vectors, mean_of_owned, normalize_rows
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.gfcf import normalize_bipartite
from mllmrec.models.ordered_sums import ROWS, gram_of, parts_in_order, turned_product
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer

_ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding
_MAP_STRENGTH = 0.1  # c of the map
_PREDICTION_STRENGTH = 1.0  # c of a prediction


class ContentConfig(ModelConfig):
    """Settings of content."""

    kind: Literal["content"] = "content"
    space: Literal["plain", "half-whitened", "projected"] = "plain"


class Content(EmbeddingModel):
    """See the module."""

    Config = ContentConfig
    config: ContentConfig
    title = "content"
    reads = frozenset({"items"})
    candidates = (("model.space=plain",), ("model.space=half-whitened",), ("model.space=projected",))

    def _fit(self, data: FitData) -> None:
        """Compute the vectors of the space.

        Raises:
            InputError: there are no item vectors.
        """
        items = np.ascontiguousarray(data.required_items(self.title), np.float32)
        if self.config.space == "half-whitened":
            items = half_whiten(items)
        elif self.config.space == "projected":
            items = project_vectors(items, data.user_items)
        self.vectors = VectorScorer(mean_of_owned(items, data.user_items), items)

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        return f"{self.config.space} vectors of width {self.items.shape[1]}"

    def write_files(self, path: FilePath) -> list[str]:
        """Write users.npy, items.npy and train.json."""
        storage.write_array(path("users.npy"), self.users)
        storage.write_array(path("items.npy"), self.items)
        storage.write_json(path("train.json"), {"histories": self.context.digest})
        return ["users.npy", "items.npy", "train.json"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        self.vectors = VectorScorer(*(np.array(storage.read_array(path(f"{side}.npy"))) for side in ("users", "items")))
        return self


def half_whiten(vectors: Vectors) -> Vectors:
    """Return the half-whitened vectors of the module; rows of zeros, which have no text, stay zeros.

    Args:
        vectors: float32 [I, d].

    Returns:
        float32 [I, r <= d], unit rows; zeros [I, 1] where all rows are equal.
    """
    filled = vectors.any(axis=1)
    X = vectors[filled].astype(np.float64)
    X -= X.mean(axis=0) if len(X) else 0
    values, axes = np.linalg.eigh(X.T @ X / max(1, len(X)))
    kept = values > _ROUNDING * max(float(values.max(initial=0)), np.finfo(np.float64).tiny)
    whitened = np.zeros((len(vectors), max(1, int(kept.sum()))), np.float32)
    if kept.any():
        whitened[filled] = X @ (axes[:, kept] * values[kept] ** -0.25)
    return normalize_rows(whitened)


@dataclass(frozen=True, slots=True)
class Projection:
    """A linear map of item vectors under which items that users buy together are close.

    Attributes:
        mean: float32 [d], of the vectors that it was fitted on.
        axes: float32 [d, r], Q W^1/2 of the module; a column of zeros where vectors tell nothing about co-purchase.
    """

    mean: Vectors
    axes: Vectors

    @staticmethod
    def of(vectors: Vectors, user_items: CSR, blocks: Blocks | None = None) -> Projection:
        """Fit the map.

        Args:
            vectors: float32 [I, d].
            user_items: R, binary [U, I], training interactions.
            blocks: workers that sum over users instead of this process.
        """
        mean, nothing = _mean(vectors), np.zeros((vectors.shape[1], 1), np.float32)
        V = vectors - mean
        damped, scale = _damp(V, _MAP_STRENGTH)
        if not scale:
            return Projection(mean, nothing)
        inverse = np.linalg.inv(damped)
        values, Q = np.linalg.eigh(inverse @ _smoothed_gram(V, user_items, blocks) @ inverse)
        kept = values > _ROUNDING * np.abs(values).max()
        return Projection(mean, (Q[:, kept] * values[kept] ** 0.5).astype(np.float32) if kept.any() else nothing)

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return Z of vectors [J, d], float32 [J, r] with unit rows."""
        mapped = np.empty((len(vectors), self.axes.shape[1]), np.float32)

        def _work(start: int, stop: int) -> None:
            centered: Vectors = vectors[start:stop] - self.mean
            mapped[start:stop] = normalize_rows(centered @ self.axes)

        parallel_for(_work, chunks(len(vectors), ROWS))
        return mapped


def project_vectors(vectors: Vectors, user_items: CSR, blocks: Blocks | None = None) -> Vectors:
    """Return Z of the module with unit rows.

    Args:
        vectors: float32 [I, d].
        user_items: R, binary [U, I], training interactions.
        blocks: workers that sum over users instead of this process.

    Returns:
        float32 [I, r <= d]; zeros [I, 1] where the vectors tell nothing about co-purchase.
    """
    return Projection.of(vectors, user_items, blocks)(vectors)


class LeaveOneOutRegression:
    """Predicts each item's row of a table by ridge regression on the other items' rows; see the module.

    Args:
        vectors: float32 [I, d].
    """

    def __init__(self, vectors: Vectors) -> None:
        self._X = _center(vectors)
        damped, scale = _damp(self._X, _PREDICTION_STRENGTH)
        self._inverse = np.linalg.inv(damped) if scale else np.zeros_like(damped)

    @cached_property
    def _own(self) -> NDArray[np.float64]:
        return self._leverage(self._X)

    def _leverage(self, X: Vectors) -> NDArray[np.float64]:
        """Return H_ii of the items with these centered vectors."""
        own = np.empty(len(X))

        def _work(start: int, stop: int) -> None:
            x = X[start:stop].astype(np.float64)
            own[start:stop] = ((x @ self._inverse) * x).sum(axis=1)

        parallel_for(_work, chunks(len(X), ROWS))
        return own

    def predict(self, table: Vectors, items: NDArray[np.int64] | None = None) -> Vectors:
        """Return the prediction of rows of a table.

        Args:
            table: float32 [I, r].
            items: int64 [n], whose rows are predicted; None: all.

        Returns:
            float32 [n, r].
        """
        coefficients = (self._inverse @ turned_product(self._X, table)).astype(np.float32)  # [d, r]
        if items is None:
            X, own = self._X, self._own
        else:
            X, table = self._X[items], table[items]
            own = self._leverage(X)
        predicted, H = np.empty((len(X), table.shape[1]), np.float32), own[:, None]

        def _work(start: int, stop: int) -> None:
            at = slice(start, stop)
            predicted[at] = (X[at] @ coefficients - H[at] * table[at]) / (1 - H[at])

        parallel_for(_work, chunks(len(X), ROWS))
        return predicted


def _center(vectors: Vectors) -> Vectors:
    """Less their mean, which is taken in float64."""
    centered: Vectors = vectors - _mean(vectors)
    return centered


def _mean(vectors: Vectors) -> Vectors:
    return np.asarray(vectors.mean(axis=0, dtype=np.float64), np.float32)


def _damp(X: Vectors, strength: float) -> tuple[NDArray[np.float64], float]:
    """Return X^T X + lambda I, [d, d], and lambda: `strength` times the mean eigenvalue of X^T X."""
    gram, width = gram_of(X), X.shape[1]
    scale = strength * float(np.trace(gram)) / max(1, width)
    return gram + scale * np.eye(width), scale


def _smoothed_gram(V: Vectors, user_items: CSR, blocks: Blocks | None) -> NDArray[np.float64]:
    """Return V^T (R~^T R~ less its diagonal) V, [d, d]; the sum over users has one order, whoever adds."""
    scaled, _ = normalize_bipartite(user_items.to_scipy())
    gram = np.zeros((V.shape[1], V.shape[1]))
    n = scaled.shape[0]
    grams: Iterator[NDArray[np.float64]]
    if blocks and n:
        work = Work(gram_block, "project vectors", n, ROWS, {"users": CSR.from_scipy(scaled)}, {"vectors": V})
        grams = iter(blocks.run(work)["grams"])
    else:
        grams = parts_in_order(lambda start, stop: _gram_of(scaled[start:stop], V), n)
    for of_block in grams:
        gram += of_block
    diagonal = np.asarray(scaled.multiply(scaled).sum(axis=0)).ravel()  # the diagonal

    def weighted_gram(start: int, stop: int) -> NDArray[np.float64]:
        v = V[start:stop].astype(np.float64)
        return np.asarray(v.T @ (diagonal[start:stop, None] * v))

    for of_block in parts_in_order(weighted_gram, len(V)):
        gram -= of_block
    return gram


def gram_block(block: Block) -> Arrays:
    """Return V^T S^T S V of the block's rows S of users, float64 [1, d, d]."""
    return {"grams": _gram_of(block.matrix("users").to_scipy(), block.array("vectors"))[None]}


def _gram_of(users: sp.csr_array, V: Vectors) -> NDArray[np.float64]:
    smoothed = (users @ V).astype(np.float64)
    return np.asarray(smoothed.T @ smoothed)

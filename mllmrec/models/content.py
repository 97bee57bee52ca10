"""Content: the cosine of an item's vector to the mean of the user's, in one of three spaces. Nothing is trained.

With v_i the item vectors, and Z the vectors of the space,

    score_ui = z_i . m_u,   m_u = the mean of the z_j of the user's items, of unit length.

    plain          z_i = v_i
    half-whitened  centered, in coordinates on the principal axes, times (eigenvalue)^-1/4, of unit length
    projected      by a linear map under which items that users buy together are close (content_regression.py)

Half-whitening halves the logarithm of what the large axes weigh beside the small ones: they hold what all items share.
A cold item is scored as any other, so these are yardsticks of what only an item's vector is worth.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np

from mllmrec.config import ModelConfig
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, mean_of_owned, normalize_rows
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.content_regression import project_vectors
from mllmrec.models.embedding_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer

_ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding


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
        if data.items is None:
            raise InputError(f"{self.title} needs item vectors: fit(user_items, item_features=...)")
        items = np.ascontiguousarray(data.items, np.float32)
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

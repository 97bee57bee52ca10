"""EASE with neighbors' columns: a cold item is scored as the warm items of the nearest vectors are.

With B the weights of EASE on interactions and content (ease.py), N_c the n nearest warm items of a cold item c by
cosine, and s_cj these cosines, none below 0,

    B_:c = scale x (sum over j in N_c of s_cj B_:j) / (sum over j in N_c of s_cj).

A warm item has a training interaction, a cold one none. EASE itself gives a cold item the weights of the content alone.
The scale weighs cold items against warm ones in one ranking: what they gain, warm ones lose.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from mllmrec_kernels import topk_cosine
from numpy.typing import NDArray
from pydantic import Field

from mllmrec.config import Positive
from mllmrec.features.encode import Vectors
from mllmrec.models.base import FitData
from mllmrec.models.ease import EASE, EASEConfig


class EASENeighborsConfig(EASEConfig):
    """Settings of EASE with neighbors' columns."""

    kind: Literal["ease-neighbors"] = "ease-neighbors"  # type: ignore[assignment]
    n_neighbors: Positive = 20  # n, warm items that a cold one is like
    cold_scale: Annotated[float, Field(gt=0)] = 1.0  # scale


class EASENeighbors(EASE):
    """See the module; without item features, cold items stay at zero."""

    Config = EASENeighborsConfig
    config: EASENeighborsConfig
    title = "EASE + content, neighbors' columns"
    candidates = tuple(
        (f"model.content_weight={weight}", f"model.regularization={strength}", f"model.cold_scale={scale}")
        for weight, strength in ((20, 50), (20, 100), (40, 200))
        for scale in (1.0, 0.7, 1.3)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B, then replace the columns of cold items; see EASE."""
        super()._fit(data)
        counts = np.bincount(data.user_items.indices, minlength=data.user_items.n_columns)
        warm, cold = np.flatnonzero(counts > 0), np.flatnonzero(counts == 0)
        if data.items is None or not len(cold) or not isinstance(self.weights, np.ndarray):
            return
        B = self.weights
        ids, cosines = nearest_warm(data.items, warm, cold, self.config.n_neighbors)
        for column, neighbors, similarity in zip(cold, ids, cosines, strict=True):
            total = similarity.sum()
            B[:, column] = B[:, neighbors] @ (self.config.cold_scale * similarity / total) if total > 0 else 0
        self.set_weights(data.user_items, B, self.rows, self.half_life)


def nearest_warm(
    vectors: Vectors, warm: NDArray[np.int64], cold: NDArray[np.int64], k: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the k nearest warm items of each cold one.

    Args:
        vectors: float32 [I, d].
        warm: int64, items with training interactions.
        cold: int64 [m], items without.
        k: neighbors an item; lowered to the number of warm items.

    Returns:
        int64 [m, k] items and float32 [m, k] cosines, none below 0.
    """
    table = np.ascontiguousarray(vectors, np.float32)
    ids, cosines = topk_cosine(table[warm], min(k, len(warm)), queries=table[cold])
    return warm[np.maximum(ids, 0)], np.where(ids >= 0, np.maximum(cosines, 0), 0).astype(np.float32)

"""The item-graph ridge blended with a low-pass filter of the user-item graph, both in closed form.

The two see different things: the ridge weighs an item's own neighbours, by content and audience; the filter
spreads along the whole user-item graph, which no short list of neighbours holds. With
R~ = D_U^-1/2 R D_I^-1/2 and V its leading right singular vectors, the filter keeps the smoothest part of a
user's signal (Shen et al., How Powerful is Graph Convolution for Recommendation?, CIKM 2021, ideal low-pass):

    f_u = R_u D_I^-1/2 V V^T D_I^1/2                         [I]
    score_u = z(R_u W) + c z(f_u),   z(x) = (x - mean x) / sd x over the catalogue

z puts the two on one scale for each user, so that c can be a constant. Memory: the ridge's I x K and I x rank.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.sparse.linalg import svds

from mllmrec import storage
from mllmrec.config import ModelConfig
from mllmrec.dataset import Histories
from mllmrec.encode import Vectors
from mllmrec.models.item_weights import ItemWeights, ridge
from mllmrec.models.scorer import Lists, WeightsScorer, ranks_by_block, top_by_user


@dataclass(frozen=True, slots=True)
class BlendScorer:
    """See the module.

    Attributes:
        ridge: the item-graph ridge.
        into, back: D_I^-1/2 V and V^T D_I^1/2, float32 [I, rank] and [rank, I].
        weight: c.
    """

    ridge: WeightsScorer
    into: NDArray[np.float32]
    back: NDArray[np.float32]
    weight: float

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """See BlockScorer."""
        smooth = (self.ridge.user_items[start:stop] @ self.into) @ self.back
        return standardised(self.ridge.scores(start, stop)) + np.float32(self.weight) * standardised(smooth)

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """See Scorer."""
        return ranks_by_block(self, exclude, heldout)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """See top_by_user."""
        return top_by_user(self, users, k, exclude)


def standardised(scores: NDArray[Any]) -> NDArray[np.float32]:
    """z of each row, moments in float64; a constant row becomes zeros. float32 [B, I]."""
    mean = scores.mean(axis=1, keepdims=True, dtype=np.float64)
    spread = scores.std(axis=1, keepdims=True, dtype=np.float64)
    z = np.divide(scores - mean, spread, out=np.zeros(scores.shape), where=spread > 0)
    return np.asarray(z, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class Blend:
    """A fitted blend.

    Attributes:
        item_weights: the ridge.
        into, back, weight: as in BlendScorer.
    """

    item_weights: ItemWeights
    into: NDArray[np.float32]
    back: NDArray[np.float32]
    weight: float

    @property
    def summary(self) -> str:
        """One line for a person."""
        return f"{self.item_weights.summary}; low-pass filter of rank {len(self.back)}, weight {self.weight:g}"

    @property
    def scorer(self) -> BlendScorer:
        """The model as the evaluation sees it."""
        return BlendScorer(self.item_weights.scorer, self.into, self.back, self.weight)

    def similar(self, k: int) -> Lists:
        """By the ridge's weights; see ItemWeights."""
        return self.item_weights.similar(k)

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write the ridge's files, filter.safetensors and blend.json."""
        names = self.item_weights.save(path)
        with storage.atomic(path("filter.safetensors")) as temporary:
            save_file({"into": self.into, "back": self.back}, temporary)
        storage.write_json(path("blend.json"), {"weight": self.weight})
        return [*names, "filter.safetensors", "blend.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Blend:
        """Read what save wrote."""
        tensors = load_file(path("filter.safetensors"))
        weight = float(storage.read_json(path("blend.json"))["weight"])
        return Blend(ItemWeights.load(path), tensors["into"], tensors["back"], weight)


def blend(vectors: Vectors, histories: Histories, config: ModelConfig) -> Blend:
    """Fit both parts.

    Args:
        vectors: float32 [I, d], item features.
        histories: training histories.
        config: of the ridge, `rank` and `low_pass`.

    Raises:
        LeakError: the histories hold held-out interactions.
    """
    into, back = low_pass(histories.user_items(), config.rank)
    return Blend(ridge(vectors, histories, config), into, back, config.low_pass)


def low_pass(user_items: CSR, rank: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """D_I^-1/2 V and V^T D_I^1/2 of the ideal low-pass filter, float32 [I, rank] and [rank, I].

    The rank is lowered to what the matrix can have. The start vector is fixed, so the same interactions give
    the same filter.
    """
    R = user_items.to_scipy().astype(np.float64)
    by_user, by_item = (np.maximum(np.asarray(R.sum(axis=axis)).ravel(), 1) for axis in (1, 0))
    scaled = sp.diags_array(by_user**-0.5) @ R @ sp.diags_array(by_item**-0.5)
    rank = min(rank, min(R.shape) - 1)
    if rank < 1:
        return np.zeros((R.shape[1], 0), np.float32), np.zeros((0, R.shape[1]), np.float32)
    _, _, basis = svds(scaled.tocsr(), k=rank, v0=np.ones(min(R.shape)), return_singular_vectors="vh")
    into = np.ascontiguousarray((basis * by_item**-0.5).T, np.float32)
    return into, np.ascontiguousarray(basis * by_item**0.5, np.float32)

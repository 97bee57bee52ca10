"""Scores of a sparse part plus an inner product, as cases: how weights, users' items and vectors are drawn."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.mixed import MixedScores
from numpy.typing import NDArray

from tests.kernels.cases import RECIPES, split_pairs


@dataclass(frozen=True)
class MixedCase:
    """U users, I items, d columns; d = 0 has no inner product.

    Attributes:
        name: of the case; seeds its generator.
        users, items, d, k: sizes.
        weights: "real", "integer" (every place is tied), "cancelling" (sums that are 0), "none", or "dense".
        recipe: how the vectors are drawn.
        share: stored share of W and of R.
        valued: whether R has values other than 1.
        scaled: whether users have scales, one of them 0.
    """

    name: str
    users: int = 13
    items: int = 57
    d: int = 9
    k: int = 7
    weights: str = "real"
    recipe: str = "gaussian"
    share: float = 0.15
    valued: bool = False
    scaled: bool = True

    def scores(self) -> MixedScores:
        """Return the scores; the third user has no items, the third item no weights."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        R = _drawn(rng, (self.users, self.items), self.share)
        if self.valued:
            R = CSR(R.indptr, R.indices, rng.integers(-2, 3, R.nnz).astype(np.float32), self.items)
        vectors: dict[str, NDArray[np.float32] | None] = {"user_vectors": None, "item_vectors": None}
        if self.d:
            vectors["user_vectors"] = RECIPES[self.recipe](rng, self.users, self.d)
            vectors["item_vectors"] = RECIPES[self.recipe](rng, self.items, self.d)
        scale = None
        if self.scaled:
            scale = rng.integers(1, 4, self.users) if self.weights == "integer" else rng.random(self.users) * 3
            scale[1:2] = 0
        return MixedScores(R, self._weights(rng), scale if scale is None else scale.astype(np.float32), **vectors)

    def pairs(self) -> tuple[CSR, CSR]:
        """Return (exclude, heldout)."""
        return split_pairs(np.random.default_rng(len(self.name)), (self.users, self.items))

    def _weights(self, rng: np.random.Generator) -> CSR | NDArray[np.float32]:
        if self.weights == "dense":
            return rng.normal(size=(self.items, self.items)).astype(np.float32)
        W = _drawn(rng, (self.items, self.items), 0.0 if self.weights == "none" else self.share)
        values = rng.normal(size=W.nnz)
        if self.weights == "integer":
            values = rng.integers(-2, 4, W.nnz).astype(float)
        elif self.weights == "cancelling":
            values = rng.choice([-1.0, 1.0], W.nnz)
        return CSR(W.indptr, W.indices, values.astype(np.float32), self.items)


def _drawn(rng: np.random.Generator, shape: tuple[int, int], share: float) -> CSR:
    cells = rng.random(shape) < share
    cells[2:3] = False
    return CSR.from_pairs(*np.nonzero(cells), shape)


MIXED_CASES = (
    MixedCase("odd"),
    MixedCase("no_users", users=0),
    MixedCase("no_items", items=0),
    MixedCase("one_pair", users=1, items=1, d=1, k=1, share=1.0),
    MixedCase("word_and_a_bit", items=65, users=33, d=17),
    MixedCase("k_is_n", k=57),
    MixedCase("k_beyond_n", k=80),
    MixedCase("k_is_one", k=1),
    MixedCase("integer", weights="integer", recipe="signs", d=8),
    MixedCase("integer_many", weights="integer", recipe="signs", d=8, users=70, items=301, k=50, share=0.05),
    MixedCase("cancelling", weights="cancelling", recipe="signs", d=8, share=0.4),
    MixedCase("no_weights", weights="none"),
    MixedCase("no_weights_no_vectors", weights="none", d=0),
    MixedCase("every_item", share=1.0),
    MixedCase("valued", valued=True, scaled=False),
    MixedCase("zero_vectors", recipe="all_zero"),
    MixedCase("some_zero_vectors", recipe="zeros_among"),
    MixedCase("equal_vectors", recipe="all_equal", weights="integer"),
    MixedCase("near_ties", recipe="one_direction", d=40),
    MixedCase("wide_norms", recipe="wide_norms"),
    MixedCase("subnormal", recipe="subnormal"),
    MixedCase("dense", weights="dense"),
    MixedCase("dense_alone", weights="dense", d=0),
    MixedCase("sparse_alone", d=0),
    MixedCase("sparse_alone_integer", d=0, weights="integer", share=0.05, k=30, scaled=False),
    MixedCase("sparse_alone_cancelling", d=0, weights="cancelling", share=0.4, k=60),
    MixedCase("several_tiles", users=300, items=1201, d=48, k=20, share=0.01),
    MixedCase("wide", users=40, items=900, d=384, k=20, share=0.02, recipe="clustered"),
    MixedCase("beyond_int8_pairs", users=1500, items=1300, d=24, k=20, share=0.01),
)

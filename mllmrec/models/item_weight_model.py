"""Models that are one I x I matrix of weights: row i is what owning item i adds to each item's score."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, MixedIndex
from mllmrec_kernels.mixed.largest import largest_of_columns
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from mllmrec.errors import NotFittedError
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.models.base import FilePath, FitData, check_histories, user_rows
from mllmrec.models.new_items import extend_columns, extend_weights
from mllmrec.models.recency import choose_rows
from mllmrec.models.scorer_model import FittedScorer, ScorerModel
from mllmrec.models.scoring import Lists
from mllmrec.models.weight_scorers import FEW_USERS, WeightsScorer, top_one_by_one

Weights = CSR | NDArray[np.float32]


class ItemWeightModel(ScorerModel):
    """A recommender that scores by R_u W.

    Attributes:
        weights: W, [I, I], sparse, or dense float32; None before a fit, and where a subclass scores without W.
        rows: the rows R_u that W is multiplied with, [U, I]: `user_items`, or older items weigh less in them.
        half_life: of the rows, in items; 0: none.
    """

    weights: Weights | None = None
    rows: CSR | None = None
    half_life: float = 0.0

    @cached_property
    def sums(self) -> WeightsScorer:
        """The fitted matrices.

        Raises:
            NotFittedError: there was no fit.
        """
        if self.weights is None or self.rows is None:
            raise NotFittedError
        return WeightsScorer(self.rows, self.weights)

    @property
    def scorer(self) -> Any:
        """The fitted matrices; where a subclass adds to R_u W, the sum."""
        return self.sums

    def weights_of(self, histories: CSR) -> WeightsScorer:
        """Return the scorer of users by their histories [B, I]: R_u W of each."""
        weights = self.sums.weights
        return WeightsScorer(check_histories(histories, weights.shape[1]), weights)

    def _top_new(self, histories: CSR, k: int, exclude: CSR) -> Lists:
        if not 0 < histories.n_rows <= FEW_USERS or self.weights is None or not isinstance(self.scorer, WeightsScorer):
            return super()._top_new(histories, k, exclude)
        return top_one_by_one(self._index, check_histories(histories, self.weights.shape[1]), None, k, exclude)

    @cached_property
    def _index(self) -> MixedIndex:
        """Return the weights, checked once for lists of one user at a time."""
        return MixedIndex(self.sums.weights)

    def _add_items(self, features: Vectors, shares: sp.csr_array) -> None:
        if not isinstance(self.scorer, WeightsScorer):  # a subclass adds to R_u W
            super()._add_items(features, shares)
        weights = extend_weights(self.sums.matrix, shares)
        user_items, rows = (
            extend_columns(matrix, len(features))
            for matrix in (self.known_interactions(), self.rows or self.known_interactions())
        )
        self.set_weights(user_items, weights, rows, self.half_life)

    def known_interactions(self) -> CSR:
        """Return the training interactions.

        Raises:
            NotFittedError: there was no fit.
        """
        if self.user_items is None:
            raise NotFittedError
        return self.user_items

    def _fold_in(self, histories: CSR) -> FittedScorer:
        if not isinstance(self.scorer, WeightsScorer):  # a subclass adds to R_u W
            return super()._fold_in(histories)
        return self.weights_of(histories)

    def set_weights(
        self, user_items: CSR, weights: Weights | None, rows: CSR | None = None, half_life: float = 0.0
    ) -> Self:
        """Keep fitted matrices in the place of earlier ones; return the model.

        Args:
            user_items: R, binary [U, I].
            weights: W, [I, I].
            rows: of the users, on the entries of R; None: R.
            half_life: of the rows, in items; 0: none.
        """
        for name in ("sums", "_index"):
            self.__dict__.pop(name, None)
        self.user_items, self.weights = user_items, weights
        self.rows, self.half_life = rows or user_items, half_life
        return self

    def choose_rows(self, data: FitData, weights: Weights, half_lives: Sequence[float]) -> Self:
        """Keep W and the half-life of the users' rows that validation chooses; return the model.

        Args:
            data: training and validation interactions.
            weights: W, [I, I].
            half_lives: to choose from, in items; 0: none.

        Raises:
            InputError: every choice needs an order of the training interactions, and none is known.
        """
        half_life, rows = choose_rows(
            lambda row: WeightsScorer(row, weights),
            data.user_items, data.valid, self.context.histories, half_lives, self.context.progress,
        )  # fmt: skip
        return self.set_weights(data.user_items, weights, rows, half_life)

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        weights = self.sums.weights
        n, aged = weights.shape[0], f"; half-life {self.half_life:g} items" if self.half_life else ""
        if isinstance(weights, CSR):
            return f"{weights.nnz:,} item-item weights, {weights.nnz / max(1, n):.0f} an item{aged}"
        return f"{n:,} x {n:,} item-item weights, dense{aged}"

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return the k items whose weights add most to each item's score; see Recommender."""
        rows, weights = user_rows(items), self.sums.weights
        if isinstance(weights, CSR) and np.array_equal(rows, np.arange(weights.n_columns)):
            return largest_of_columns(weights, k)
        incoming = sp.csr_array(self.sums.matrix).T.tocsr()
        return best_of_rows(incoming[rows], k)

    def write_files(self, path: FilePath) -> list[str]:
        """Write weights.safetensors and train.json."""
        R = self.known_interactions()
        tensors: dict[str, NDArray[Any]] = {"user_indptr": R.indptr, "user_indices": R.indices}
        if isinstance(self.weights, CSR):
            tensors |= {"indptr": self.weights.indptr, "indices": self.weights.indices}
            tensors["weights"] = self.weights.values()
        elif self.weights is not None:
            tensors["weights"] = self.weights
        if self.rows is not None and self.rows.data is not None:
            tensors["row_weights"] = self.rows.data
        with storage.atomic(path("weights.safetensors")) as temporary:
            save_file(tensors, temporary)
        notes = {"histories": self.context.digest, "n_items": R.n_columns, "half_life": self.half_life}
        storage.write_json(path("train.json"), notes)
        return ["weights.safetensors", "train.json"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        tensors, notes = load_file(path("weights.safetensors")), storage.read_json(path("train.json"))
        user_items = CSR(tensors["user_indptr"], tensors["user_indices"], None, notes["n_items"])
        weights: Weights | None = tensors.get("weights")
        if "indptr" in tensors:
            weights = CSR(tensors["indptr"], tensors["indices"], tensors["weights"], notes["n_items"])
        aged = tensors.get("row_weights")
        rows = None if aged is None else CSR(user_items.indptr, user_items.indices, aged, notes["n_items"])
        return self.set_weights(user_items, weights, rows, float(notes.get("half_life", 0.0)))


def best_of_rows(weights: sp.csr_array, k: int) -> Lists:
    """Return the k largest entries above 0 of each row [B, I], largest first; of equal ones the lower ids first.

    Returns:
        ids int32 [B, k], padded with -1, and weights float32 [B, k], padded with -inf.
    """
    ids = np.full((weights.shape[0], k), -1, np.int32)
    values = np.full(ids.shape, -np.inf, np.float32)
    for n in range(len(ids)):
        row = slice(weights.indptr[n], weights.indptr[n + 1])
        columns, data = weights.indices[row], weights.data[row]
        best = np.lexsort((columns, -data))[:k]
        best = best[data[best] > 0]
        ids[n, : len(best)], values[n, : len(best)] = columns[best], data[best]
    return ids, values

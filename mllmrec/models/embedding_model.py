"""Models whose score is the inner product of a user's vector and an item's."""

from __future__ import annotations

import scipy.sparse as sp
from numpy.typing import ArrayLike

from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.models.base import user_rows
from mllmrec.models.new_items import extend_rows
from mllmrec.models.scorer_model import ScorerModel
from mllmrec.models.scoring import Lists, VectorScorer


class EmbeddingModel(ScorerModel):
    """A recommender of two tables of vectors.

    Attributes:
        vectors: the fitted tables; None before a fit.
    """

    vectors: VectorScorer | None = None

    @property
    def scorer(self) -> VectorScorer:
        """The fitted tables.

        Raises:
            InputError: the model is not fitted.
        """
        if self.vectors is None:
            raise InputError("this model is not fitted; call fit() first")
        return self.vectors

    @property
    def users(self) -> Vectors:
        """Vectors of the users, float32 [U, d]."""
        return self.scorer.users

    @property
    def items(self) -> Vectors:
        """Vectors of the items, float32 [I, d]."""
        return self.scorer.items

    def _add_items(self, features: Vectors, shares: sp.csr_array) -> None:
        self.vectors = VectorScorer(self.users, extend_rows(self.items, shares))

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return the k nearest items by cosine; see Recommender."""
        return self.scorer.similar(user_rows(items), k)

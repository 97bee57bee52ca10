"""Models whose score is the inner product of a user's vector and an item's."""

from __future__ import annotations

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import Recommender, user_rows
from mllmrec.models.scoring import Lists, VectorScorer


class EmbeddingModel(Recommender):
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

    def scores(self, users: ArrayLike) -> NDArray[np.float32]:
        """Return inner products, float32 [B, I]; see Recommender."""
        return self.scorer.scores(user_rows(users))

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Rank held-out items without an array of users x items; see Recommender.

        Args:
            exclude: [U, I], items that are not ranked.
            heldout: [U, I], items to rank.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.
        """
        return self.scorer.ranks(exclude, heldout, limit=limit, progress=progress)

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return the k nearest items by cosine; see Recommender."""
        return self.scorer.similar(user_rows(items), k)

    def _top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        return self.scorer.top(users, k, exclude)

"""Models whose scores, ranks and lists are those of a scorer of fitted arrays.

`EmbeddingModel` is one whose score is the inner product of a user's vector and an item's.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.errors import NotFittedError
from mllmrec.evaluation.groups import ItemRanker, Ranker
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import Recommender, user_rows
from mllmrec.models.new_items import extend_rows
from mllmrec.models.scoring import Lists, Part, Scorer, VectorScorer


class FittedScorer(Scorer, Part, Ranker, Protocol):
    """Scores, lists and ranks items for users."""


class ScorerModel(Recommender):
    """A recommender whose scores, ranks and lists are those of its scorer."""

    @property
    @abstractmethod
    def scorer(self) -> FittedScorer:
        """The fitted arrays.

        Raises:
            NotFittedError: there was no fit.
        """

    def scores(self, users: ArrayLike) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]; see Recommender."""
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

    def among(self, items: NDArray[np.int64]) -> ItemRanker:
        """Return the ranker of only some items; see Recommender."""
        return self.scorer.among(items)

    def _top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        return self.scorer.top(users, k, exclude)


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
            NotFittedError: there was no fit.
        """
        if self.vectors is None:
            raise NotFittedError
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

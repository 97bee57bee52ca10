"""Models that answer by a scorer of their fitted arrays."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.evaluation.groups import ItemRanker, Ranker
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import Recommender, user_rows
from mllmrec.models.scoring import Lists, Part, Scorer


class FittedScorer(Scorer, Part, Ranker, Protocol):
    """Scores, lists and ranks items for users."""


class ScorerModel(Recommender):
    """A recommender whose scores, ranks and lists are those of its scorer."""

    @property
    @abstractmethod
    def scorer(self) -> FittedScorer:
        """The fitted arrays.

        Raises:
            InputError: the model is not fitted.
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

"""Rank the held-out items of new users by popularity, as the lists of a run show them to such users.

A new user has no training item, so no model knows anything of them. Most models score all items alike then, and equal
scores rank by item id, which no shop shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from mllmrec_kernels import CSR, rank_heldout
from numpy.typing import NDArray

from mllmrec.evaluation.groups import ItemRanker, Ranker
from mllmrec.foundation.progress import Progress, silent


def are_new(train: CSR) -> NDArray[np.bool_]:
    """Return whether each user has no training item, bool [U]."""
    return np.asarray(np.diff(train.indptr) == 0)


@dataclass(frozen=True, slots=True)
class AsShown:
    """Ranks by a model for users with training items, and by the number of training users for all others.

    Attributes:
        model: ranks.
        train: binary [U, I], training interactions.
    """

    model: Ranker
    train: CSR

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the rank of each held-out item; see ItemRanker.

        Args:
            exclude: [U, I], items that are not ranked.
            heldout: [U, I], items to rank.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.
        """
        owners = heldout.rows()
        new = are_new(self.train)[owners]
        if not new.any():
            return self.model.ranks(exclude, heldout, limit=limit, progress=progress)
        ranks, known = np.empty(heldout.nnz, np.int32), ~new
        of_known = CSR.from_pairs(owners[known], heldout.indices[known], heldout.shape)
        ranks[known] = self.model.ranks(exclude, of_known, limit=limit, progress=progress)
        users = np.unique(owners[new])
        counts = np.bincount(self.train.indices, minlength=self.train.n_columns).astype(np.float32)[:, None]
        taken = exclude.take_rows(users), heldout.take_rows(users)
        ranks[new] = rank_heldout(np.ones((len(users), 1), np.float32), counts, *taken, limit=limit)
        return ranks

    def among(self, items: NDArray[np.int64]) -> ItemRanker:
        """Return the model's ranker of only some items, int64 [m]; see Ranker."""
        return self.model.among(items)

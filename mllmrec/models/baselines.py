"""Simple yardsticks: whoever does not beat them has learned nothing. All see training interactions only."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.dataset import Histories
from mllmrec.features.encode import Vectors, mean_of_items
from mllmrec.models.scorer import Scorer, VectorScorer, ranks_by_block


def popularity(histories: Histories) -> VectorScorer:
    """Everybody is shown the items with the most training users."""
    counts = np.bincount(histories.items, minlength=histories.n_items).astype(np.float32)
    return VectorScorer(np.ones((histories.n_users, 1), np.float32), counts[:, None])


def untrained_content(items: Vectors, histories: Histories) -> VectorScorer:
    """Cosine of an item's vector to the mean vector of the user's training items."""
    return VectorScorer(mean_of_items(items, histories), items)


class ItemKNN:
    """The sum, over the user's training items, of the full co-occurrence cosine with an item.

    With c_ij the users of both and d_i those of one, the score is sum_j c_ij / sqrt(d_i d_j). It is
    computed as R_u S (S = D^-1/2 R^T R D^-1/2) through the users, so that the I x I matrix is never formed;
    the diagonal of S only touches the user's own items, which are excluded.
    """

    def __init__(self, histories: Histories) -> None:
        histories.require_training("item-kNN")
        user_items: sp.csr_array = histories.user_items().to_scipy().astype(np.float64)
        degrees = np.bincount(histories.items, minlength=histories.n_items)
        scale = 1 / np.sqrt(np.maximum(degrees, 1))
        self._scaled = (user_items * scale[None, :]).tocsr()
        self._user_items = user_items

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """Scores of users start..stop-1 for every item, float32 [stop - start, I]."""
        neighbours = self._scaled[start:stop] @ self._user_items.T  # [B, U]
        dense = (neighbours @ self._scaled).toarray()
        return np.asarray(dense, dtype=np.float32)

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """See Scorer."""
        return ranks_by_block(self, exclude, heldout)


def baselines(items: Vectors, histories: Histories) -> dict[str, Scorer]:
    """The yardsticks of every evaluation, by the name that tables print."""
    return {
        "popularity": popularity(histories),
        "content, untrained": untrained_content(items, histories),
        "item-kNN": ItemKNN(histories),
    }

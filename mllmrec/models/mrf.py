"""MRF: a sparse inverse covariance, each item regressed on the items it correlates with.

Steck, Markov Random Fields for Collaborative Filtering, NeurIPS 2019, section 3.2 with one item per block (r = 0). With
n_i users of item i, G = R^T R and v_i = n_i - n_i² / U,

    S_ij = (G_ij - n_i n_j / U) / (v_i v_j)^(a / 2)       covariances, rescaled by popularity
    T_j  = the items of largest |S_ij| above a threshold, K at most
    b_j  = (S[T_j, T_j] + lambda I)^-1 S[T_j, j],   B_ij = b_ij (v_j / v_i)^(a / 2),   score_u = R_u B.

It is the nearest kin of the item-graph ridge: that one takes its support from Jaccard and cosine, does not center, and
has one lambda for all items. Candidates of T_j are items that share a user with j. Memory: I x K.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from pydantic import Field

from mllmrec.config import ModelConfig, Positive
from mllmrec.models.base import FitData
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.recency import HalfLives
from mllmrec.models.scoring import block_rows

_PROGRESS = 256  # items between two calls of progress


class MRFConfig(ModelConfig):
    """Settings of the Markov random field."""

    kind: Literal["mrf"] = "mrf"
    threshold: Annotated[float, Field(ge=0)] = 0.05  # of |S|
    support: Positive = 200  # K
    popularity_scaling: Annotated[float, Field(ge=0, le=2)] = 0.75  # a
    regularization: Annotated[float, Field(gt=0)] = 10.0  # lambda
    half_lives: HalfLives = (0.0,)  # of a user's items; of several, validation chooses


class MRF(ItemWeightModel):
    """See the module."""

    Config = MRFConfig
    config: MRFConfig
    title = "MRF, sparse"
    reads = frozenset()
    candidates = tuple(
        (f"model.threshold={threshold}", f"model.regularization={lam}")
        for threshold in (0.05, 0.11, 0.2)
        for lam in (10.0, 30.0, 100.0)
    )

    def _fit(self, data: FitData) -> None:
        """Fit B, a column at a time."""
        config, R = self.config, data.user_items
        field = _Covariance(R, config.popularity_scaling)
        support = field.support(config.threshold, config.support)
        values = np.zeros(support.nnz, np.float32)
        for j in range(R.n_columns):
            near = support.row(j)
            if len(near):
                S, own = field.among(near), field.of(near, j)
                b = np.linalg.solve(S + config.regularization * np.eye(len(near)), own)
                values[support.indptr[j] : support.indptr[j + 1]] = b * field.scale[near] / field.scale[j]
            if (j + 1) % _PROGRESS == 0 or j + 1 == R.n_columns:
                self.context.progress("fit MRF", j + 1, R.n_columns)
        self.choose_rows(
            data, CSR(support.indptr, support.indices, values, R.n_columns).transpose(), self.config.half_lives
        )


class _Covariance:
    """Entries of S as they are needed.

    Attributes:
        scale: float64 [I], v^(-a / 2); 0 where an item has no spread.
    """

    def __init__(self, user_items: CSR, scaling: float) -> None:
        R = user_items.to_scipy().astype(np.float64)
        self._by_item, self._by_user, self._users = R.T.tocsr(), R, max(1, R.shape[0])
        self._counts = np.asarray(R.sum(axis=0)).ravel()  # n
        spread = self._counts - self._counts**2 / self._users  # v
        self.scale = np.where(spread > 0, np.where(spread > 0, spread, 1) ** (-scaling / 2), 0)

    def among(self, items: NDArray[np.int32]) -> NDArray[np.float64]:
        """Return S of some items [n] with each other, [n, n]."""
        rows = self._by_item[items]
        counted = (rows @ rows.T).toarray() - np.outer(self._counts[items], self._counts[items]) / self._users
        return np.asarray(counted * np.outer(self.scale[items], self.scale[items]))

    def of(self, items: NDArray[np.int32], j: int) -> NDArray[np.float64]:
        """Return S of some items [n] with item j, [n]."""
        shared = (self._by_item[items] @ self._by_item[[j]].T).toarray().ravel()
        counted = shared - self._counts[items] * self._counts[j] / self._users
        return np.asarray(counted * self.scale[items] * self.scale[j])

    def support(self, threshold: float, most: int) -> CSR:
        """Return T, binary [I, I]; row j is T_j, of equal |S| the lower ids.

        Args:
            threshold: of |S|.
            most: K.
        """
        n, owners, chosen = len(self._counts), [], []
        step = block_rows(n)
        for start in range(0, n, step):
            stop = min(start + step, n)
            shared = sp.coo_array(self._by_item[start:stop] @ self._by_user)
            j, i = shared.row + start, shared.col
            size = np.abs(shared.data - self._counts[i] * self._counts[j] / self._users) * self.scale[i] * self.scale[j]
            kept = (size > threshold) & (i != j)
            j, i, size = j[kept], i[kept], size[kept]
            order = np.lexsort((i, -size, j))
            j, i = j[order], i[order]
            place = np.arange(len(j)) - np.searchsorted(j, j)
            owners.append(j[place < most])
            chosen.append(i[place < most])
        return CSR.from_pairs(np.concatenate(owners), np.concatenate(chosen), (n, n))

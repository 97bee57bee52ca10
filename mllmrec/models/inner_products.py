"""Two tables whose inner products are nearly a model's scores, for models that score by item-item weights.

score_u = s_u R_u W + p_u . q_i, with s_u = 1 / sd(R_u W) for the ensemble, and 1 with no p and q for a matrix of
weights alone. The inner product is taken over as it is. Of the other part, with S = diag(s), the truncated singular
value decomposition S R W ~ U_r D_r V_r^T is the nearest matrix of rank r (Eckart and Young, 1936):

    users (U_r D_r | p),   items (V_r | q)

The products with S R W are sparse ones; no array of users x items is formed. Memory: (U + I) (r + d).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, row_spread
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, svds

from mllmrec.errors import InputError
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import Recommender
from mllmrec.models.fitted_ensemble import FittedEnsemble
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.validation import spread_users
from mllmrec.models.weight_scorers import WeightsScorer

CUTOFF, CANDIDATES = 20, 100
_MEASURED = 1_000  # users on whom the error is measured, at most


@dataclass(frozen=True, slots=True)
class ProductError:
    """The difference of inner products and scores, on users spread evenly over those with training items.

    Attributes:
        rank: columns of the truncated decomposition; 0 where the tables are exact.
        users: that were measured.
        overlap: share of a user's exact 20 best items that are among the 20 best by inner products.
        candidates: share of them among the 100 best by inner products.
        score_rmse: root mean square of the difference on the exact lists, over the scores' standard deviation there.
    """

    rank: int
    users: int
    overlap: float
    candidates: float
    score_rmse: float


def inner_products(model: Recommender, rank: int, progress: Progress = silent) -> VectorScorer:
    """Return the two tables of a model.

    Args:
        model: fitted; its training interactions are known.
        rank: r, at least 1; lowered to what the matrix can have.
        progress: called before and after the decomposition.

    Raises:
        InputError: the model has neither vectors nor weights.
    """
    if isinstance(model, EmbeddingModel):
        return model.scorer
    if isinstance(model, FittedEnsemble):
        sums, rest = model.scorer.weights, model.scorer.rest
    elif isinstance(model, ItemWeightModel) and model.weights is not None and isinstance(model.scorer, WeightsScorer):
        sums, rest = model.scorer, None
    else:
        raise InputError(f"{model.title} has no weights to take vectors from; serve what mllmrec recommend writes")
    R, W = sums.user_items.to_scipy(), sums.matrix
    scale = np.ones(R.shape[0])
    if rest is not None:
        spread = row_spread(sums.user_items, sums.weights)
        scale = np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
    progress("factorize weights", 0, 1)
    users, items = _decompose(R.astype(np.float64), W, scale, rank)
    progress("factorize weights", 1, 1)
    if rest is None:
        return VectorScorer(users, items)
    return VectorScorer(np.concatenate([users, rest.users], axis=1), np.concatenate([items, rest.items], axis=1))


def _decompose(
    R: sp.csr_array, W: Any, scale: NDArray[np.float64], rank: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return U_r D_r [U, r] and V_r [I, r] of diag(scale) R W; the same bits for the same arguments."""
    shape = R.shape[0], W.shape[1]

    def forward(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(scale * (R @ (W @ x.ravel())))

    def backward(y: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(W.T @ (R.T @ (scale * y.ravel())))

    operator = LinearOperator(shape, matvec=forward, rmatvec=backward, dtype=np.float64)
    r = min(rank, min(shape) - 1)
    if r < 1:
        return np.zeros((shape[0], 1), np.float32), np.zeros((shape[1], 1), np.float32)
    left, values, right = svds(operator, k=r, v0=np.ones(min(shape)))
    order = np.argsort(-values, kind="stable")
    users, items = left[:, order] * values[order], right[order].T
    return np.ascontiguousarray(users, np.float32), np.ascontiguousarray(items, np.float32)


def measure_error(model: Recommender, tables: VectorScorer, owned: CSR, rank: int) -> ProductError:
    """Return how far lists and scores by inner products are from the model's own.

    Args:
        model: fitted.
        tables: of `inner_products`.
        owned: [U, I], items that users are not shown.
        rank: of the decomposition; 0 where the tables are exact.
    """
    users = spread_users(np.flatnonzero(np.diff(owned.indptr)), _MEASURED)
    shown = owned.take_rows(users)
    exact, scores = model.recommend(users, CUTOFF, exclude=shown)
    near = tables.top(users, CANDIDATES, shown)[0]
    listed = exact >= 0
    places = np.nonzero(listed)
    products = (tables.users[users[places[0]]] * tables.items[exact[places]]).sum(axis=1)
    spread = float(scores[places].std()) or 1.0
    within = [np.mean([np.isin(e[e >= 0], n[:k]).mean() for e, n in zip(exact, near, strict=True) if (e >= 0).any()])
              for k in (CUTOFF, CANDIDATES)]  # fmt: skip
    rmse = float(np.sqrt(np.mean((products - scores[places]) ** 2))) / spread
    return ProductError(rank, len(users), float(within[0]), float(within[1]), rmse)

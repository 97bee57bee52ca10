"""Item-kNN with a neighbourhood and a weighting: an item adds its likeness to each of its k nearest.

Two items are alike where the same users own both. With n_i users of item i, n_u items of user u, and
idf_u = log(I / (1 + n_u)), for who owns much says little of what goes together, S_ij = d_i d_j sum of w_u
over the users of both:

    cosine   w_u = 1       d_i = 1 / sqrt(n_i)                       (Deshpande and Karypis, TOIS 2004)
    tfidf    w_u = idf_u²  d_i = 1 / sqrt(sum of w_u over the users of i)
    bm25     w_u = idf_u²  d_i = 2.2 / (1 + 1.2 (1/4 + 3/4 n_i / mean of all n_i))

The last two take items for documents and users for their words, with the weights and constants of the library
`implicit` (TFIDFRecommender, BM25Recommender). Memory: I k, and a block of rows of S.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.config import Weighting
from mllmrec.dataset import Histories
from mllmrec.models.item_weights import ItemWeights
from mllmrec.models.scorer import block_rows

_K1, _B = 1.2, 0.75  # of BM25


def item_knn(histories: Histories, *, neighbours: int, weighting: Weighting) -> ItemWeights:
    """The k nearest items of each item; those that share no user are none.

    Args:
        histories: training histories.
        neighbours: k, the item itself not counted.
        weighting: of users and items.

    Raises:
        LeakError: the histories hold held-out interactions.
    """
    histories.require_training("item-kNN")
    user_items = histories.user_items()
    weights = _nearest(_weighted(user_items, weighting), neighbours)
    return ItemWeights(user_items, weights, histories.digest)


def _weighted(user_items: CSR, weighting: Weighting) -> sp.csr_array:
    """X, float64 [U, I], with S = X^T X."""
    owned = user_items.to_scipy().astype(np.float64)
    users_of = np.bincount(user_items.indices, minlength=user_items.n_columns)  # n_i, [I]
    idf = np.log(user_items.n_columns / (1 + np.diff(user_items.indptr)))  # [U]
    counted = np.ones_like(idf) if weighting == "cosine" else np.abs(idf)  # sqrt(w_u)
    if weighting == "bm25":
        scale = (_K1 + 1) / (1 + _K1 * (1 - _B + _B * users_of / max(users_of.mean(), 1e-9)))
    else:
        length = owned.T @ counted**2  # 0 where nobody owns the item, or only users whose idf is 0
        scale = np.divide(1, np.sqrt(length), out=np.zeros(len(length)), where=length > 0)
    return sp.csr_array(owned.multiply(counted[:, None]).multiply(scale[None, :]))


def _nearest(weighted: sp.csr_array, k: int) -> CSR:
    """The k largest entries above 0 of each row of X^T X, but its diagonal; of equal ones the lower ids."""
    by_item, n = weighted.T.tocsr(), weighted.shape[1]
    block = block_rows(n)
    parts = [_largest(by_item[start : start + block] @ weighted, start, k) for start in range(0, n, block)]
    return CSR.from_scipy(sp.vstack(parts))


def _largest(alike: sp.csr_array, first: int, k: int) -> sp.csr_array:
    """At most k entries of each row of a block [B, I] whose row 0 is item `first`."""
    rows = np.repeat(np.arange(alike.shape[0]), np.diff(alike.indptr))
    alike.data[alike.indices == rows + first] = 0
    order = np.lexsort((alike.indices, -alike.data, rows))  # within each row by value
    place = np.arange(len(order)) - alike.indptr[rows]
    kept = order[(place < k) & (alike.data[order] > 0)]
    values = alike.data[kept].astype(np.float32)
    return sp.csr_array((values, (rows[kept], alike.indices[kept])), shape=alike.shape)

"""The contract of cooccurrence_topk: dense counts, one formula a measure, a full sort.

With N(i) the users who touched item i, d_i = |N(i)| and c_ij = |N(i) ∩ N(j)|:

    count    c_ij
    cosine   c_ij / sqrt(d_i d_j)
    jaccard  c_ij / (d_i + d_j - c_ij)      with |N(i) ∪ N(j)| in the denominator (docs/method.md, 2)

Under a window c_ij counts only the users who touched i and j at most `window` apart; the same formula
follows, so a user who touched both further apart stands once for i and once for j.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR


def _counts(user_items: CSR, window: int | None, times: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return c_ij, int64 [I, I], the diagonal included."""
    together = np.zeros((user_items.n_columns, user_items.n_columns), dtype=np.int64)
    for u in range(user_items.n_rows):
        items = user_items.row(u)
        near = np.ones((len(items), len(items)), dtype=bool)
        if window is not None and times is not None:
            when = times[user_items.indptr[u] : user_items.indptr[u + 1]]
            near = np.abs(when[:, None] - when[None, :]) <= window
        together[np.ix_(items, items)] += near
    return together


def _rank_keys(together: NDArray[np.int64], degrees: NDArray[np.int64], measure: str) -> NDArray[np.float64]:
    """Return the sort keys of each row, float64 [I, I]: one division of integers each, so equal ratios tie."""
    if measure == "count":
        return together.astype(np.float64)
    if measure == "cosine":
        # Within a row d_i is constant: c² / d_j sorts as the cosine does.
        return together.astype(np.float64) ** 2 / np.maximum(degrees, 1)[None, :]
    union = degrees[:, None] + degrees[None, :] - together
    jaccard: NDArray[np.float64] = together / np.maximum(union, 1)
    return jaccard


def _scores(keys: NDArray[np.float64], degrees: NDArray[np.int64], measure: str) -> NDArray[np.float64]:
    """Return the measure from the keys of each row: cosine = sqrt(c² / d_j / d_i)."""
    return np.sqrt(keys / np.maximum(degrees, 1)[:, None]) if measure == "cosine" else keys


def cooccurrence_topk(
    user_items: CSR, k: int, measure: str, window: int | None, times: NDArray[np.int64] | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return ids int32 [I, k] and scores float32 [I, k].

    Args:
        user_items: [U, I], the pattern.
        k: neighbors per item.
        measure: "jaccard", "cosine" or "count".
        window: longest distance in time of two counted entries; None for all.
        times: int64 [nnz], needed by `window`.
    """
    n_items = user_items.n_columns
    degrees = np.bincount(user_items.indices, minlength=n_items)
    together = _counts(user_items, window, times)
    np.fill_diagonal(together, 0)
    keys = _rank_keys(together, degrees, measure)
    scores = _scores(keys, degrees, measure)
    ids = np.full((n_items, k), -1, dtype=np.int32)
    best = np.zeros((n_items, k), dtype=np.float32)
    for i in range(n_items):
        order = np.lexsort((np.arange(n_items), -keys[i]))[:k]
        order = order[together[i, order] > 0]
        ids[i, : len(order)] = order
        best[i, : len(order)] = scores[i, order]
    return ids, best

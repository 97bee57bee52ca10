"""The contract of ridge_weights: one small ridge regression per row, as a textbook writes it, in float64.

With G = R^T R + w V V^T and S_j the support of column j,
    b_j = (G[S_j, S_j] + lambda I)^-1 G[S_j, j]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR

Strengths = Sequence[tuple[float, float]]  # (w, lambda)


def _gram(user_items: CSR, vectors: NDArray[np.float32], content_weight: float) -> NDArray[np.float64]:
    """Return G, dense, float64 [I, I]."""
    R = np.zeros(user_items.shape)
    R[user_items.rows(), user_items.indices] = 1
    V = vectors.astype(np.float64)
    return np.asarray(R.T @ R + content_weight * (V @ V.T))


def ridge_weights(
    user_items: CSR, vectors: NDArray[np.float32], support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    """Return the weights in the order of `support`'s entries, float32 [len(strengths), support.nnz].

    Args:
        user_items: R, [U, I], the pattern.
        vectors: V, float32 [I, d].
        support: [I, I], the pattern.
        strengths: pairs (w, lambda).
    """
    weights = np.empty((len(strengths), support.nnz), np.float32)
    for out, (content_weight, regularization) in zip(weights, strengths, strict=True):
        G = _gram(user_items, vectors, content_weight)
        for j in range(support.n_rows):
            S = support.row(j)
            system = G[np.ix_(S, S)] + regularization * np.eye(len(S))
            out[support.indptr[j] : support.indptr[j + 1]] = np.linalg.solve(system, G[S, j])
    return weights


def count_members(
    degrees: NDArray[np.int64], support: CSR, start: int = 0, stop: int | None = None
) -> NDArray[np.int64]:
    """Count the users of each item from start to stop and of its neighbors, a user once for each of them.

    Args:
        degrees: int64 [I], users of each item.
        support: [I, I], the neighbors.
        start: the first item.
        stop: the item after the last; None: I.

    Returns:
        int64 [stop - start].
    """
    items = slice(start, support.n_rows if stop is None else stop)
    ends = support.indptr[items.start : items.stop + 1]
    before = np.concatenate([[0], np.cumsum(degrees[support.indices[ends[0] : ends[-1]]])])
    return np.asarray(np.diff(before[ends - ends[0]]) + degrees[items])

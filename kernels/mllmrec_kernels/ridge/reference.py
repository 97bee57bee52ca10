"""The contract of ridge_weights: one small ridge regression a row, as a textbook writes it, in float64.

With G = R^T R + w V V^T and S_j the support of column j,
    b_j = (G[S_j, S_j] + lambda I)^-1 G[S_j, j]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR

Strengths = Sequence[tuple[float, float]]  # (w, lambda)


def gram(user_items: CSR, vectors: NDArray[np.float32], content_weight: float) -> NDArray[np.float64]:
    """G, dense, float64 [I, I]."""
    R = np.zeros(user_items.shape)
    R[user_items.rows(), user_items.indices] = 1
    V = vectors.astype(np.float64)
    return np.asarray(R.T @ R + content_weight * (V @ V.T))


def ridge_weights(
    user_items: CSR, vectors: NDArray[np.float32], support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    """The weights in the order of `support`'s entries; float32 [len(strengths), support.nnz]."""
    weights = np.empty((len(strengths), support.nnz), np.float32)
    for made, (content_weight, regularisation) in zip(weights, strengths, strict=True):
        G = gram(user_items, vectors, content_weight)
        for j in range(support.n_rows):
            S = support.row(j)
            system = G[np.ix_(S, S)] + regularisation * np.eye(len(S))
            made[support.indptr[j] : support.indptr[j + 1]] = np.linalg.solve(system, G[S, j])
    return weights

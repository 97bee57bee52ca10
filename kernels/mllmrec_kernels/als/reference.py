"""The contract of als_factors: one system per row, as a textbook writes it, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR


def als_factors(
    rows: CSR,
    factors: NDArray[np.float32],
    gram: NDArray[np.float32],
    regularization: NDArray[np.floating],
    prior: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Return the factors of each row, float32 [R, r].

    Args:
        rows: [R, C], the pattern.
        factors: Q, float32 [C, r].
        gram: a Q^T Q, float32 [r, r].
        regularization: floating [R].
        prior: float32 [R, r].
    """
    rank = factors.shape[1]
    solved = np.zeros((rows.n_rows, rank), np.float32)
    for u in range(rows.n_rows):
        near = factors[rows.row(u)].astype(np.float64)  # [n, r]
        right = near.sum(axis=0) + regularization[u] * prior[u]
        solved[u] = np.linalg.solve(near.T @ near + gram + regularization[u] * np.eye(rank), right)
    return solved

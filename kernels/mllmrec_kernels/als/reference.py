"""The contract of als_factors: a system a row, as a textbook writes it, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR


def als_factors(
    rows: CSR,
    factors: NDArray[np.float32],
    everything: NDArray[np.float32],
    shrinkage: NDArray[np.float64],
    prior: NDArray[np.float32],
) -> NDArray[np.float32]:
    """float32 [R, r]; `everything` is a Q^T Q."""
    rank = factors.shape[1]
    solved = np.zeros((rows.n_rows, rank), np.float32)
    for u in range(rows.n_rows):
        near = factors[rows.row(u)].astype(np.float64)  # [n, r]
        right = near.sum(axis=0) + shrinkage[u] * prior[u]
        solved[u] = np.linalg.solve(near.T @ near + everything + shrinkage[u] * np.eye(rank), right)
    return solved

"""Dense algebra of items x items that EASE and its kin share, and the limit of its memory."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from pydantic import Field
from scipy.linalg import lapack

from mllmrec.config import ModelConfig
from mllmrec.errors import TrainingError

Square = NDArray[np.float64]  # [I, I]


class DenseConfig(ModelConfig):
    """Settings of a model that holds matrices of items x items."""

    regularization: Annotated[float, Field(gt=0)] = 50.0  # lambda
    dense_gib: Annotated[float, Field(gt=0)] = 8.0  # the most that the dense matrices may take


def refuse_large(title: str, n_items: int, matrices: int, dense_gib: float) -> None:
    """Refuse a catalogue whose dense matrices take too much memory.

    Args:
        title: of the model, as the error names it.
        n_items: I.
        matrices: float64 matrices of I x I at the peak.
        dense_gib: the most that they may take, GiB.

    Raises:
        TrainingError: they would take more.
    """
    gib = matrices * 8 * n_items * n_items / 2**30
    if gib > dense_gib:
        raise TrainingError(
            f"{title} over {n_items:,} items needs {gib:,.1f} GiB of dense matrices, and model.dense_gib is "
            f"{dense_gib:g}; raise it, or take model.kind=ridge, which holds neighbors alone"
        )


def gram_of_items(user_items: CSR) -> Square:
    """Return G = R^T R, float64 [I, I]."""
    R = user_items.to_scipy()
    return np.asarray((R.T @ R).toarray(), np.float64)


def inverse(matrix: Square, title: str) -> Square:
    """Return the inverse of a symmetric matrix.

    Raises:
        TrainingError: the matrix is not positive definite.
    """
    factor, failed = lapack.dpotrf(matrix, lower=1)
    if failed:
        raise TrainingError(f"{title}'s matrix is not positive definite; raise model.regularization")
    P, _ = lapack.dpotri(factor, lower=1)
    lower = np.tril(P, -1)
    return np.asarray(lower + lower.T + np.diag(np.diag(P)))


def regressed_items(P: Square) -> Square:
    """Return B_ij = -P_ij / P_jj with B_jj = 0: each item regressed on all others; [I, I]."""
    B = P / -np.diag(P)
    np.fill_diagonal(B, 0)
    return np.asarray(B)

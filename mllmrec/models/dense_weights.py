"""The dense algebra of EASE and its kin, in one and a half float64 matrices of items x items.

A symmetric matrix is [I, I], float64, in Fortran's order, and is overwritten: G by its Cholesky factor, that by the
inverse P, that by the weights. LAPACK works on the lower triangle, which is mirrored in blocks. Weights are stored in
float32, C's order, half a matrix more. Only LAPACK's own copies would be larger.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mllmrec_kernels import CSR
from mllmrec_kernels.base.parallel import chunks
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from mllmrec.errors import TrainingError
from mllmrec.features.encode import Vectors

Square = NDArray[np.float64]  # [I, I], Fortran's order
Rows = NDArray[np.float64]  # [I, d]
_MATRICES = 1.5  # float64, I x I, at the peak
_BLOCK = 512  # rows that are counted or mirrored at once


class Factors(NamedTuple):
    """Two tables whose inner products are weights off the diagonal: left right^T."""

    left: Rows
    right: Rows


def refuse_large(title: str, n_items: int, dense_gib: float) -> None:
    """Refuse a catalogue whose dense matrices take too much memory.

    Args:
        title: of the model, as the error names it.
        n_items: I.
        dense_gib: the most that they may take, GiB.

    Raises:
        TrainingError: they would take more.
    """
    gib = _MATRICES * 8 * n_items * n_items / 2**30
    if gib > dense_gib:
        raise TrainingError(
            f"{title} over {n_items:,} items needs {gib:,.1f} GiB of dense matrices, and model.dense_gib is "
            f"{dense_gib:g}; raise it, or take model.kind=ridge, which holds neighbors alone"
        )


def gram_of_items(user_items: CSR) -> Square:
    """Return G = R^T R."""
    R = user_items.to_scipy().astype(np.float64)
    by_item, n = R.T.tocsr(), R.shape[1]
    G = np.empty((n, n))
    for start, stop in chunks(n, _BLOCK):
        (by_item[start:stop] @ R).toarray(out=G[start:stop])
    return G.T


def add_products(G: Square, vectors: Vectors, weight: float) -> Square:
    """Add w V V^T to the lower triangle of G; return G.

    Args:
        G: overwritten.
        vectors: V, float32 [I, d].
        weight: w.
    """
    V = vectors.astype(np.float64)
    return np.asarray(blas.dsyrk(weight, V.T, 1, G, trans=1, lower=1, overwrite_c=1))


def add_to_diagonal(G: Square, values: NDArray[np.float64] | float) -> None:
    """Add a number, or one an item, to the diagonal of G."""
    G[np.diag_indices(len(G))] += values


def inverse(G: Square, title: str) -> Square:
    """Return the inverse of a symmetric matrix, of which the lower triangle is read and all is overwritten.

    Raises:
        TrainingError: the matrix is not positive definite.
    """
    factor, failed = lapack.dpotrf(G, lower=1, clean=0, overwrite_a=1)
    if failed:
        raise TrainingError(f"{title}'s matrix is not positive definite; raise model.regularization")
    P, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    for start, stop in chunks(len(P), _BLOCK):
        own = P[start:stop, start:stop]
        own[:] = np.tril(own) + np.tril(own, -1).T
        P[start:stop, stop:] = P[stop:, start:stop].T
    return np.asarray(P)


def weights_of(P: Square, scale: NDArray[np.float64], factors: Factors | None = None) -> NDArray[np.float32]:
    """Return -P diag(scale) + left right^T with a diagonal of 0, float32 [I, I].

    Args:
        P: symmetric; overwritten.
        scale: float64 [I], one a column.
        factors: left and right; None: nothing is added.
    """
    B = P.T  # in C's order; of a symmetric matrix the same
    B *= -scale
    if factors is not None:
        B = blas.dgemm(1, factors.right, factors.left, 1, B.T, trans_b=1, overwrite_c=1).T
    np.fill_diagonal(B, 0)
    return B.astype(np.float32)


def regression_of_vectors(vectors: Vectors, regularization: float) -> Factors:
    """Return the weights C of each item's vector regressed on all others', off the diagonal.

    With M = (V^T V + lambda I)^-1 the identity of Woodbury gives (V V^T + lambda I)^-1 = (I - V M V^T) / lambda, and
    EASE's formula C_ij = (V M V^T)_ij / (1 - h_j), h_j = v_j M v_j^T. So a system of d x d stands for one of I x I.

    Args:
        vectors: V, float32 [I, d].
        regularization: lambda > 0.
    """
    V = vectors.astype(np.float64)
    left: Rows = np.linalg.solve(V.T @ V + regularization * np.eye(V.shape[1]), V.T).T.astype(np.float64)
    return Factors(left, V / (1 - (left * V).sum(axis=1))[:, None])

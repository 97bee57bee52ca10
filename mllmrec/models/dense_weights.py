"""The dense algebra of EASE and its kin, in one and a half float64 matrices of items x items.

A is symmetric, float64 [I, I]. Only its lower triangle is read, and its inverse overwrites it. The symmetric sweep goes
through the items in blocks K. With P the inverse of A_KK, a block changes

    A_ij <- A_ij - A_iK P A_Kj,   A_iK <- A_iK P,   A_KK <- -P.

After the last block A holds -1 times the inverse. Nearly all operations are products of blocks, as many as LAPACK's
Cholesky and inverse take. LAPACK gets single blocks alone: it calls OpenBLAS 0.3's threaded dsyrk, which writes past
its buffer at 18,357 items on two threads. Weights are stored in float32, half a matrix more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from mllmrec_kernels import CSR
from mllmrec_kernels.base.parallel import chunks
from numpy.typing import NDArray
from scipy.linalg import lapack

from mllmrec.errors import TrainingError
from mllmrec.features.encode import Vectors

Square = NDArray[np.float64]  # [I, I]
Rows = NDArray[np.float64]  # [I, d]
_MATRICES = 1.5  # float64, I x I, at the peak
_LEAST_UNEXPLAINED = 1e-9  # least 1 - h: a float64 keeps seven digits of it
_BLOCK = 512  # rows of one step


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
    return G


def add_products(G: Square, vectors: Vectors, weight: float) -> None:
    """Add w V V^T to G.

    Args:
        G: changed in place.
        vectors: V, float32 [I, d].
        weight: w.
    """
    V = vectors.astype(np.float64)
    for start, stop in chunks(len(V), _BLOCK):
        G[start:stop] += (weight * V[start:stop]) @ V.T


def add_to_diagonal(G: Square, values: NDArray[np.float64] | float) -> None:
    """Add a number, or one an item, to the diagonal of G."""
    G[np.diag_indices(len(G))] += values


def invert(A: Square, title: str) -> None:
    """Put the inverse of a symmetric matrix in its place; the lower triangle is read, both are written.

    Raises:
        TrainingError: the matrix is not positive definite.
    """
    blocks = chunks(len(A), _BLOCK)
    products = np.empty((min(_BLOCK, len(A)), len(A)))
    for start, stop in blocks:
        panel = np.concatenate([A[start:stop, :start].T, A[start:, start:stop]])  # A_iK of all i
        panel[start:stop] = _mirrored(panel[start:stop])
        P = _inverse(panel[start:stop], title)
        solved = panel @ P
        for first, last in blocks:
            A[first:last, :last] -= np.matmul(solved[first:last], panel[:last].T, out=products[: last - first, :last])
        A[start:stop, :start], A[stop:, start:stop], A[start:stop, start:stop] = solved[:start].T, solved[stop:], -P
    for start, stop in blocks:
        A[start:stop, :stop] *= -1
        A[start:stop, start:stop] = _mirrored(A[start:stop, start:stop])
        A[:start, start:stop] = A[start:stop, :start].T


def _inverse(block: Square, title: str) -> Square:
    """Return the inverse of a symmetric block."""
    factor, failed = lapack.dpotrf(block, lower=1)
    if failed:
        raise TrainingError(f"{title}'s matrix is not positive definite; raise model.regularization")
    return _mirrored(lapack.dpotri(factor, lower=1)[0])


def _mirrored(block: Square) -> Square:
    """Return the symmetric block of a lower triangle."""
    return np.asarray(np.tril(block) + np.tril(block, -1).T)


def weights_of(P: Square, scale: NDArray[np.float64], factors: Factors | None = None) -> NDArray[np.float32]:
    """Return -P diag(scale) + left right^T with a diagonal of 0, float32 [I, I].

    Args:
        P: symmetric.
        scale: float64 [I], one a column.
        factors: left and right; None: nothing is added.
    """
    B = np.empty(P.shape, np.float32)
    for start, stop in chunks(len(P), _BLOCK):
        rows = P[start:stop] * -scale
        if factors is not None:
            rows += factors.left[start:stop] @ factors.right.T
        B[start:stop] = rows
    np.fill_diagonal(B, 0)
    return B


def regression_of_vectors(vectors: Vectors, regularization: float, title: str) -> Factors:
    """Return the weights C of each item's vector regressed on all others', off the diagonal.

    With M = (V^T V + lambda I)^-1 the identity of Woodbury gives (V V^T + lambda I)^-1 = (I - V M V^T) / lambda, and
    EASE's formula C_ij = (V M V^T)_ij / (1 - h_j), h_j = v_j M v_j^T. So a system of d x d stands for one of I x I.

    Args:
        vectors: V, float32 [I, d].
        regularization: lambda > 0.
        title: of the model, as the error names it.

    Raises:
        TrainingError: lambda is lost in the rounding of the vectors' products.
    """
    V = vectors.astype(np.float64)
    gram = V.T @ V + regularization * np.eye(V.shape[1])
    lost = TrainingError(
        f"{title} cannot regress the item vectors with model.content_regularization={regularization:g}, which is "
        "lost in rounding; raise it"
    )
    try:
        smallest = np.diag(np.linalg.cholesky(gram)).min() ** 2
        left: Rows = np.linalg.solve(gram, V.T).T.astype(np.float64)
    except np.linalg.LinAlgError as error:
        raise lost from error
    unexplained = 1 - (left * V).sum(axis=1)  # 1 - h
    rounding = len(gram) * np.finfo(np.float64).eps * np.diag(gram).max()
    if smallest < rounding or not unexplained.min() > _LEAST_UNEXPLAINED:
        raise lost
    return Factors(left, V / unexplained[:, None])

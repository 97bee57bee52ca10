"""A graph's edge weights in closed form: each item regressed on its own neighbours."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels import backend as backends
from mllmrec_kernels.csr import CSR
from mllmrec_kernels.errors import KernelInputError
from mllmrec_kernels.ridge import reference


def ridge_weights(
    user_items: CSR,
    vectors: NDArray[np.float32],
    support: CSR,
    *,
    content_weight: float,
    regularisation: float,
    backend: str = "auto",
) -> CSR:
    """The weights that best rebuild each item from its neighbours, by ridge regression (issue 5, section 3).

    With G = R^T R + w V V^T over interactions R and vectors V, row j of the result holds
    b_j = (G[S, S] + lambda I)^-1 G[S, j] over S, the entries of row j of `support`. It minimises
    |R_j - R_S b|² + w |V_j - V_S b|² + lambda |b|². With w = 0 and S all other items it is SLIM without its
    L1 term and sign constraint. Nothing of size I x I is made.

    Args:
        user_items: R, U x I; only the pattern is read.
        vectors: V, float32, shape (I, d), finite.
        support: I x I, the neighbours of each item; only the pattern is read; no diagonal entry.
        content_weight: w >= 0.
        regularisation: lambda > 0.
        backend: "auto", "numba" or "reference".

    Returns:
        The pattern of `support` with float32 weights; the same bits for any number of threads. A user's
        score of item j is the sum of row j over the user's items.

    Raises:
        KernelInputError: shapes do not match, an item supports itself, or an argument is out of range.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    _check(user_items, vectors, support, content_weight, regularisation)
    vectors = np.ascontiguousarray(vectors)
    if backends.choose(backend, vectors, cpu=("numba",), gpu=()) == "reference":
        data = reference.ridge_weights(user_items, vectors, support, content_weight, regularisation)
    else:
        from mllmrec_kernels.ridge import cpu

        data = cpu.ridge_weights(user_items, vectors, support, content_weight, regularisation)
    return CSR(support.indptr, support.indices, data, support.n_columns)


def _check(
    user_items: CSR, vectors: NDArray[np.float32], support: CSR, content_weight: float, regularisation: float
) -> None:
    n = user_items.n_columns
    if vectors.dtype != np.float32 or vectors.ndim != 2 or len(vectors) != n:
        raise KernelInputError(f"vectors must be float32 of shape ({n}, d); got {vectors.dtype} {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise KernelInputError(f"vectors must be finite; row {np.flatnonzero(~np.isfinite(vectors).all(1))[0]} is not")
    if support.shape != (n, n):
        raise KernelInputError(f"support must have shape ({n}, {n}); got {support.shape}")
    itself = np.flatnonzero(support.rows() == support.indices)
    if len(itself):
        raise KernelInputError(f"support must not hold the diagonal; item {support.indices[itself[0]]} supports itself")
    if not 0 <= content_weight < math.inf:
        raise KernelInputError(f"content_weight must be at least 0; got {content_weight}")
    if not 0 < regularisation < math.inf:
        raise KernelInputError(f"regularisation must be above 0; got {regularisation}")

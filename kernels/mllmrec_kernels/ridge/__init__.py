"""A graph's edge weights in closed form: each item regressed on its own neighbors."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelError, KernelInputError
from mllmrec_kernels.ridge import reference
from mllmrec_kernels.ridge.reference import Strengths

if TYPE_CHECKING:
    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike


def ridge_weights(
    user_items: SparseLike,
    vectors: ArrayLike,
    support: SparseLike,
    *,
    content_weight: float,
    regularization: float,
    backend: str = "auto",
) -> CSR:
    """Return the weights that best rebuild each item from its neighbors, by ridge regression.

    With G = R^T R + w V V^T over interactions R and vectors V, row j of the result holds
    b_j = (G[S, S] + lambda I)^-1 G[S, j] over S, the entries of row j of `support`. It minimizes
    |R_j - R_S b|² + w |V_j - V_S b|² + lambda |b|². With w = 0 and S all other items it is SLIM (Ning and Karypis,
    ICDM 2011) without its L1 term and sign constraint. Nothing of size I x I is made.

    Args:
        user_items: R, sparse [U, I]; only the pattern is read.
        vectors: V, float32 [I, d], finite, NumPy or torch.
        support: sparse [I, I], the neighbors of each item; only the pattern is read; no diagonal entry.
        content_weight: w >= 0.
        regularization: lambda > 0.
        backend: "auto", "numba", "torch" (on the device of `vectors`) or "reference".

    Returns:
        The pattern of `support` with float32 weights, in NumPy wherever `vectors` are. Numba makes the same
        bits for any number of threads. A user's score of item j is the sum of row j over the user's items.

    Raises:
        KernelInputError: types or shapes do not match, an item supports itself, or an argument is out of range.
        KernelError: lambda is so far below G that float64 cannot solve an item's system.
        BackendUnavailableError: the named backend cannot run here.
    """
    strengths = ((content_weight, regularization),)
    return ridge_path(user_items, vectors, support, strengths, backend=backend)[0]


def ridge_path(
    user_items: SparseLike,
    vectors: ArrayLike,
    support: SparseLike,
    strengths: Strengths,
    *,
    by_item: bool = False,
    backend: str = "auto",
) -> tuple[CSR, ...]:
    """Return `ridge_weights` for several (w, lambda); what does not depend on them is made once.

    Args:
        user_items: as in `ridge_weights`.
        vectors: as in `ridge_weights`.
        support: as in `ridge_weights`.
        strengths: pairs (content_weight, regularization).
        by_item: `user_items` is given transposed, [I, U], so that it need not be transposed here.
        backend: as in `ridge_weights`.

    Returns:
        A result of `ridge_weights` for each pair, in the order given.
    """
    matrix, S = as_csr("user_items", user_items, binary=True), as_csr("support", support, binary=True)
    _check(matrix.n_rows if by_item else matrix.n_columns, vectors, S)
    for content_weight, regularization in strengths:
        _check_strengths(content_weight, regularization)
    chosen = backends.choose(backend, vectors, cpu=("numba", "torch"), gpu=("torch",))
    if chosen == "torch":
        weights = _by_torch(matrix.transpose() if by_item else matrix, vectors, S, strengths)
    elif chosen == "numba":
        from mllmrec_kernels.ridge import cpu

        weights = cpu.ridge_weights(matrix if by_item else matrix.transpose(), _contiguous(vectors), S, strengths)
    else:
        R = matrix.transpose() if by_item else matrix
        weights = reference.ridge_weights(R, _contiguous(vectors), S, strengths)
    for row, (content_weight, regularization) in zip(weights, strengths, strict=True):
        _check_solved(row, S, content_weight, regularization)
    return tuple(CSR(S.indptr, S.indices, row, S.n_columns) for row in weights)


def _by_torch(user_items: CSR, vectors: ArrayLike, support: CSR, strengths: Strengths) -> NDArray[np.float32]:
    import torch

    from mllmrec_kernels.ridge import gpu

    tensor = vectors.detach() if arrays.is_tensor(vectors) else torch.from_numpy(_contiguous(vectors))
    return gpu.ridge_weights(user_items, tensor, support, strengths)


def _contiguous(vectors: ArrayLike) -> NDArray[np.float32]:
    return np.ascontiguousarray(arrays.as_numpy("vectors", vectors))


def _check(n: int, vectors: ArrayLike, support: CSR) -> None:
    if not arrays.is_tensor(vectors):
        arrays.as_numpy("vectors", vectors)
    dtype = str(vectors.dtype).removeprefix("torch.")
    if dtype != "float32" or vectors.ndim != 2 or len(vectors) != n:
        raise KernelInputError(f"vectors must be float32 of shape ({n}, d); got {dtype} {tuple(vectors.shape)}")
    infinite = _rows_not_finite(vectors)
    if len(infinite):
        raise KernelInputError(f"vectors must be finite; row {infinite[0]} is not")
    if support.shape != (n, n):
        raise KernelInputError(f"support must have shape ({n}, {n}); got {support.shape}")
    itself = np.flatnonzero(support.rows() == support.indices)
    if len(itself):
        raise KernelInputError(f"support must not hold the diagonal; item {support.indices[itself[0]]} supports itself")


def _check_strengths(content_weight: float, regularization: float) -> None:
    if not 0 <= content_weight < math.inf:
        raise KernelInputError(f"content_weight must be at least 0; got {content_weight}")
    if not 0 < regularization < math.inf:
        raise KernelInputError(f"regularization must be above 0; got {regularization}")


def _check_solved(weights: NDArray[Any], support: CSR, content_weight: float, regularization: float) -> None:
    unsolved = np.flatnonzero(~np.isfinite(weights))
    if len(unsolved):
        item = int(np.searchsorted(support.indptr, unsolved[0], side="right")) - 1
        raise KernelError(
            f"the system of item {item} cannot be solved in float64: regularization {regularization} is too "
            f"small beside its Gram matrix (content_weight {content_weight}); raise it"
        )


def _rows_not_finite(vectors: ArrayLike) -> NDArray[np.int64]:
    """Return the rows that hold NaN or infinity, found on the device of the vectors."""
    flat = (vectors.detach() if arrays.is_tensor(vectors) else vectors).reshape(-1)
    with np.errstate(over="ignore", invalid="ignore"):
        square = float(flat @ flat)  # one pass without an array; it may overflow, so the rows decide
    if math.isfinite(square):
        return np.empty(0, np.int64)
    if arrays.is_tensor(vectors):
        rows: NDArray[np.int64] = np.flatnonzero(~vectors.isfinite().all(dim=1).cpu().numpy())
        return rows
    return np.flatnonzero(~np.isfinite(vectors).all(axis=1))

"""A graph's edge weights in closed form: each item regressed on its own neighbours."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError
from mllmrec_kernels.ridge import reference
from mllmrec_kernels.ridge.reference import Strengths

if TYPE_CHECKING:
    from torch import Tensor


def ridge_weights(
    user_items: CSR,
    vectors: NDArray[np.float32] | Tensor,
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
        vectors: V, float32, shape (I, d), finite, NumPy or torch.
        support: I x I, the neighbours of each item; only the pattern is read; no diagonal entry.
        content_weight: w >= 0.
        regularisation: lambda > 0.
        backend: "auto", "numba", "torch" (on the device of `vectors`) or "reference".

    Returns:
        The pattern of `support` with float32 weights, in NumPy wherever `vectors` live. Numba makes the same
        bits for any number of threads. A user's score of item j is the sum of row j over the user's items.

    Raises:
        KernelInputError: shapes do not match, an item supports itself, or an argument is out of range.
        KernelError: lambda is so far below G that float64 cannot solve an item's system.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    strengths = ((content_weight, regularisation),)
    return ridge_path(user_items, vectors, support, strengths, backend=backend)[0]


def ridge_path(
    user_items: CSR,
    vectors: NDArray[np.float32] | Tensor,
    support: CSR,
    strengths: Strengths,
    *,
    backend: str = "auto",
) -> tuple[CSR, ...]:
    """ridge_weights for several (w, lambda), in the order given; what does not depend on them is made once.

    Args, result and errors are those of ridge_weights.
    """
    for content_weight, regularisation in strengths:
        _check(user_items, vectors, support, content_weight, regularisation)
    chosen = backends.choose(backend, vectors, cpu=("numba", "torch"), gpu=("torch",))
    solve = _by_torch if chosen == "torch" else _by_numba if chosen == "numba" else _by_reference
    made = solve(user_items, vectors, support, strengths)
    for weights, (content_weight, regularisation) in zip(made, strengths, strict=True):
        unsolved = np.flatnonzero(~np.isfinite(weights))
        if len(unsolved):
            item = int(np.searchsorted(support.indptr, unsolved[0], side="right")) - 1
            raise KernelError(
                f"the system of item {item} cannot be solved in float64: regularisation {regularisation} is too "
                f"small beside its Gram matrix (content_weight {content_weight}); raise it"
            )
    return tuple(CSR(support.indptr, support.indices, weights, support.n_columns) for weights in made)


def _by_reference(
    user_items: CSR, vectors: NDArray[np.float32] | Tensor, support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    return reference.ridge_weights(user_items, _array(vectors), support, strengths)


def _by_numba(
    user_items: CSR, vectors: NDArray[np.float32] | Tensor, support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    from mllmrec_kernels.ridge import cpu

    return cpu.ridge_weights(user_items, _array(vectors), support, strengths)


def _by_torch(
    user_items: CSR, vectors: NDArray[np.float32] | Tensor, support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    import torch

    from mllmrec_kernels.ridge import gpu as torch_solve

    tensor = torch.from_numpy(np.ascontiguousarray(vectors)) if isinstance(vectors, np.ndarray) else vectors.detach()
    return torch_solve.ridge_weights(user_items, tensor, support, strengths)


def _array(vectors: NDArray[np.float32] | Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(vectors if isinstance(vectors, np.ndarray) else vectors.detach().cpu().numpy())


def _check(
    user_items: CSR,
    vectors: NDArray[np.float32] | Tensor,
    support: CSR,
    content_weight: float,
    regularisation: float,
) -> None:
    n = user_items.n_columns
    dtype = str(vectors.dtype).removeprefix("torch.")
    if dtype != "float32" or vectors.ndim != 2 or len(vectors) != n:
        raise KernelInputError(f"vectors must be float32 of shape ({n}, d); got {dtype} {tuple(vectors.shape)}")
    wrong = _not_finite(vectors)
    if len(wrong):
        raise KernelInputError(f"vectors must be finite; row {wrong[0]} is not")
    if support.shape != (n, n):
        raise KernelInputError(f"support must have shape ({n}, {n}); got {support.shape}")
    itself = np.flatnonzero(support.rows() == support.indices)
    if len(itself):
        raise KernelInputError(f"support must not hold the diagonal; item {support.indices[itself[0]]} supports itself")
    if not 0 <= content_weight < math.inf:
        raise KernelInputError(f"content_weight must be at least 0; got {content_weight}")
    if not 0 < regularisation < math.inf:
        raise KernelInputError(f"regularisation must be above 0; got {regularisation}")


def _not_finite(vectors: NDArray[np.float32] | Tensor) -> NDArray[np.int64]:
    """Rows that hold NaN or infinity, looked for where the vectors live."""
    if isinstance(vectors, np.ndarray):
        return np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    return np.flatnonzero(~vectors.isfinite().all(dim=1).cpu().numpy())

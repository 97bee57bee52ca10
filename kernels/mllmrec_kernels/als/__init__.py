"""Half an iteration of alternating least squares: one table of factors, given the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.als import reference
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.arrays import as_numpy, is_tensor, like, tensor_like
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelError, KernelInputError

if TYPE_CHECKING:
    from torch import Tensor

    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike


@overload
def als_factors(
    rows: SparseLike,
    factors: NDArray[Any],
    *,
    unobserved_weight: float,
    regularization: ArrayLike,
    prior: ArrayLike | None = None,
    gram: ArrayLike | None = None,
    backend: str = "auto",
) -> NDArray[np.float32]: ...


@overload
def als_factors(
    rows: SparseLike,
    factors: Tensor,
    *,
    unobserved_weight: float,
    regularization: ArrayLike,
    prior: ArrayLike | None = None,
    gram: ArrayLike | None = None,
    backend: str = "auto",
) -> Tensor: ...


def als_factors(
    rows: SparseLike,
    factors: ArrayLike,
    *,
    unobserved_weight: float,
    regularization: ArrayLike,
    prior: ArrayLike | None = None,
    gram: ArrayLike | None = None,
    backend: str = "auto",
) -> ArrayLike:
    """Solve for the factors of each row, given the other side's (Hu, Koren and Volinsky, ICDM 2008, equation 4).

    With Q the other side's factors, S the entries of row u, a = unobserved_weight, l_u = regularization[u] and m_u =
    prior[u], the factors that p_u is drawn to,

        p_u = (Q_S^T Q_S + a Q^T Q + l_u I)^-1 (Q_S^T 1 + l_u m_u)

    Without a prior m_u is 0, and a row without entries gets zeros.

    Args:
        rows: sparse [R, C]; only the pattern is read.
        factors: Q, float32 [C, r], finite, NumPy or torch.
        unobserved_weight: a >= 0, the weight of every pair.
        regularization: floating [R], above 0.
        prior: m, float32 [R, r], finite.
        gram: Q^T Q, float32 [r, r], if the caller has it; None: it is computed.
        backend: "auto", by where `factors` lie, "numba", "torch" (in batches, on the device of `factors`), or
            "reference".

    Returns:
        float32 [R, r], in the library of `factors`, on its device; of "numba" the same bits for any number of
        threads. Backends differ by the rounding of float32 times the condition of a row's system.

    Raises:
        KernelInputError: types or shapes do not match, or an argument is out of range.
        KernelError: float32 cannot solve a row's system.
        BackendUnavailableError: the named backend cannot run here.
    """
    matrix = as_csr("rows", rows, binary=True)
    chosen = backends.choose(backend, factors, cpu=("numba", "torch"), gpu=("torch",))
    if chosen == "torch":
        return _by_torch(matrix, factors, unobserved_weight, regularization, prior, gram)
    Q, strength = as_numpy("factors", factors), as_numpy("regularization", regularization)
    _check(matrix, Q, unobserved_weight, strength)
    shape = (matrix.n_rows, Q.shape[1])
    mean = np.zeros(shape, np.float32) if prior is None else as_numpy("prior", prior)
    _check_prior(mean, shape)
    products = Q.T @ Q if gram is None else _check_gram(as_numpy("gram", gram), Q.shape[1])
    weighted = (unobserved_weight * products).astype(np.float32)  # [r, r]
    if chosen == "reference":
        solved = reference.als_factors(matrix, Q, weighted, strength, mean)
    else:
        from mllmrec_kernels.als import cpu

        solved = cpu.als_factors(matrix, Q, weighted, strength, mean)
    _check_solved(np.asarray(np.isfinite(solved).all(axis=1)), strength)
    return like(factors, solved)


def _by_torch(
    rows: CSR,
    factors: ArrayLike,
    unobserved_weight: float,
    regularization: ArrayLike,
    prior: ArrayLike | None,
    gram: ArrayLike | None,
) -> ArrayLike:
    """Return what als_factors does, computed on the device of `factors`."""
    import torch

    from mllmrec_kernels.als import gpu

    Q = factors if isinstance(factors, torch.Tensor) else torch.from_numpy(as_numpy("factors", factors))
    strength = as_numpy("regularization", regularization)
    _check(rows, Q, unobserved_weight, strength)
    mean = None
    if prior is not None:
        mean = prior if isinstance(prior, torch.Tensor) else torch.from_numpy(as_numpy("prior", prior))
        mean = mean.to(Q.device)
        _check_prior(mean, (rows.n_rows, Q.shape[1]))
    products = (Q.T @ Q).cpu().numpy() if gram is None else _check_gram(as_numpy("gram", gram), Q.shape[1])
    weighted = (unobserved_weight * products).astype(np.float32)  # [r, r]
    with backends.on(Q.device):
        solved = gpu.als_factors(rows, Q, weighted, strength, mean)
    _check_solved(solved.isfinite().all(dim=1).cpu().numpy(), strength)
    return tensor_like(factors, solved)


def _check_solved(solved: NDArray[np.bool_], strength: NDArray[Any]) -> None:
    """Refuse rows whose systems failed.

    Args:
        solved: bool [R].
        strength: floating [R], their regularization.
    """
    unsolved = np.flatnonzero(~solved)
    if len(unsolved):
        raise KernelError(
            f"the system of row {unsolved[0]} cannot be solved in float32: its regularization "
            f"{strength[unsolved[0]]:g} is too small beside the factors; raise it"
        )


def _check(rows: CSR, factors: ArrayLike, unobserved_weight: float, regularization: NDArray[Any]) -> None:
    if _dtype(factors) != "float32" or factors.ndim != 2 or len(factors) != rows.n_columns:
        raise KernelInputError(
            f"factors must be float32 of shape ({rows.n_columns}, r); got {_dtype(factors)} {tuple(factors.shape)}"
        )
    if not _is_finite(factors):
        raise KernelInputError("factors must be finite")
    if not 0 <= unobserved_weight < np.inf:
        raise KernelInputError(f"unobserved_weight must be at least 0; got {unobserved_weight}")
    if regularization.shape != (rows.n_rows,):
        raise KernelInputError(f"regularization must have shape ({rows.n_rows},); got {regularization.shape}")
    if not (regularization > 0).all():
        raise KernelInputError(f"regularization must be above 0; the lowest is {regularization.min()}")


def _check_gram(gram: NDArray[Any], rank: int) -> NDArray[Any]:
    if gram.dtype != np.float32 or gram.shape != (rank, rank) or not np.isfinite(gram).all():
        raise KernelInputError(f"gram must be finite float32 of shape ({rank}, {rank}); got {gram.dtype} {gram.shape}")
    return gram


def _check_prior(prior: ArrayLike, shape: tuple[int, int]) -> None:
    if _dtype(prior) != "float32" or tuple(prior.shape) != shape:
        raise KernelInputError(f"prior must be float32 of shape {shape}; got {_dtype(prior)} {tuple(prior.shape)}")
    if not _is_finite(prior):
        raise KernelInputError("prior must be finite")


def _dtype(array: ArrayLike) -> str:
    return str(array.dtype).removeprefix("torch.")


def _is_finite(array: ArrayLike) -> bool:
    return bool(array.isfinite().all() if is_tensor(array) else np.isfinite(array).all())

"""Half a sweep of alternating least squares: one table of factors, given the other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.als import reference
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError


def als_factors(
    rows: CSR,
    factors: NDArray[np.float32],
    *,
    unobserved: float,
    shrinkage: NDArray[np.float64],
    prior: NDArray[np.float32] | None = None,
    backend: str = "auto",
) -> NDArray[np.float32]:
    """The best factors of each row for the other side's (Hu, Koren and Volinsky, ICDM 2008, equation 4).

    With Q the other side's factors, S the entries of row u, a = unobserved and m_u = prior_u, to which the factors
    shrink, p_u = (Q_S^T Q_S + a Q^T Q + shrinkage_u I)^-1 (Q_S^T 1 + shrinkage_u m_u). Without a prior m_u is 0,
    and a row without entries gets zeros.

    Args:
        rows: R x C; only the pattern is read.
        factors: Q, float32 [C, r], finite.
        unobserved: a >= 0, what any pair weighs.
        shrinkage: [R], above 0.
        prior: m, float32 [R, r], finite.
        backend: "auto", "numba" or "reference".

    Returns:
        float32 [R, r]; the same bits for any number of threads.

    Raises:
        KernelInputError: shapes do not match, or an argument is out of range.
        KernelError: float32 cannot solve a row's system.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    _check(rows, factors, unobserved, shrinkage)
    if prior is None:
        prior = np.zeros((rows.n_rows, factors.shape[1]), np.float32)
    _check_prior(prior, rows.n_rows, factors.shape[1])
    everything = (unobserved * (factors.T @ factors)).astype(np.float32)  # [r, r]
    if backends.choose(backend, factors, cpu=("numba",), gpu=()) == "reference":
        solved = reference.als_factors(rows, factors, everything, shrinkage, prior)
    else:
        from mllmrec_kernels.als import cpu

        solved = cpu.als_factors(rows, factors, everything, shrinkage, prior)
    wrong = np.flatnonzero(~np.isfinite(solved).all(axis=1))
    if len(wrong):
        raise KernelError(
            f"the system of row {wrong[0]} cannot be solved in float32: its shrinkage {shrinkage[wrong[0]]:g} is too "
            "small beside the factors; raise it"
        )
    return solved


def _check(rows: CSR, factors: NDArray[np.float32], unobserved: float, shrinkage: NDArray[np.float64]) -> None:
    if factors.dtype != np.float32 or factors.ndim != 2 or len(factors) != rows.n_columns:
        raise KernelInputError(
            f"factors must be float32 of shape ({rows.n_columns}, r); got {factors.dtype} {factors.shape}"
        )
    if not np.isfinite(factors).all():
        raise KernelInputError("factors must be finite")
    if not 0 <= unobserved < np.inf:
        raise KernelInputError(f"unobserved must be at least 0; got {unobserved}")
    if shrinkage.shape != (rows.n_rows,) or not (shrinkage > 0).all():
        raise KernelInputError(f"shrinkage must be {rows.n_rows} numbers above 0; got {shrinkage.shape}")


def _check_prior(prior: NDArray[np.float32], n_rows: int, rank: int) -> None:
    if prior.dtype != np.float32 or prior.shape != (n_rows, rank):
        raise KernelInputError(f"prior must be float32 of shape ({n_rows}, {rank}); got {prior.dtype} {prior.shape}")
    if not np.isfinite(prior).all():
        raise KernelInputError("prior must be finite")

"""als_factors in Numba: each row's r x r system is built, factorized and solved while it is in cache.

    system     upper triangle of a Q^T Q, n r² / 2 multiply-adds for the row's n entries
    Cholesky   U^T U, r³ / 6, row by row: each row of U is one sum of the rows above it, so the inner loop runs along
               memory and serves four of them at a time
    solve      two triangles, r² each

A batched Cholesky of LAPACK, which torch and NumPy call, factorizes small matrices one after another on one core:
64 x 64 took 21 us each by torch, 9 us here on two cores. All is float32; a system's condition is at most
1 + trace / regularization. Bytes per thread: 4 r². Bound by the factorisation if rows are short.
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR

# Sums may be reordered to fill vector registers; the order is fixed when the code is compiled.
_FAST = {"contract", "reassoc"}


@njit(cache=True, nogil=True, fastmath=_FAST)
def _add_products(Q: Float32Array, columns: Int32Array, U: Float32Array, right: Float32Array) -> None:
    """Add q q^T to the upper triangle and q to the right side, for each q of a row."""
    rank, whole = Q.shape[1], len(columns) - len(columns) % 4
    for n in range(0, whole, 4):
        q0, q1, q2, q3 = Q[columns[n]], Q[columns[n + 1]], Q[columns[n + 2]], Q[columns[n + 3]]
        for a in range(rank):
            f0, f1, f2, f3 = q0[a], q1[a], q2[a], q3[a]
            right[a] += f0 + f1 + f2 + f3
            for b in range(a, rank):
                U[a, b] += f0 * q0[b] + f1 * q1[b] + f2 * q2[b] + f3 * q3[b]
    for n in range(whole, len(columns)):
        q = Q[columns[n]]
        for a in range(rank):
            right[a] += q[a]
            for b in range(a, rank):
                U[a, b] += q[a] * q[b]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _factorize(U: Float32Array) -> None:
    """U^T U = A, which stands in the upper triangle of U and is overwritten; NaN or infinity if it fails."""
    rank = len(U)
    for a in range(rank):
        whole = a - a % 4
        for c in range(0, whole, 4):
            f0, f1, f2, f3 = U[c, a], U[c + 1, a], U[c + 2, a], U[c + 3, a]
            for b in range(a, rank):
                U[a, b] -= f0 * U[c, b] + f1 * U[c + 1, b] + f2 * U[c + 2, b] + f3 * U[c + 3, b]
        for c in range(whole, a):
            for b in range(a, rank):
                U[a, b] -= U[c, a] * U[c, b]
        scale = np.float32(1) / np.sqrt(U[a, a])
        for b in range(a, rank):
            U[a, b] *= scale


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _substitute(U: Float32Array, x: Float32Array) -> None:
    """U^T U x = the right side, which x holds before."""
    rank = len(U)
    for a in range(rank):
        x[a] /= U[a, a]
        for b in range(a + 1, rank):
            x[b] -= U[a, b] * x[a]
    for a in range(rank - 1, -1, -1):
        total = x[a]
        for b in range(a + 1, rank):
            total -= U[a, b] * x[b]
        x[a] = total / U[a, a]


@njit(cache=True, nogil=True, parallel=True)
def _all_rows(
    indptr: Int64Array, indices: Int32Array, Q: Float32Array, gram: Float32Array, regularization: Float32Array,
    threads: int, solved: Float32Array,
) -> None:  # fmt: skip
    for thread in prange(threads):
        U = np.empty_like(gram)
        for u in range(thread, len(solved), threads):
            columns, x = indices[indptr[u] : indptr[u + 1]], solved[u]
            if len(columns) == 0 and not x.any():
                continue
            x *= regularization[u]
            U[:] = gram
            for a in range(len(U)):
                U[a, a] += regularization[u]
            _add_products(Q, columns, U, x)
            _factorize(U)
            _substitute(U, x)


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
    solved = np.array(prior, order="C")
    _all_rows(
        rows.indptr, rows.indices, np.ascontiguousarray(factors), gram, regularization.astype(np.float32),
        get_num_threads(), solved,
    )  # fmt: skip
    return solved

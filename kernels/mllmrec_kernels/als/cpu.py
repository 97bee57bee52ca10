"""als_factors on the CPU: each row's system in the eigenvectors of a Q^T Q, and of the smaller of its two sizes.

With a Q^T Q = V diag(s) V^T, all vectors times V, and D = diag(1 / (s + l)), the matrix of a row without its n entries
is diagonal, whatever l is. A row of fewer entries than factors then costs one n x n system (Woodbury):

    K = I + Q_S D Q_S^T,   K y = 1 - l Q_S D m,   p = D (l m + Q_S^T y)

A longer row is one r x r system, diag(s + l) + Q_S^T Q_S, whose products BLAS makes. Multiply-adds of a row: n² r / 2 +
n³ / 6, or r³ / 6 + n r²; and 2 r² for the two rotations, by BLAS. With 64 factors and a dozen entries that is a tenth
of the r x r system. K has no eigenvalue below 1, so the short rows are the better conditioned ones.

All is float32; a system's condition is at most 1 + trace / regularization. Each row belongs to one thread, and BLAS
runs on one thread in each: the number of threads changes no bit. Bytes: both tables once more; of a thread 12 r² and
some MiB.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.parallel import ROW_TILE, chunks, parallel_for, single_threaded_blas

# Sums may be reordered to fill vector registers; the order is fixed when the code is compiled.
_FAST = {"contract", "reassoc"}
_ROWS = 1 << 8  # of one piece of work; popular rows lie together, so pieces are short
_ROTATED = 20 * ROW_TILE  # rows
_GATHERED = 1 << 10  # entries of a long row that are multiplied at once


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
    with single_threaded_blas():
        spectrum, V = np.linalg.eigh(gram.astype(np.float64))
    spectrum, V = np.maximum(spectrum, 0).astype(np.float32), np.ascontiguousarray(V, np.float32)
    Q, shrink = _rotate(factors, V), regularization.astype(np.float32)
    solved = _rotate(prior, V) if prior.any() else np.zeros(prior.shape, np.float32)
    parallel_for(
        lambda start, stop: _solve_rows(rows.indptr, rows.indices, Q, spectrum, shrink, start, stop, solved),
        chunks(len(solved), _ROWS),
    )
    return _rotate(solved, np.ascontiguousarray(V.T))


def _rotate(table: NDArray[np.float32], axes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return table @ axes, float32 [n, r], in blocks that no number of threads changes."""
    rotated = np.empty(table.shape, np.float32)

    def _work(start: int, stop: int) -> None:
        np.matmul(table[start:stop], axes, out=rotated[start:stop])

    parallel_for(_work, chunks(len(table), _ROTATED))
    return rotated


@njit(cache=True, nogil=True)
def _solve_rows(
    indptr: Int64Array, indices: Int32Array, Q: Float32Array, spectrum: Float32Array, shrink: Float32Array,
    start: int, stop: int, solved: Float32Array,
) -> None:  # fmt: skip
    """Solve rows start..stop-1; `solved` holds what they shrink to."""
    rank = len(spectrum)
    near, scaled = np.empty((rank, rank), np.float32), np.empty((rank, rank), np.float32)
    K, y, diagonal = np.empty((rank, rank), np.float32), np.empty(rank, np.float32), np.empty(rank, np.float32)
    for u in range(start, stop):
        columns, x = indices[indptr[u] : indptr[u + 1]], solved[u]
        if len(columns) == 0 and not x.any():
            continue
        if len(columns) < rank:
            for a in range(rank):
                diagonal[a] = np.float32(1) / (spectrum[a] + shrink[u])
            _solve_short(Q, columns, diagonal, shrink[u], near, scaled, K, y, x)
        else:
            _solve_long(Q, columns, spectrum, shrink[u], K, x)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _solve_short(
    Q: Float32Array, columns: Int32Array, diagonal: Float32Array, shrink: np.float32, near: Float32Array,
    scaled: Float32Array, K: Float32Array, y: Float32Array, x: Float32Array,
) -> None:  # fmt: skip
    """Replace x, what a row shrinks to, by its factors; through the system of its entries."""
    n, rank = len(columns), len(x)
    for a in range(rank):
        x[a] *= shrink * diagonal[a]
    for i in range(n):
        before = np.float32(0)
        for a in range(rank):
            value = Q[columns[i], a]
            near[i, a], scaled[i, a] = value, value * diagonal[a]
            before += value * x[a]
        y[i] = np.float32(1) - before
    for i in range(n):
        for j in range(i + 1):
            total = np.float32(0)
            for a in range(rank):
                total += scaled[i, a] * near[j, a]
            K[i, j] = total
        K[i, i] += np.float32(1)
    _factorize(K, n)
    _substitute(K, n, y)
    for i in range(n):
        for a in range(rank):
            x[a] += y[i] * scaled[i, a]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _solve_long(
    Q: Float32Array, columns: Int32Array, spectrum: Float32Array, shrink: np.float32, K: Float32Array, x: Float32Array
) -> None:
    """Replace x, what a row shrinks to, by its factors; through the system of its factors."""
    rank = len(x)
    for a in range(rank):
        x[a] *= shrink
        for b in range(rank):
            K[a, b] = np.float32(0)
        K[a, a] = spectrum[a] + shrink
    for first in range(0, len(columns), _GATHERED):
        near = Q[columns[first : first + _GATHERED]]
        K += np.dot(near.T, near)
        for i in range(len(near)):
            for a in range(rank):
                x[a] += near[i, a]
    _factorize(K, rank)
    _substitute(K, rank, x)


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _factorize(L: Float32Array, n: int) -> None:
    """L L^T = A, whose lower triangle stands in L[:n, :n] and is overwritten; NaN or infinity where it fails."""
    for a in range(n):
        for b in range(a + 1):
            total = L[a, b]
            for c in range(b):
                total -= L[a, c] * L[b, c]
            L[a, b] = np.sqrt(total) if a == b else total / L[b, b]


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _substitute(L: Float32Array, n: int, x: Float32Array) -> None:
    """L L^T x = the right side, which x holds before."""
    for a in range(n):
        total = x[a]
        for b in range(a):
            total -= L[a, b] * x[b]
        x[a] = total / L[a, a]
    for a in range(n - 1, -1, -1):
        value = x[a] / L[a, a]
        x[a] = value
        for b in range(a):
            x[b] -= L[a, b] * value

"""Leading right singular vectors of a large sparse matrix: block Lanczos with restarts, on all threads.

With S [U, I] and A = S^T S, a basis Q grows by blocks: A times its last block, less what Q has of it already. The
eigenvectors of Q^T A Q are the best that Q holds (Rayleigh and Ritz). A full basis is replaced by its leading vectors
and the block that was to come (thick restart; Wu and Simon, SIAM J. Matrix Anal. 2000), so the search goes on.

The sum of the leading eigenvalues, the share of A that a filter of these vectors keeps, only grows. The search ends
where it grows no more. The last vector alone may take ten times as long: its eigenvalue is close to the following ones,
and then each vector of this small space filters equally well.

ARPACK adds one vector at a time: it reads S twice and Q four times for each. A block shares these readings. Products
are cut into pieces of one size, whoever works on them: the number of threads changes no bit.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.propagate.narrow import multiply_narrow
from numpy.typing import NDArray

_BLOCK = 16  # vectors that are added at once
_BASIS = 6  # blocks of a full basis beside twice the wanted vectors
_GAIN = 1e-5  # of the sum of the wanted eigenvalues: a restart that adds less is the last
_RESTARTS = 200  # at most
_COLUMNS, _VECTORS = 1 << 13, 32  # of one piece of a product
_AGAIN = 0.5**0.5  # of a vector's length: with less left of it, a second projection (Daniel et al., Math. Comp. 1976)
_LOST = 1e-10  # of the longest vector: shorter ones are rounding once Q is taken from them
Table = NDArray[np.float64]


def leading_vectors(S: sp.csr_array, count: int) -> tuple[Table, Table]:
    """Return the leading eigenvectors of S^T S, float64 [count, I], and their eigenvalues [count], falling.

    Args:
        S: float64 [U, I], of many more columns than `count`.
        count: number of vectors.
    """
    turned, n = S.T.tocsr(), S.shape[1]
    most = 2 * count + _BASIS * _BLOCK
    generator = np.random.default_rng(0)
    Q, H, size, longest = np.empty((most + _BLOCK, n)), np.zeros((most, most)), 0, 0.0
    share = 0.0
    _append(Q, size, generator.standard_normal((_BLOCK, n)), longest, generator)
    for _ in range(_RESTARTS):
        while size + _BLOCK <= most:
            last = slice(size, size + _BLOCK)
            product = np.ascontiguousarray(_times(turned, _times(S, Q[last].T)).T)
            size, longest = size + _BLOCK, max(longest, float(np.linalg.norm(product, axis=1).max()))
            known = _append(Q, size, product, longest, generator)
            H[:size, last], H[last, :size] = known, known.T
        values, vectors = np.linalg.eigh(H[:size, :size])
        values, vectors = values[::-1], vectors[:, ::-1]
        kept = count + _BLOCK
        following = Q[size : size + _BLOCK].copy()
        _replace(Q, size, np.ascontiguousarray(vectors[:, :kept].T))
        if values[:count].sum() - share <= _GAIN * share:
            break
        share = values[:count].sum()
        H[:] = 0
        H[np.arange(kept), np.arange(kept)] = values[:kept]
        Q[kept : kept + _BLOCK], size = following, kept
    return Q[:count].copy(), values[:count]


def _times(matrix: sp.csr_array, table: Table) -> Table:
    """Return a sparse matrix [R, C] times a table [C, b]."""
    return multiply_narrow(matrix.indptr, matrix.indices, matrix.data, table)


def _append(Q: Table, size: int, block: Table, longest: float, generator: np.random.Generator) -> Table:
    """Write an orthonormal basis of a block beside Q to the rows after the first `size`.

    Args:
        Q: [., I], the first `size` rows orthonormal.
        size: rows of Q.
        block: [b, I], changed.
        longest: of all rows of blocks, before Q is taken from them.
        generator: of vectors in the place of those that Q holds already.

    Returns:
        The block's products with Q, [size, b].
    """
    lengths = np.linalg.norm(block, axis=1)
    known = _project(Q, size, block)
    if (np.linalg.norm(block, axis=1) < _AGAIN * lengths).any():
        known += _project(Q, size, block)
    basis, triangle = np.linalg.qr(block.T)
    lost = np.abs(np.diagonal(triangle)) <= _LOST * longest
    if lost.any():
        rows = np.ascontiguousarray(basis.T)
        rows[lost] = generator.standard_normal((int(lost.sum()), block.shape[1]))
        for _ in range(2):
            _project(Q, size, rows)
        basis, _ = np.linalg.qr(rows.T)
    Q[size : size + len(block)] = basis.T
    return known


def _project(Q: Table, size: int, block: Table) -> Table:
    """Take from each row of the block [b, I] what the first `size` rows of Q have of it; return how much, [size, b]."""
    known = np.empty((size, len(block)))

    def _multiply(start: int, stop: int) -> None:
        known[start:stop] = Q[start:stop] @ block.T

    def _subtract(start: int, stop: int) -> None:
        block[:, start:stop] -= known.T @ Q[:size, start:stop]

    parallel_for(_multiply, chunks(size, _VECTORS))
    parallel_for(_subtract, chunks(block.shape[1], _COLUMNS))
    return known


def _replace(Q: Table, size: int, mixture: Table) -> None:
    """Replace the first rows of Q by a mixture [m, size] of its first `size`, a piece of the columns at a time."""

    def _work(start: int, stop: int) -> None:
        Q[: len(mixture), start:stop] = mixture @ Q[:size, start:stop]

    parallel_for(_work, chunks(Q.shape[1], _COLUMNS))

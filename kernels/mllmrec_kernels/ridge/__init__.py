"""A graph's edge weights in closed form: each item regressed on its own neighbors."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    systems = RidgeSystems(user_items, (vectors,), support, by_item=by_item, backend=backend)
    S = systems.support
    return tuple(CSR(S.indptr, S.indices, row, S.n_columns) for row in systems.solve(strengths)[0])


class RidgeSystems:
    """The regressions of all items on their neighbors, checked once and solved some items at a time.

    Args:
        user_items: as in `ridge_weights`.
        tables: V of each, float32 [I, d] as in `ridge_weights`, all in NumPy or all on one device. Shared users are
            counted once for all of them.
        support: as in `ridge_weights`.
        by_item: `user_items` is given transposed, [I, U].
        backend: as in `ridge_weights`.
        single: by Numba, multiply unit vectors in float32. Weights are then off by some 1e-6 of the largest.

    Raises:
        KernelInputError: types or shapes do not match, or an item supports itself.
        BackendUnavailableError: the named backend cannot run here.
    """

    def __init__(
        self,
        user_items: SparseLike,
        tables: Sequence[ArrayLike],
        support: SparseLike,
        *,
        by_item: bool = False,
        backend: str = "auto",
        single: bool = False,
    ) -> None:
        matrix, self.support = as_csr("user_items", user_items, binary=True), as_csr("support", support, binary=True)
        for vectors in tables:
            _check_vectors(matrix.n_rows if by_item else matrix.n_columns, vectors)
        _check_support(matrix.n_rows if by_item else matrix.n_columns, self.support)
        self._single = single
        self._backend = backends.choose(backend, tables[0], cpu=("numba", "torch"), gpu=("torch",))
        self._matrix = matrix if by_item == (self._backend == "numba") else matrix.transpose()
        self._pairs: Any = None  # on the device of the tables, once they were needed
        self._tables: list[Any] = [_as_tensor(V) if self._backend == "torch" else _contiguous(V) for V in tables]

    def solve(self, strengths: Strengths, start: int = 0, stop: int | None = None) -> NDArray[np.float32]:
        """Return the weights of the items from start to stop, in the order of their entries of `support`.

        Args:
            strengths: pairs (content_weight, regularization).
            start: the first item.
            stop: the item after the last; None: I.

        Returns:
            float32 [tables, strengths, entries].

        Raises:
            KernelInputError: a strength is out of range.
            KernelError: lambda is so far below G that float64 cannot solve an item's system.
        """
        for content_weight, regularization in strengths:
            _check_strengths(content_weight, regularization)
        span = start, self.support.n_rows if stop is None else stop
        weights = self._solve(strengths, *span)
        for of_table in weights:
            for row, (content_weight, regularization) in zip(of_table, strengths, strict=True):
                _check_solved(row, self.support, span[0], content_weight, regularization)
        return weights

    def _solve(self, strengths: Strengths, start: int, stop: int) -> NDArray[np.float32]:
        if self._backend == "numba":
            from mllmrec_kernels.ridge import cpu

            return cpu.ridge_weights(
                self._matrix, self._tables, self.support, strengths, start, stop, single=self._single
            )
        rows = _only_rows(self.support, start, stop)
        if self._backend == "torch":
            from mllmrec_kernels.ridge import gpu

            if self._pairs is None:
                self._pairs = gpu.list_pairs(self._matrix, self._tables[0].device)
            return gpu.ridge_weights(self._matrix, self._pairs, self._tables, rows, strengths)
        return np.stack([reference.ridge_weights(self._matrix, V, rows, strengths) for V in self._tables])


def _only_rows(matrix: CSR, start: int, stop: int) -> CSR:
    """Return a matrix of the same shape with only the rows from start to stop."""
    first, last = int(matrix.indptr[start]), int(matrix.indptr[stop])
    return CSR(np.clip(matrix.indptr, first, last) - first, matrix.indices[first:last], None, matrix.n_columns)


def _as_tensor(vectors: ArrayLike) -> Any:
    import torch

    return vectors.detach() if arrays.is_tensor(vectors) else torch.from_numpy(_contiguous(vectors))


def _contiguous(vectors: ArrayLike) -> NDArray[np.float32]:
    return np.ascontiguousarray(arrays.as_numpy("vectors", vectors))


def _check_vectors(n: int, vectors: ArrayLike) -> None:
    if not arrays.is_tensor(vectors):
        arrays.as_numpy("vectors", vectors)
    dtype = str(vectors.dtype).removeprefix("torch.")
    if dtype != "float32" or vectors.ndim != 2 or len(vectors) != n:
        raise KernelInputError(f"vectors must be float32 of shape ({n}, d); got {dtype} {tuple(vectors.shape)}")
    infinite = _rows_not_finite(vectors)
    if len(infinite):
        raise KernelInputError(f"vectors must be finite; row {infinite[0]} is not")


def _check_support(n: int, support: CSR) -> None:
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


def _check_solved(
    weights: NDArray[Any], support: CSR, start: int, content_weight: float, regularization: float
) -> None:
    """Refuse weights that are not finite, of the items from `start` on."""
    unsolved = np.flatnonzero(~np.isfinite(weights))
    if len(unsolved):
        item = int(np.searchsorted(support.indptr, support.indptr[start] + unsolved[0], side="right")) - 1
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

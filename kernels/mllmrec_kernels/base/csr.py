"""Compressed sparse rows, the one sparse container of every verb."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mllmrec_kernels.base.errors import KernelInputError


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CSR:
    """A sparse matrix of R rows: row r holds `indices[indptr[r]:indptr[r + 1]]`, ascending, unique.

    Compared and hashed by identity, so that what a kernel derives from a matrix (its transpose, its copy
    on a device) can be kept beside it for as long as it lives; the arrays must not be written to.

    Attributes:
        indptr: int64, shape (R + 1,).
        indices: int32, shape (nnz,), column ids in [0, n_columns).
        data: float32, shape (nnz,), or None where every stored entry is one.
        n_columns: number of columns.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32] | None
    n_columns: int

    def __post_init__(self) -> None:
        self._check_dtypes()
        indptr, indices = self.indptr, self.indices
        if indptr.ndim != 1 or len(indptr) == 0 or indptr[0] != 0 or indptr[-1] != len(indices):
            raise KernelInputError(f"CSR indptr must run from 0 to nnz={len(indices)}; got shape {indptr.shape}")
        if (indptr[1:] < indptr[:-1]).any():
            raise KernelInputError("CSR indptr must not fall")
        if len(indices) and not (int(indices.min()) >= 0 and int(indices.max()) < self.n_columns):
            raise KernelInputError(
                f"CSR indices must lie in [0, {self.n_columns}); got [{indices.min()}, {indices.max()}]"
            )
        if self.data is not None and self.data.shape != indices.shape:
            raise KernelInputError(f"CSR data has shape {self.data.shape}, indices {indices.shape}")
        self._check_order()

    def _check_dtypes(self) -> None:
        for name, wanted in (("indptr", np.int64), ("indices", np.int32), ("data", np.float32)):
            array = getattr(self, name)
            if array is not None and array.dtype != wanted:
                raise KernelInputError(f"CSR {name} must be {np.dtype(wanted)}; got {array.dtype}")

    def _check_order(self) -> None:
        """Within a row ids must rise; only the first entry of a row may be lower than the one before."""
        falls = np.flatnonzero(self.indices[1:] <= self.indices[:-1]) + 1
        starts = self.indptr[np.searchsorted(self.indptr, falls)]
        if (starts != falls).any():
            entry = int(falls[starts != falls][0])
            row = int(np.searchsorted(self.indptr, entry, side="right")) - 1
            raise KernelInputError(
                f"CSR row {row} must hold ascending, unique ids; got {self.indices[entry - 1]} "
                f"before {self.indices[entry]}; CSR.from_scipy sorts and merges"
            )

    @property
    def n_rows(self) -> int:
        """Number of rows R."""
        return len(self.indptr) - 1

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int]:
        """(R, n_columns)."""
        return self.n_rows, self.n_columns

    def row(self, r: int) -> NDArray[np.int32]:
        """Column ids of row `r`, a view."""
        return self.indices[self.indptr[r] : self.indptr[r + 1]]

    def values(self) -> NDArray[np.float32]:
        """The stored entries, float32, shape (nnz,); ones are written out where `data` is None."""
        return np.ones(self.nnz, dtype=np.float32) if self.data is None else self.data

    def rows(self) -> NDArray[np.int64]:
        """The row of each stored entry, int64, shape (nnz,)."""
        return np.repeat(np.arange(self.n_rows, dtype=np.int64), np.diff(self.indptr))

    def take_rows(self, rows: NDArray[np.integer[Any]]) -> CSR:
        """The matrix of the named rows, in that order."""
        return CSR.from_scipy(self.to_scipy()[rows], binary=self.data is None)

    def transpose(self) -> CSR:
        """The transposed matrix, rows ascending; O(nnz)."""
        return CSR.from_scipy(self.to_scipy().T, binary=self.data is None)

    def to_scipy(self) -> sp.csr_array:
        """A scipy csr_array over the same buffers."""
        return sp.csr_array((self.values(), self.indices, self.indptr), shape=self.shape)

    @staticmethod
    def from_scipy(matrix: Any, *, binary: bool = False) -> CSR:
        """Take any scipy sparse matrix; duplicates are summed, rows sorted.

        Args:
            matrix: scipy sparse matrix or array of any format.
            binary: keep the pattern alone (`data=None`).
        """
        csr = sp.csr_array(matrix)
        if not csr.has_canonical_format:
            csr = csr.copy()  # sum_duplicates works in place, and the buffers are the caller's
            csr.sum_duplicates()
        data = None if binary else np.ascontiguousarray(csr.data, dtype=np.float32)
        return CSR(csr.indptr.astype(np.int64), csr.indices.astype(np.int32), data, int(csr.shape[1]))

    @staticmethod
    def from_pairs(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], shape: tuple[int, int]) -> CSR:
        """The binary matrix with ones at (rows[n], columns[n]); repeated pairs count once."""
        for name, ids, size in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
            if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < size):
                raise KernelInputError(f"{name} must lie in [0, {size}); got [{ids.min()}, {ids.max()}]")
        keys = np.unique(rows.astype(np.int64) * shape[1] + columns)
        indptr = np.searchsorted(keys, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
        indices = (keys % max(shape[1], 1)).astype(np.int32)
        return CSR(cast("NDArray[np.int64]", indptr.astype(np.int64)), indices, None, shape[1])

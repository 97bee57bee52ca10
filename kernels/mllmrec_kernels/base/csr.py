"""Compressed sparse rows, the sparse container inside the kernels, and the conversion of what callers pass."""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mllmrec_kernels.base.errors import KernelInputError

if TYPE_CHECKING:
    from torch import Tensor

    SparseLike: TypeAlias = "CSR | sp.sparray | sp.spmatrix | Tensor"  # and a cupyx sparse matrix

_ACCEPTED = "a scipy sparse matrix, a sparse torch tensor, a cupyx CSR matrix or a mllmrec_kernels CSR"


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class CSR:
    """A sparse matrix of R rows: row r holds `indices[indptr[r]:indptr[r + 1]]`, ascending, unique.

    Compared and hashed by identity. So what a kernel derives from a matrix (its transpose, its copy on a device) can be
    kept for as long as the matrix lives. The arrays must not be written to.

    Attributes:
        indptr: int64, shape (R + 1,).
        indices: int32, shape (nnz,), column ids in [0, n_columns).
        data: float32, shape (nnz,), or None if every stored entry is one.
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
        for name, dtype in (("indptr", np.int64), ("indices", np.int32), ("data", np.float32)):
            array = getattr(self, name)
            if array is not None and array.dtype != dtype:
                raise KernelInputError(f"CSR {name} must be {np.dtype(dtype)}; got {array.dtype}")

    def _check_order(self) -> None:
        """Refuse ids that do not rise within a row; only a row's first may be lower than the one before it."""
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
        """Return the column ids of row `r`, a view."""
        return self.indices[self.indptr[r] : self.indptr[r + 1]]

    def values(self) -> NDArray[np.float32]:
        """Return the stored entries, float32 [nnz]; ones are written out if `data` is None."""
        return np.ones(self.nnz, dtype=np.float32) if self.data is None else self.data

    def rows(self) -> NDArray[np.int64]:
        """Return the row of each stored entry, int64 [nnz]."""
        return np.repeat(np.arange(self.n_rows, dtype=np.int64), np.diff(self.indptr))

    def take_rows(self, rows: NDArray[np.integer[Any]]) -> CSR:
        """Return the matrix of the named rows, in that order."""
        return CSR.from_scipy(self.to_scipy()[rows], binary=self.data is None)

    def transpose(self) -> CSR:
        """Return the transposed matrix, rows ascending; O(nnz)."""
        return CSR.from_scipy(self.to_scipy().T, binary=self.data is None)

    def to_scipy(self) -> sp.csr_array:
        """Return a scipy csr_array over the same indices and values; scipy wants indptr in the dtype of indices."""
        indptr = self.indptr.astype(np.int32) if self.nnz < 2**31 else self.indptr
        return sp.csr_array((self.values(), self.indices, indptr), shape=self.shape)

    @staticmethod
    def from_scipy(matrix: SparseLike, *, binary: bool = False) -> CSR:
        """Convert a sparse matrix as `as_csr` does; duplicates are summed, rows sorted.

        Args:
            matrix: sparse matrix of any format and library that `as_csr` takes.
            binary: keep only the pattern (`data=None`).
        """
        return as_csr("matrix", matrix, binary=binary)

    @staticmethod
    def from_pairs(rows: NDArray[np.integer[Any]], columns: NDArray[np.integer[Any]], shape: tuple[int, int]) -> CSR:
        """Return the binary matrix with ones at (rows[n], columns[n]); repeated pairs count once.

        Args:
            rows: integer [n], in [0, shape[0]).
            columns: integer [n], in [0, shape[1]).
            shape: (rows, columns) of the matrix.
        """
        for name, ids, size in (("rows", rows, shape[0]), ("columns", columns, shape[1])):
            if len(ids) and not (int(ids.min()) >= 0 and int(ids.max()) < size):
                raise KernelInputError(f"{name} must lie in [0, {size}); got [{ids.min()}, {ids.max()}]")
        keys = _sorted_unique(rows.astype(np.int64) * shape[1] + columns)
        indptr = np.searchsorted(keys, np.arange(shape[0] + 1, dtype=np.int64) * shape[1])
        indices = (keys % max(shape[1], 1)).astype(np.int32)
        return CSR(np.asarray(indptr, dtype=np.int64), indices, None, shape[1])


def _sorted_unique(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the keys ascending, each once; np.unique builds a hash table, which takes ten times as long."""
    if (keys[1:] > keys[:-1]).all():
        return keys
    keys = np.sort(keys)
    unique: NDArray[np.int64] = keys[np.concatenate([[True], keys[1:] != keys[:-1]])]
    return unique


def as_csr(name: str, matrix: SparseLike, *, shape: tuple[int, int] | None = None, binary: bool = False) -> CSR:
    """Convert what a caller passes as a sparse matrix.

    Arrays whose dtype and order fit are shared, not copied: int64 indptr, int32 indices, float32 data. Duplicates
    are summed and rows sorted in a copy; the caller's matrix stays as it is. Explicit zeros stay stored.

    Args:
        name: the argument's name, for errors.
        matrix: a CSR, a scipy sparse matrix or array of any format, a sparse torch tensor (CSR, CSC or COO, on any
            device), or a cupyx sparse matrix.
        shape: the shape it must have; None for any.
        binary: drop the values, if only the pattern is read.

    Raises:
        KernelInputError: anything else, another shape, values that are not real, or ids beyond int32.
    """
    csr = matrix if isinstance(matrix, CSR) else _converted(name, matrix, binary=binary)
    if shape is not None and csr.shape != shape:
        raise KernelInputError(f"{name} must have shape {shape}; got {csr.shape}")
    return csr


def is_canonical_csr(matrix: SparseLike) -> bool:
    """Tell if `as_csr` keeps the order of the stored entries: compressed rows, ids ascending and unique."""
    if isinstance(matrix, CSR):
        return True
    source = _as_scipy("matrix", matrix)
    return source.format == "csr" and bool(source.has_canonical_format)


def _converted(name: str, matrix: Any, *, binary: bool) -> CSR:
    source = _as_scipy(name, matrix)
    if len(source.shape) != 2:
        raise KernelInputError(f"{name} must have two dimensions; got shape {source.shape}")
    if source.shape[1] > 2**31 - 1:
        raise KernelInputError(f"{name} has {source.shape[1]} columns; ids are int32, so at most {2**31 - 1}")
    if not binary and source.dtype.kind not in "buif":
        raise KernelInputError(f"{name} must hold real numbers; got {source.dtype}")
    rows = source.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()  # sum_duplicates works in place, and the buffers are the caller's
        rows.sum_duplicates()
    with np.errstate(over="ignore"):
        data = None if binary else np.ascontiguousarray(rows.data, dtype=np.float32)
    indptr = np.ascontiguousarray(rows.indptr, dtype=np.int64)
    indices = np.ascontiguousarray(rows.indices, dtype=np.int32)
    return CSR(indptr, indices, data, int(rows.shape[1]))


def _as_scipy(name: str, matrix: Any) -> Any:
    """Return the scipy matrix over a caller's buffers; those of a device are copied to the host."""
    if sp.issparse(matrix):
        return matrix
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(matrix, torch.Tensor) and matrix.layout is not torch.strided:
        return _from_torch(torch, matrix)
    if type(matrix).__module__.startswith("cupyx.scipy.sparse") and hasattr(matrix, "get"):
        return matrix.get()
    shape = getattr(matrix, "shape", None)
    if shape is not None and hasattr(matrix, "dtype"):
        dense = f"a dense {type(matrix).__name__} of shape {tuple(shape)}"
        raise KernelInputError(f"{name} must be {_ACCEPTED}; got {dense}: pass scipy.sparse.csr_array({name})")
    raise KernelInputError(f"{name} must be {_ACCEPTED}; got {type(matrix).__name__}")


def _from_torch(torch: Any, matrix: Any) -> Any:
    if matrix.layout is torch.sparse_coo:
        matrix = matrix.coalesce()
    if matrix.layout is not torch.sparse_csr:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
            matrix = matrix.to_sparse_csr()
    indptr, indices, values = (
        part.detach().cpu().numpy() for part in (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    )
    return sp.csr_array((values, indices, indptr), shape=tuple(matrix.shape))

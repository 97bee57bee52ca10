"""Graph normalization and weight-free propagation of features (docs/method.md, 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.arrays import as_numpy, is_tensor
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.propagate import numpy_op, reference

if TYPE_CHECKING:
    from torch import Tensor

    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike

Float = TypeVar("Float", np.float32, np.float64)

HOWS = ("symmetric", "row")
COMBINES = ("sum", "mean", "last")


def normalize(graph: SparseLike, *, how: str = "symmetric", backend: str = "auto") -> CSR:
    """Scale a graph by its row sums D: D^-1/2 A D^-1/2, or D^-1 A with how="row" (docs/method.md, 3).

    Args:
        graph: A, sparse [N, N], entries not negative; it need not be symmetric, D is the row sums on both sides.
        how: "symmetric" or "row".
        backend: "auto", "numba" or "reference".

    Returns:
        The same pattern with float32 entries, from float64 sums; rows and columns whose sum is 0 get 0.

    Raises:
        KernelInputError: the graph is not sparse and square, or an entry is negative, NaN or infinite.
    """
    if how not in HOWS:
        raise KernelInputError(f"how {how!r} is not one of {', '.join(HOWS)}")
    matrix = _square(graph)
    _check_entries(matrix)
    if backends.choose(backend, matrix.indices, cpu=("numba",), gpu=()) == "reference":
        return CSR(matrix.indptr, matrix.indices, reference.normalize(matrix, how), matrix.n_columns)
    from mllmrec_kernels.propagate import cpu

    return CSR(matrix.indptr, matrix.indices, cpu.normalize(matrix, how), matrix.n_columns)


@overload
def propagate(
    graph: SparseLike, features: NDArray[Float], *, layers: int, combine: str = "sum", backend: str = "auto"
) -> NDArray[Float]: ...


@overload
def propagate(
    graph: SparseLike, features: Tensor, *, layers: int, combine: str = "sum", backend: str = "auto"
) -> Tensor: ...


def propagate(
    graph: SparseLike, features: ArrayLike, *, layers: int, combine: str = "sum", backend: str = "auto"
) -> ArrayLike:
    """Propagate features: E^(l+1) = A E^(l), E^(0) = features, combined over l = 0..layers (docs/method.md, 3).

    For torch tensors it is the custom op `mllmrec::propagate`: differentiable with respect to the features
    (twice as well), backward through the transpose, and one node to torch.compile. The transpose is made
    once a graph and kept beside it.

    Args:
        graph: A, sparse [N, N], taken as it is; `normalize` first if the method needs it. Pass a CSR if you
            call often: others are converted at each call.
        features: float32 or float64 [N, d], NumPy or torch.
        layers: L >= 0; with 0 the result is a copy of the features.
        combine: "sum" of E^(0)..E^(L), their "mean", or only the "last".
        backend: "auto", "numba", "triton", "torch" (its CSR product) or "reference".

    Returns:
        [N, d], in the features' dtype, library and device. Sums run in that dtype, in the order
        of the stored entries, one thread per row: the same bits for any number of threads.

    Raises:
        KernelInputError: types or shapes do not match, the dtype is not floating, or an argument is out of range.
        BackendUnavailableError: the named backend cannot run here.
    """
    if combine not in COMBINES:
        raise KernelInputError(f"combine {combine!r} is not one of {', '.join(COMBINES)}")
    if layers < 0:
        raise KernelInputError(f"layers must not be negative; got {layers}")
    matrix = _square(graph)
    if is_tensor(features):
        from mllmrec_kernels.propagate import torch_op

        return torch_op.propagate(matrix, features, layers, combine, backend)
    return numpy_op.propagate(matrix, as_numpy("features", features), layers, combine, backend)


def _square(graph: SparseLike) -> CSR:
    matrix = as_csr("graph", graph)
    if matrix.n_rows != matrix.n_columns:
        raise KernelInputError(f"graph must be square; got {matrix.shape}")
    return matrix


def _check_entries(graph: CSR) -> None:
    if graph.data is None:
        return
    invalid = np.flatnonzero(~((graph.data >= 0) & (graph.data < np.inf)))
    if len(invalid):
        row, entry = int(np.searchsorted(graph.indptr, invalid[0], side="right")) - 1, graph.data[invalid[0]]
        raise KernelInputError(f"graph entries must be finite and not negative; row {row} holds {entry}")

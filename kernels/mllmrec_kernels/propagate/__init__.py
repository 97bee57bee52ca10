"""Graph normalisation and weight-free propagation of features (method 2.7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.propagate import reference
from mllmrec_kernels.propagate.reference import Floats

if TYPE_CHECKING:
    from torch import Tensor

HOWS = ("symmetric", "row")
COMBINES = ("sum", "mean", "last")


def normalise(graph: CSR, *, how: str = "symmetric", backend: str = "auto") -> CSR:
    """Scale a graph by its row sums D: D^-1/2 A D^-1/2, or D^-1 A with how="row" (method 2.7, issue 3).

    Args:
        graph: N x N, entries not negative; it need not be symmetric, D is the row sums on both sides.
        how: "symmetric" or "row".
        backend: "auto", "numba" or "reference".

    Returns:
        The same pattern with float32 entries, from float64 sums; rows and columns whose sum is 0 get 0.

    Raises:
        KernelInputError: the graph is not square, or an entry is negative, NaN or infinite.
    """
    if how not in HOWS:
        raise KernelInputError(f"how {how!r} is not one of {', '.join(HOWS)}")
    _check_square(graph)
    _check_entries(graph)
    if backends.choose(backend, graph.indices, cpu=("numba",), gpu=()) == "reference":
        return CSR(graph.indptr, graph.indices, reference.normalise(graph, how), graph.n_columns)
    from mllmrec_kernels.propagate import cpu

    return CSR(graph.indptr, graph.indices, cpu.normalise(graph, how), graph.n_columns)


@overload
def propagate(graph: CSR, features: Floats, *, layers: int, combine: str = "sum", backend: str = "auto") -> Floats: ...


@overload
def propagate(graph: CSR, features: Tensor, *, layers: int, combine: str = "sum", backend: str = "auto") -> Tensor: ...


def propagate(graph: CSR, features: Any, *, layers: int, combine: str = "sum", backend: str = "auto") -> Any:
    """E^(l+1) = A E^(l) with E^(0) = features, combined over l = 0..layers (method 2.7, issue 3).

    For torch tensors it is the custom op `mllmrec::propagate`: differentiable with respect to the features
    (twice as well), backward through the transpose, and one node to torch.compile. The transpose is made
    once a graph and kept beside it.

    Args:
        graph: A, N x N, taken as it is; `normalise` first where the method asks for it.
        features: float32 or float64, shape (N, d), NumPy or torch.
        layers: L >= 0; with 0 the result is a copy of the features.
        combine: "sum" of E^(0)..E^(L), their "mean", or the "last" alone.
        backend: "auto", "numba", "triton", "torch" (its CSR product) or "reference".

    Returns:
        Shape (N, d), the features' dtype, where the features live. Sums run in that dtype, in the order
        of the stored entries, one thread a row: the same bits for any number of threads.

    Raises:
        KernelInputError: shapes do not match, the dtype is not floating, or an argument is out of range.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    if combine not in COMBINES:
        raise KernelInputError(f"combine {combine!r} is not one of {', '.join(COMBINES)}")
    if layers < 0:
        raise KernelInputError(f"layers must not be negative; got {layers}")
    _check_square(graph)
    if not isinstance(features, np.ndarray):
        from mllmrec_kernels.propagate import torch_op

        return torch_op.propagate(graph, features, layers, combine, backend)
    return on_numpy(graph, features, layers, combine, backend)


def on_numpy(graph: CSR, features: Floats, layers: int, combine: str, backend: str) -> Floats:
    """The verb for NumPy features, its arguments but the features checked."""
    check_features(graph, features.shape, str(features.dtype))
    chosen = choose(backend, features)
    if chosen == "reference":
        return reference.propagate(graph, features, layers, combine)
    if chosen == "triton":
        return _on_device(graph, features, layers, combine)
    if chosen == "torch":
        from mllmrec_kernels.propagate import torch_csr

        return torch_csr.propagate(graph, features, layers, combine)
    from mllmrec_kernels.propagate import cpu

    return cpu.propagate(graph, features, layers, combine)


def choose(backend: str, features: Any) -> str:
    """The backend that propagates these features."""
    return backends.choose(backend, features, cpu=("numba", "torch"), gpu=("triton", "torch"))


def _on_device(graph: CSR, features: Floats, layers: int, combine: str) -> Floats:
    import torch

    from mllmrec_kernels.propagate import gpu

    device = backends.device_of(features)
    copy = gpu.DeviceGraph.of(graph, device)
    with backends.on(device):
        result: Floats = gpu.propagate(copy, torch.from_numpy(features).to(device), layers, combine).cpu().numpy()
    return result


def check_features(graph: CSR, shape: tuple[int, ...], dtype: str) -> None:
    """Refuse features that are not float32 or float64 [N, d]."""
    if len(shape) != 2 or shape[0] != graph.n_rows:
        raise KernelInputError(f"features must have shape ({graph.n_rows}, d); got {tuple(shape)}")
    if dtype.removeprefix("torch.") not in ("float32", "float64"):
        raise KernelInputError(f"features must be float32 or float64; got {dtype}")


def _check_square(graph: CSR) -> None:
    if graph.n_rows != graph.n_columns:
        raise KernelInputError(f"graph must be square; got {graph.shape}")


def _check_entries(graph: CSR) -> None:
    if graph.data is None:
        return
    wrong = np.flatnonzero(~((graph.data >= 0) & (graph.data < np.inf)))
    if len(wrong):
        row = int(np.searchsorted(graph.indptr, wrong[0], side="right")) - 1
        raise KernelInputError(f"graph entries must be finite and not negative; row {row} holds {graph.data[wrong[0]]}")

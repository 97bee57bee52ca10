"""Propagation of torch features: the custom op `mllmrec::propagate`, one node to autograd and torch.compile.

It is linear in the features. The forward is f(A) E with f(A) = sum_l A^l (or its mean, or A^L). The backward is
f(A)^T G = f(A^T) G, the same op on the transposed graph. The op takes the graph as CPU tensors, wherever the
features are. Its transposes and copies on a device are kept for the few graphs used last. torch's own CSR product is
kept as a backend to compare with.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.propagate import numpy_op

KEPT = 8  # derived values
# Each value beside its source tensors: while those live, their addresses identify them.
_recent: dict[tuple[Any, ...], tuple[Any, tuple[Tensor, ...]]] = {}


def _cached(source: tuple[Tensor, ...], use: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    key = (*(tensor.data_ptr() for tensor in source), *(len(tensor) for tensor in source), *use)
    if key not in _recent:
        while len(_recent) >= KEPT:
            _recent.pop(next(iter(_recent)))
        _recent[key] = make(), source
    return _recent[key][0]


def _graph(source: tuple[Tensor, Tensor, Tensor], *, transposed: bool) -> CSR:
    """Return the CSR over CPU tensors; an empty `data` beside stored entries stands for a binary matrix."""
    indptr, indices, data = source
    binary = len(data) != len(indices)
    graph = CSR(indptr.numpy(), indices.numpy(), None if binary else data.numpy(), len(indptr) - 1)
    return _cached(source, ("transpose",), graph.transpose) if transposed else graph


@torch.library.custom_op("mllmrec::propagate", mutates_args=())
def _propagate(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor,
    features: Tensor,
    layers: int,
    combine: str,
    backend: str,
    transposed: bool,
) -> Tensor:
    source, device, features = (indptr, indices, data), features.device, features.detach()
    chosen = numpy_op.choose(backend, features)
    if chosen == "triton":
        return _on_device(source, features, layers, combine, transposed=transposed)
    graph = _graph(source, transposed=transposed)
    if chosen == "torch":
        return by_torch(as_torch_csr(graph, features), features, layers, combine)
    return torch.from_numpy(numpy_op.propagate(graph, features.cpu().numpy(), layers, combine, chosen)).to(device)


def _on_device(
    source: tuple[Tensor, Tensor, Tensor], features: Tensor, layers: int, combine: str, *, transposed: bool
) -> Tensor:
    from mllmrec_kernels.propagate import gpu

    device = backends.device_of(features)
    graph = _cached(
        source, (device, transposed), lambda: gpu.DeviceGraph.of(_graph(source, transposed=transposed), device)
    )
    with backends.on(device):
        return gpu.propagate(graph, features.to(device), layers, combine).to(features.device)


@_propagate.register_fake
def _(
    indptr: Tensor,
    indices: Tensor,
    data: Tensor,
    features: Tensor,
    layers: int,
    combine: str,
    backend: str,
    transposed: bool,
) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    indptr, indices, data, _, *ctx.options, ctx.transposed = inputs
    ctx.save_for_backward(indptr, indices, data)


def _backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor, None, None, None, None]:
    features_grad = _propagate(*ctx.saved_tensors, grad, *ctx.options, not ctx.transposed)
    return None, None, None, features_grad, None, None, None, None


_propagate.register_autograd(_backward, setup_context=_setup_context)


def propagate(graph: CSR, features: Tensor, layers: int, combine: str, backend: str) -> Tensor:
    """Return the combined layers, [N, d], in the dtype and on the device of the features.

    Args:
        graph: A, [N, N].
        features: float32 or float64 [N, d].
        layers: L >= 0.
        combine: "sum", "mean" or "last".
        backend: "auto" or a backend's name.
    """
    numpy_op.check_features(graph, tuple(features.shape), str(features.dtype))
    data = torch.empty(0) if graph.data is None else torch.from_numpy(graph.data)
    indptr, indices = torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices)
    result: Tensor = _propagate(indptr, indices, data, features, layers, combine, backend, False)
    return result


def as_torch_csr(graph: CSR, like: Tensor) -> Tensor:
    """Return the graph as a torch CSR tensor with int32 indices, dtype and device of `like`."""
    indptr = torch.from_numpy(graph.indptr).int()
    indices, values = torch.from_numpy(graph.indices), torch.from_numpy(graph.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        sparse = torch.sparse_csr_tensor(indptr, indices, values, size=graph.shape, check_invariants=False)
    return sparse.to(device=like.device, dtype=like.dtype)


def by_torch(A: Tensor, features: Tensor, layers: int, combine: str) -> Tensor:
    """Return the combined layers by torch's own CSR product, [N, d], in the dtype of the features.

    Args:
        A: sparse CSR [N, N], of `as_torch_csr`.
        features: float32 or float64 [N, d].
        layers: L >= 0.
        combine: "sum", "mean" or "last".
    """
    current, total = features, features.clone()
    for _ in range(layers):
        current = A @ current
        total += current
    if combine == "last":
        return current.clone() if layers == 0 else current
    return total / (layers + 1) if combine == "mean" else total

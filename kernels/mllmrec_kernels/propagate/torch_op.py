"""propagate as the custom op `mllmrec::propagate`, one node to autograd and torch.compile.

It is linear in the features: the forward is f(A) E with f(A) = sum_l A^l (or its mean, or A^L), the backward
f(A)^T G = f(A^T) G, the same op on the transposed graph. The op is given the graph as CPU tensors, wherever the
features are; what it makes of them, transposes and copies on a device, it keeps for the few graphs asked for last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.propagate import check_features, choose, on_numpy

KEPT = 8
# Each value beside the tensors it was made from: while those live, their addresses name them.
_recent: dict[tuple[Any, ...], tuple[Any, tuple[Tensor, ...]]] = {}


def _kept(source: tuple[Tensor, ...], use: tuple[Any, ...], make: Callable[[], Any]) -> Any:
    key = (*(tensor.data_ptr() for tensor in source), *(len(tensor) for tensor in source), *use)
    if key not in _recent:
        while len(_recent) >= KEPT:
            _recent.pop(next(iter(_recent)))
        _recent[key] = make(), source
    return _recent[key][0]


def _graph(source: tuple[Tensor, Tensor, Tensor], *, transposed: bool) -> CSR:
    """The CSR over CPU tensors; an empty `data` beside stored entries stands for a binary matrix."""
    indptr, indices, data = source
    binary = len(data) != len(indices)
    graph = CSR(indptr.numpy(), indices.numpy(), None if binary else data.numpy(), len(indptr) - 1)
    return _kept(source, ("transpose",), graph.transpose) if transposed else graph


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
    chosen = choose(backend, features)
    if chosen == "triton":
        return _on_device(source, features, layers, combine, transposed=transposed)
    graph = _graph(source, transposed=transposed)
    if chosen == "torch":
        from mllmrec_kernels.propagate import torch_csr

        return torch_csr.on_tensors(torch_csr.matrix(graph, features), features, layers, combine)
    return torch.from_numpy(on_numpy(graph, features.cpu().numpy(), layers, combine, chosen)).to(device)


def _on_device(
    source: tuple[Tensor, Tensor, Tensor], features: Tensor, layers: int, combine: str, *, transposed: bool
) -> Tensor:
    from mllmrec_kernels.propagate import gpu

    device = backends.device_of(features)
    graph = _kept(
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
    turned = _propagate(*ctx.saved_tensors, grad, *ctx.options, not ctx.transposed)
    return None, None, None, turned, None, None, None, None


_propagate.register_autograd(_backward, setup_context=_setup_context)


def propagate(graph: CSR, features: Tensor, layers: int, combine: str, backend: str) -> Tensor:
    """The verb for torch features; `graph` and the options have been checked."""
    check_features(graph, tuple(features.shape), str(features.dtype))
    data = torch.empty(0) if graph.data is None else torch.from_numpy(graph.data)
    indptr, indices = torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices)
    result: Tensor = _propagate(indptr, indices, data, features, layers, combine, backend, False)
    return result

"""propagate as the custom op `mllmrec::propagate`, one node to autograd and torch.compile.

It is linear in the features: the forward is f(A) E with f(A) = sum_l A^l (or its mean, or A^L), the backward
f(A)^T G = f(A^T) G, the same op on the transposed graph. The transpose costs O(nnz) beside O(nnz d), so each
backward makes its own instead of keeping one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mllmrec_kernels.csr import CSR
from mllmrec_kernels.propagate import check_features, on_numpy


def _graph(indptr: Tensor, indices: Tensor, data: Tensor) -> CSR:
    """The CSR over CPU tensors; an empty `data` beside stored entries stands for a binary matrix."""
    binary = len(data) != len(indices)
    return CSR(indptr.numpy(), indices.numpy(), None if binary else data.numpy(), len(indptr) - 1)


@torch.library.custom_op("mllmrec::transpose", mutates_args=(), device_types="cpu")
def _transpose(indptr: Tensor, indices: Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    turned = _graph(indptr, indices, data).transpose()
    values = np.empty(0, np.float32) if turned.data is None else turned.data
    return torch.from_numpy(turned.indptr), torch.from_numpy(turned.indices), torch.from_numpy(values)


@_transpose.register_fake
def _(indptr: Tensor, indices: Tensor, data: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(indptr), torch.empty_like(indices), torch.empty_like(data)


@torch.library.custom_op("mllmrec::propagate", mutates_args=(), device_types="cpu")
def _propagate(
    indptr: Tensor, indices: Tensor, data: Tensor, features: Tensor, layers: int, combine: str, backend: str
) -> Tensor:
    graph = _graph(indptr, indices, data)
    return torch.from_numpy(on_numpy(graph, features.detach().numpy(), layers, combine, backend))


@_propagate.register_fake
def _(
    indptr: Tensor, indices: Tensor, data: Tensor, features: Tensor, layers: int, combine: str, backend: str
) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    indptr, indices, data, _, *ctx.options = inputs
    ctx.save_for_backward(indptr, indices, data)


def _backward(ctx: Any, grad: Tensor) -> tuple[None, None, None, Tensor, None, None, None]:
    turned = _transpose(*ctx.saved_tensors)
    return None, None, None, _propagate(*turned, grad, *ctx.options), None, None, None


_propagate.register_autograd(_backward, setup_context=_setup_context)


def propagate(graph: CSR, features: Tensor, layers: int, combine: str, backend: str) -> Tensor:
    """The verb for torch features; `graph` and the options have been checked."""
    check_features(graph, tuple(features.shape), str(features.dtype))
    data = torch.empty(0) if graph.data is None else torch.from_numpy(graph.data)
    indptr, indices = torch.from_numpy(graph.indptr), torch.from_numpy(graph.indices)
    result: Tensor = _propagate(indptr, indices, data, features, layers, combine, backend)
    return result

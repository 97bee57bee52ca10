"""Propagation by torch's own CSR product, kept as a backend to compare with."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.propagate.reference import Floats


def matrix(graph: CSR, like: Tensor) -> Tensor:
    """Return the graph as a torch CSR tensor with int32 indices, dtype and device of `like`."""
    indptr = torch.from_numpy(graph.indptr).int()
    indices, values = torch.from_numpy(graph.indices), torch.from_numpy(graph.values())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta")
        sparse = torch.sparse_csr_tensor(indptr, indices, values, size=graph.shape, check_invariants=False)
    return sparse.to(device=like.device, dtype=like.dtype)


def on_tensors(A: Tensor, features: Tensor, layers: int, combine: str) -> Tensor:
    """Return the combined layers, [N, d], in the dtype of the features.

    Args:
        A: sparse CSR [N, N], of `matrix`.
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


def propagate(graph: CSR, features: Floats, layers: int, combine: str) -> Floats:
    """Return the combined layers, [N, d], in the dtype of the features.

    Args:
        graph: A, [N, N].
        features: float32 or float64 [N, d].
        layers: L >= 0.
        combine: "sum", "mean" or "last".
    """
    tensor = torch.from_numpy(features)
    result: Floats = on_tensors(matrix(graph, tensor), tensor, layers, combine).numpy()
    return result

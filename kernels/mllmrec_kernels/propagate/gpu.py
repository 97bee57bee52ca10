"""Sparse rows times dense features in Triton, a layer added in the same pass.

    S[0] = E;   S[l] = E + A S[l-1] = sum_{m <= l} A^m E, divided by the number of layers for the mean

So a layer is one table read, beside E, and one written. For "last" E is left out.

Bytes a layer, N rows of d features and nnz edges: nnz d 4 gathered, N d 4 written, and N d 4 read as E; FLOPs 2 nnz d:
bound by the gathers. They go panel by panel of COLUMNS features, all rows of a panel before the next one. So what is
gathered (N COLUMNS 4 bytes) stays in L2. One program owns a row of a panel, and adds EDGES entries at a time in the
order they are stored: always the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.gpu_score import FUSED

COLUMNS, EDGES = 128, 8  # of one warp: 16 bytes per thread and edge in flight


@triton.jit
def layer_rows(
    indptr: tl.tensor, indices: tl.tensor, data: tl.tensor, current: tl.tensor, base: tl.tensor, out: tl.tensor,
    width: tl.tensor, parts: tl.tensor, WEIGHTED: tl.constexpr, BASE: tl.constexpr, EDGES: tl.constexpr,
    COLUMNS: tl.constexpr,
) -> None:  # fmt: skip
    """Write row program_id(0), panel program_id(1) of a layer: out = (base + A current) / parts.

    indptr int64 [N + 1], indices int32 [nnz], data float32 [nnz] or unread; the rest float32 or float64 [N, width].
    """
    row = tl.program_id(0)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = c < width
    dtype = current.dtype.element_ty
    total = tl.zeros([COLUMNS], dtype)
    stop = tl.load(indptr + row + 1)
    for first in range(tl.load(indptr + row), stop, EDGES):
        edge = first + tl.arange(0, EDGES)
        live = edge < stop
        column = tl.load(indices + edge, mask=live, other=0).to(tl.int64)
        gathered = tl.load(
            current + column[:, None] * width + c[None, :], mask=live[:, None] & inside[None, :], other=0.0
        )
        if WEIGHTED:
            gathered *= tl.load(data + edge, mask=live, other=0.0).to(dtype)[:, None]
        total += tl.sum(gathered, axis=0)
    at = row.to(tl.int64) * width + c
    if BASE:
        total += tl.load(base + at, mask=inside, other=0.0)
    tl.store(out + at, total / parts, mask=inside)


@dataclass(frozen=True, slots=True)
class DeviceGraph:
    """A graph on a device: indptr int64 [N + 1], indices int32 [nnz], data float32 [nnz] or None if all are ones."""

    indptr: Tensor
    indices: Tensor
    data: Tensor | None

    @staticmethod
    def of(graph: CSR, device: torch.device) -> DeviceGraph:
        """Copy `graph` to `device`."""
        data = None if graph.data is None else torch.from_numpy(graph.data).to(device)
        return DeviceGraph(torch.from_numpy(graph.indptr).to(device), torch.from_numpy(graph.indices).to(device), data)


def _layer(graph: DeviceGraph, current: Tensor, base: Tensor | None, parts: int) -> Tensor:
    n, width = current.shape
    out = torch.empty_like(current)
    layer_rows[(n, triton.cdiv(width, COLUMNS))](
        graph.indptr, graph.indices, graph.indices if graph.data is None else graph.data,
        current, current if base is None else base, out, width, parts,
        WEIGHTED=graph.data is not None, BASE=base is not None, EDGES=EDGES, COLUMNS=COLUMNS, num_warps=1, **FUSED,
    )  # fmt: skip
    return out


def propagate(graph: DeviceGraph, features: Tensor, layers: int, combine: str) -> Tensor:
    """Return the combined layers, [N, d], in the dtype and on the device of the features.

    Args:
        graph: A, [N, N], on the device of the features.
        features: float32 or float64 [N, d].
        layers: L >= 0.
        combine: "sum", "mean" or "last".
    """
    if layers == 0 or not features.numel():
        return features.clone(memory_format=torch.contiguous_format)
    current = features.contiguous()
    base = None if combine == "last" else current
    for layer in range(1, layers + 1):
        current = _layer(graph, current, base, layers + 1 if layer == layers and combine == "mean" else 1)
    return current

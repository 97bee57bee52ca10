"""The contract of normalize and propagate: dense matrices in float64, as the paper writes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR

Floats = NDArray[np.float32] | NDArray[np.float64]


def _dense(graph: CSR) -> NDArray[np.float64]:
    """Return the graph as a dense matrix, float64 [N, n_columns]."""
    A = np.zeros(graph.shape)
    for i in range(graph.n_rows):
        A[i, graph.row(i)] = graph.values()[graph.indptr[i] : graph.indptr[i + 1]]
    return A


def normalize(graph: CSR, how: str) -> NDArray[np.float32]:
    """Return the normalized entries of `graph`, in its own order: D^-1/2 A D^-1/2 or D^-1 A."""
    A = _dense(graph)
    sums = A.sum(axis=1)
    inverse = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    scaled = inverse[:, None] * A if how == "row" else np.sqrt(np.outer(inverse, inverse)) * A
    rows = np.repeat(np.arange(graph.n_rows), np.diff(graph.indptr))
    return scaled[rows, graph.indices].astype(np.float32)


def propagate(graph: CSR, features: Floats, layers: int, combine: str) -> Floats:
    """Return the combined layers, [N, d], in the dtype of the features.

    Args:
        graph: A, [N, N].
        features: float32 or float64 [N, d].
        layers: L >= 0.
        combine: "sum", "mean" or "last".
    """
    A = _dense(graph)
    E = [features.astype(np.float64)]
    for _ in range(layers):
        E.append(A @ E[-1])
    combined = {"sum": np.sum(E, axis=0), "mean": np.mean(E, axis=0), "last": E[-1]}[combine]
    result: Floats = combined.astype(features.dtype)
    return result

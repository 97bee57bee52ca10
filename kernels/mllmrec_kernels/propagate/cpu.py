"""Sparse rows times dense features in Numba, the layers combined in the same pass.

    next[i] = sum_e a_e current[col_e];   out[i] (+)= next[i]

Bytes a layer: nnz d 4 gathered (from cache where columns repeat nearby), N d 4 written for `next` and again
for `out`; FLOPs 2 nnz d. At 20 edges a row and 384 features that is bound by the gathers. The last layer
writes `out` alone, so one layer needs no buffer and L layers at most two.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.propagate.gather import STRETCH_BYTES, gather
from mllmrec_kernels.propagate.reference import Floats

# contract: a multiply-add may be one instruction; nothing is reordered, so results stay reproducible.
_FAST = {"contract"}
_ROWS = 64  # a thread takes at a time


@njit(cache=True)
def _row_sums(indptr, data):  # type: ignore[no-untyped-def]
    sums = np.zeros(len(indptr) - 1, np.float64)
    for i in range(len(sums)):
        for e in range(indptr[i], indptr[i + 1]):
            sums[i] += data[e]
    return sums


@njit(cache=True)
def _scale(indptr, indices, data, inverse, symmetric, out):  # type: ignore[no-untyped-def]
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            factor = np.sqrt(inverse[i] * inverse[indices[e]]) if symmetric else inverse[i]
            out[e] = data[e] * factor


def normalise(graph: CSR, how: str) -> NDArray[np.float32]:
    """The normalised entries of `graph`, in its own order; see the verb."""
    data = graph.values()
    sums = _row_sums(graph.indptr, data)
    inverse = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    out = np.empty(graph.nnz, np.float32)
    _scale(graph.indptr, graph.indices, data, inverse, how == "symmetric", out)
    return out


@njit(cache=True, fastmath=_FAST)
def _row(indptr, indices, data, current, i, total):  # type: ignore[no-untyped-def]
    """total = row i of A current."""
    width = current.shape[1]
    whole = width - width % (STRETCH_BYTES // total.itemsize)
    for column in range(0, whole, STRETCH_BYTES // total.itemsize):
        gather(indices, data, indptr[i], indptr[i + 1], current, column, total)  # type: ignore[call-arg]
    total[whole:] = 0
    for e in range(indptr[i], indptr[i + 1] if whole < width else indptr[i]):
        weight = data[e] if len(data) else np.float32(1)
        for c in range(whole, width):
            total[c] += weight * current[indices[e], c]


@njit(cache=True, fastmath=_FAST)
def _rows(indptr, indices, data, current, base, scale, keep, following, out, start, stop):  # type: ignore[no-untyped-def]
    total = np.empty(current.shape[1], current.dtype)
    for i in range(start, stop):
        _row(indptr, indices, data, current, i, total)
        if keep:
            following[i] = total
        if len(base):
            for c in range(len(total)):
                out[i, c] = (base[i, c] + total[c]) * scale
        else:
            for c in range(len(total)):
                out[i, c] = total[c] * scale


@njit(cache=True, parallel=True)
def _layer(indptr, indices, data, current, base, scale, keep, following, out):  # type: ignore[no-untyped-def]
    """out = (base + A current) scale, base left out where it is empty; `following` = A current where kept."""
    n = len(indptr) - 1
    for block in prange((n + _ROWS - 1) // _ROWS):
        start = block * _ROWS
        _rows(indptr, indices, data, current, base, scale, keep, following, out, start, min(start + _ROWS, n))


def propagate(graph: CSR, features: Floats, layers: int, combine: str) -> Floats:
    """E^(l+1) = A E^(l) combined over l = 0..layers, shape (N, d), dtype of `features`; see the verb."""
    if layers == 0:
        return features.copy()
    current: Any = np.ascontiguousarray(features)
    out: Floats = np.empty_like(current)
    nothing = np.empty((0, current.shape[1]), current.dtype)
    data = np.empty(0, np.float32) if graph.data is None else graph.data
    running = nothing if combine == "last" else current
    for layer in range(layers):
        last = layer == layers - 1
        scale = current.dtype.type(1 / (layers + 1) if last and combine == "mean" else 1)
        following = nothing if last else np.empty_like(current)
        _layer(
            graph.indptr, graph.indices, data, current, running, scale, not last, following, out,
        )  # fmt: skip
        current = following
        running = nothing if combine == "last" else out
    return out

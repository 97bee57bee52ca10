"""The perceptron on the CPU: each thread takes a part of the rows through all of it, with BLAS on its own core.

    x = E[rows];   z = leaky(x W1^T + b1);   h = z W2^T + b2
    g_z = (g W2) leaky'(z);   gradients g_z^T x, sum g_z, g^T z, sum g, summed over the parts in their order

FLOPs, R rows: 2 R k (d_e + d) forward for k hidden units, 2 R k (d_e + 2 d) backward: bound by the products. NumPy's
OpenBLAS reaches 200 to 225 GFLOP/s per core at these shapes with AVX-512, the MKL of torch's wheels 90 on the same
processor (an AMD EPYC). Two threads through the whole pass meet twice per step instead of twenty times. Bytes: x and z
of all rows where a gradient is needed, CHUNK of them a thread otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.parallel import equal_parts, parallel_for

Single = NDArray[np.float32]
CHUNK = 1024  # rows that go through at a time
LEAST = 64  # rows; fewer are not worth another thread


@dataclass(frozen=True, slots=True)
class Perceptron:
    """Parameters of a two-layer perceptron: W1 [k, d_e], b1 [k], W2 [d, k], b2 [d], and the slope below 0."""

    hidden: Single
    hidden_bias: Single
    out: Single
    out_bias: Single
    slope: float


@dataclass(frozen=True, slots=True)
class Activations:
    """Values of the forward pass that the backward one needs: the rows x [R, d_e], and z [R, k]."""

    rows: Single
    hidden: Single


def forward(
    table: Single, rows: NDArray[np.int64] | None, net: Perceptron, *, keep: bool
) -> tuple[Single, Activations | None]:
    """Return h [R, d], and the activations if `keep`.

    Args:
        table: float32 [N, d_e].
        rows: int64 [R]; None for all.
        net: the weights.
        keep: keep the activations for `backward`.
    """
    count, wide = len(table) if rows is None else len(rows), len(net.hidden)
    out = np.empty((count, len(net.out)), np.float32)
    x = table if rows is None else np.empty((count if keep else 0, table.shape[1]), np.float32)
    z = np.empty((count if keep else 0, wide), np.float32)

    def _pass(first: int, last: int) -> None:
        for start in range(first, last, CHUNK):
            chunk = slice(start, min(start + CHUNK, last))
            if rows is None:
                e = table[chunk]
            else:
                e = np.take(table, rows[chunk], axis=0, out=x[chunk] if keep else None, mode="clip")
            hidden = np.matmul(e, net.hidden.T, out=z[chunk] if keep else None)
            _rectify(hidden, net.hidden_bias, np.float32(net.slope))
            np.matmul(hidden, net.out.T, out=out[chunk])
            out[chunk] += net.out_bias

    parallel_for(_pass, equal_parts(count, LEAST), keep_threads=True)
    return out, Activations(x, z) if keep else None


def backward(gradient: Single, activations: Activations, net: Perceptron) -> tuple[Single, Single, Single, Single]:
    """Return the gradients by W1, b1, W2 and b2.

    Args:
        gradient: float32 [R, d], by h.
        activations: from `forward`.
        net: the weights.
    """
    parts: dict[int, list[Single]] = {}

    def _pass(first: int, last: int) -> None:
        total: list[Single] = []
        for start in range(first, last, CHUNK):
            chunk = slice(start, min(start + CHUNK, last))
            g, z = gradient[chunk], activations.hidden[chunk]
            by_hidden = g @ net.out
            by_bias = np.zeros(len(net.hidden), np.float32)
            _rectify_backward(by_hidden, z, np.float32(net.slope), by_bias)
            gradients = [by_hidden.T @ activations.rows[chunk], by_bias, g.T @ z, g.sum(axis=0)]
            total = [a + b for a, b in zip(total, gradients, strict=True)] if total else gradients
        parts[first] = total

    parallel_for(_pass, equal_parts(len(gradient), LEAST), keep_threads=True)
    sums = [sum(each[1:], start=each[0]) for each in zip(*(parts[n] for n in sorted(parts)), strict=True)]
    if not sums:
        sums = [np.zeros_like(array) for array in (net.hidden, net.hidden_bias, net.out, net.out_bias)]
    return sums[0], sums[1], sums[2], sums[3]


@njit(cache=True, nogil=True)
def _rectify(hidden: Single, bias: Single, slope: np.float32) -> None:
    """Set hidden = leaky(hidden + bias), in place."""
    for r in range(hidden.shape[0]):
        for c in range(hidden.shape[1]):
            value = hidden[r, c] + bias[c]
            hidden[r, c] = value if value > 0 else slope * value


@njit(cache=True, nogil=True)
def _rectify_backward(by_hidden: Single, hidden: Single, slope: np.float32, by_bias: Single) -> None:
    """Multiply the gradient by leaky', in place, and add its column sums to by_bias."""
    for r in range(by_hidden.shape[0]):
        for c in range(by_hidden.shape[1]):
            value = by_hidden[r, c] if hidden[r, c] > 0 else slope * by_hidden[r, c]
            by_hidden[r, c] = value
            by_bias[c] += value

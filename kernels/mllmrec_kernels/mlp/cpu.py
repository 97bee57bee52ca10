"""project on the CPU: each thread takes a part of the rows through all of it, with BLAS on its own core.

    x = E[rows];   z = leaky(x W1^T + b1);   h = z W2^T + b2
    g_z = (g W2) leaky'(z);   gradients g_z^T x, sum g_z, g^T z, sum g, each part's added up in their order

FLOPs, R rows: 2 R k (d_e + d) forward for k hidden units, 2 R k (d_e + 2 d) backward: bound by the products. NumPy's
OpenBLAS reaches 200 to 225 GFLOP/s a core at these shapes with AVX-512, the MKL of torch's wheels 90 on the same
processor (an AMD EPYC), and two threads through the whole pass meet twice a step instead of twenty times.
Bytes: x and z of all rows where a gradient is wanted, CHUNK of them a thread otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.parallel import over_parts

Single = NDArray[np.float32]
CHUNK = 1024  # rows that go through at a time; LEAST: fewer are not worth another thread
LEAST = 64


@dataclass(frozen=True, slots=True)
class Perceptron:
    """W1 [k, d_e], b1 [k], W2 [d, k], b2 [d], and the slope below 0."""

    hidden: Single
    hidden_bias: Single
    out: Single
    out_bias: Single
    slope: float


@dataclass(frozen=True, slots=True)
class Passed:
    """What a backward pass needs of the forward one: the rows [R, d_e] and what became of them, z [R, k]."""

    rows: Single
    hidden: Single


def forward(
    table: Single, rows: NDArray[np.int64] | None, net: Perceptron, *, keep: bool
) -> tuple[Single, Passed | None]:
    """h [R, d], and what to keep for a gradient where `keep`; see the verb."""
    count, wide = len(table) if rows is None else len(rows), len(net.hidden)
    out = np.empty((count, len(net.out)), np.float32)
    x = table if rows is None else np.empty((count if keep else 0, table.shape[1]), np.float32)
    z = np.empty((count if keep else 0, wide), np.float32)

    def take(_: int, first: int, last: int) -> None:
        for start in range(first, last, CHUNK):
            some = slice(start, min(start + CHUNK, last))
            if rows is None:
                e = table[some]
            else:
                e = np.take(table, rows[some], axis=0, out=x[some] if keep else None, mode="clip")
            hidden = np.matmul(e, net.hidden.T, out=z[some] if keep else None)
            _bend(hidden, net.hidden_bias, np.float32(net.slope))
            np.matmul(hidden, net.out.T, out=out[some])
            out[some] += net.out_bias

    over_parts(take, count, least=LEAST)
    return out, Passed(x, z) if keep else None


def backward(gradient: Single, passed: Passed, net: Perceptron) -> tuple[Single, Single, Single, Single]:
    """The gradients by W1, b1, W2 and b2; gradient [R, d] is that by h."""
    parts: dict[int, list[Single]] = {}

    def take(part: int, first: int, last: int) -> None:
        total: list[Single] = []
        for start in range(first, last, CHUNK):
            some = slice(start, min(start + CHUNK, last))
            g, z = gradient[some], passed.hidden[some]
            behind = g @ net.out
            by_bias = np.zeros(len(net.hidden), np.float32)
            _unbend(behind, z, np.float32(net.slope), by_bias)
            found = [behind.T @ passed.rows[some], by_bias, g.T @ z, g.sum(axis=0)]
            total = [a + b for a, b in zip(total, found, strict=True)] if total else found
        parts[part] = total

    over_parts(take, len(gradient), least=LEAST)
    sums = [sum(each[1:], start=each[0]) for each in zip(*(parts[n] for n in sorted(parts)), strict=True)]
    if not sums:
        sums = [np.zeros_like(array) for array in (net.hidden, net.hidden_bias, net.out, net.out_bias)]
    return sums[0], sums[1], sums[2], sums[3]


@njit(cache=True, nogil=True)
def _bend(hidden: Any, bias: Any, slope: Any) -> None:
    """hidden = leaky(hidden + bias), in place."""
    for r in range(hidden.shape[0]):
        for c in range(hidden.shape[1]):
            value = hidden[r, c] + bias[c]
            hidden[r, c] = value if value > 0 else slope * value


@njit(cache=True, nogil=True)
def _unbend(behind: Any, hidden: Any, slope: Any, by_bias: Any) -> None:
    """The gradient before the bend, in place, and its column sums, added to by_bias."""
    for r in range(behind.shape[0]):
        for c in range(behind.shape[1]):
            value = behind[r, c] if hidden[r, c] > 0 else slope * behind[r, c]
            behind[r, c] = value
            by_bias[c] += value

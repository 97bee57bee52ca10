"""The one way a pair is scored, whoever asks: topk, rank, any backend.

    score(x, y) = float32( dot(x, y) * (a * b) ),     dot in float64, in a fixed order of summation

with a = b = 1 for an inner product and a = 1 / |x|, b = 1 / |y| for a cosine. The product of two float32
numbers is exact in float64, so a fused multiply-add and a plain one agree, and the order of summation below
is all there is to fix: the same pair gives the same bits in NumPy, Numba and Triton, in any block, on any
number of threads. Equal rows therefore tie, and ties go to the lower id.

A fast product (float32, bfloat16, int8) may say which pairs are worth scoring, under a proven bound of its
error; it never supplies a score. `float32_error` is that bound for a float32 product.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

LANES = 8
# Half of the last float32 step above zero, and the step that flushing to zero would make of it.
TINY = 2.0**-149
FLUSHED = 2.0**-126


@njit(cache=True, nogil=True, error_model="numpy")
def dot(x: NDArray[np.float32], y: NDArray[np.float32]) -> float:
    """Inner product in float64: eight interleaved sums, folded by halves, then the tail.

    Args:
        x: float32, shape (d,), contiguous.
        y: float32, shape (d,), contiguous.
    """
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
    whole = len(x) - len(x) % LANES
    for j in range(0, whole, LANES):
        s0 += np.float64(x[j]) * np.float64(y[j])
        s1 += np.float64(x[j + 1]) * np.float64(y[j + 1])
        s2 += np.float64(x[j + 2]) * np.float64(y[j + 2])
        s3 += np.float64(x[j + 3]) * np.float64(y[j + 3])
        s4 += np.float64(x[j + 4]) * np.float64(y[j + 4])
        s5 += np.float64(x[j + 5]) * np.float64(y[j + 5])
        s6 += np.float64(x[j + 6]) * np.float64(y[j + 6])
        s7 += np.float64(x[j + 7]) * np.float64(y[j + 7])
    total = ((s0 + s4) + (s2 + s6)) + ((s1 + s5) + (s3 + s7))
    for j in range(whole, len(x)):
        total += np.float64(x[j]) * np.float64(y[j])
    return total


def dot_reference(x: NDArray[np.float32], y: NDArray[np.float32]) -> NDArray[np.float64]:
    """`dot` of every row of x with every row of y in plain NumPy, the same bits; float64, shape (Q, I).

    Args:
        x: float32, shape (Q, d).
        y: float32, shape (I, d).
    """
    q, t = x.astype(np.float64)[:, None, :], y.astype(np.float64)[None, :, :]
    whole = x.shape[1] - x.shape[1] % LANES
    lanes = np.zeros((len(x), len(y), LANES))  # [Q, I, LANES]
    for j in range(0, whole, LANES):
        lanes += q[..., j : j + LANES] * t[..., j : j + LANES]
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    total: NDArray[np.float64] = lanes[..., 0]
    for j in range(whole, x.shape[1]):
        total = total + q[..., j] * t[..., j]
    return total


def norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """|row|, by `dot`; float64, shape (N,)."""
    squares = np.empty(len(vectors))
    _squares(vectors, squares)
    return np.sqrt(squares, out=squares)


def inverse_norms(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / |row|, and 0 for a zero row, which has no cosine with anything; float64, shape (N,)."""
    lengths = norms(vectors)
    return np.divide(1.0, lengths, out=np.zeros(len(vectors)), where=lengths > 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _squares(vectors: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    for i in range(len(vectors)):
        out[i] = dot(vectors[i], vectors[i])


def float32_error(d: int) -> float:
    """Bound of |float32 product - score| for rows of norm at most 1, whatever the order of summation.

    A float32 sum of d products is off by at most gamma_d |x||y| with gamma_n = n u / (1 - n u), u = 2^-24
    (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1: any order, fused or not).
    Eight more roundings stand for: scaling x and y, the score to float32, the bar it is compared with to
    float32, and as many again for norms that exceed 1 by those roundings and the float64 arithmetic.
    """
    n = (d + 8) * 2.0**-24
    return n / (1.0 - n) if n < 0.5 else float("inf")


def as_unit(vectors: NDArray[np.float32], scale: NDArray[np.float64], out: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows times their scale (N,), in float64, rounded into `out`; float32, shape (N, d)."""
    np.multiply(vectors, scale[:, None], out=out, casting="same_kind")
    return out

"""Item vectors in two bytes per coordinate, the higher ones apart, that bound an inner product for less memory traffic.

With p~ = s_u c_u in int16, q~ = s_i c_i in int8, and q~ = s_i (c_i + c'_i / 256) where that is not enough,

    p.q - p~.q~ = p.(q - q~) + (p - p~).q~,   so   |p.q - p~.q~| <= |p| |q - q~| + |p - p~| |q~|

The integer sums are exact. A pair whose bound lies on one side of what it is compared with needs no score. The first
bytes settle most pairs, the second ones all but some in ten thousand.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import chunks, parallel_for

_LINE = 64  # bytes of a cache line, to which rows are padded
_LARGEST = 127
_UPWARD = 1.0 + 1e-9  # float64 sums are off by far less
_ROUNDED = 1e-14  # of a center, some float64 roundings
_ROWS = 4_096  # encoded at a time, by a thread


class Int8Rows(NamedTuple):
    """Encoded rows; a tuple, because compiled code takes it as it is.

    Attributes:
        codes: int8 [I, width], c; no rows where scores are to be made at once.
        fine_codes: int8 [I, width], c'.
        steps: float64 [I], worth of 1 in a row's codes.
        errors: float64 [I, 2], bounds of |row - its code|, by the first byte and by both.
        norms: float64 [I], bound of |row|.
    """

    codes: NDArray[np.int8]
    fine_codes: NDArray[np.int8]
    steps: NDArray[np.float64]
    errors: NDArray[np.float64]
    norms: NDArray[np.float64]


def encode(vectors: NDArray[np.float32], max_bytes: int) -> Int8Rows:
    """Return the rows in int8, or no rows where they take more than `max_bytes`."""
    n, d = vectors.shape
    width = -(-d // _LINE) * _LINE
    if d == 0 or table_bytes(n, d) > max_bytes or _largest_code(width) < _LARGEST:
        n, width = 0, 0
    codes, fine_codes = (np.zeros((n, width), np.int8) for _ in range(2))
    rows = Int8Rows(codes, fine_codes, np.empty(n), np.empty((n, 2)), np.empty(n))
    parallel_for(lambda start, stop: _encode_rows(vectors, start, stop, rows), chunks(n, _ROWS))
    return rows


def table_bytes(n: int, d: int) -> int:
    """Return the bytes of n encoded rows of d coordinates."""
    return n * (2 * -(-d // _LINE) * _LINE + 32)


@jit
def encode_user(users: Any, u: Any, codes: Any, bounds: Any, p: Any) -> None:
    """Encode row u of `users` into row p of codes int16 [., width]; bounds[p] are the step, the error and the norm."""
    most = _largest_code(codes.shape[1])
    step = _step(users, u, most)
    lost, square = 0.0, 0.0
    for j in range(users.shape[1]):
        value = np.float64(users[u, j])
        rounded = np.rint(value / step) if step > 0 else 0.0
        codes[p, j] = int(rounded)
        lost += (value - rounded * step) ** 2
        square += value * value
    bounds[p, 0], bounds[p, 1], bounds[p, 2] = step, np.sqrt(lost) * _UPWARD, np.sqrt(square) * _UPWARD


@jit
def bound_dot(codes: Any, bounds: Any, p: Any, rows: Any, i: Any) -> tuple[float, float]:
    """Return (center, radius): the inner product of encoded user p and row i is at most `radius` off `center`."""
    center = bounds[p, 0] * rows.steps[i] * _code_dot(codes, p, rows.codes, i)
    return center, _radius(bounds, p, rows, i, rows.errors[i, 0], center)


@jit
def refine_dot(codes: Any, bounds: Any, p: Any, rows: Any, i: Any, center: Any) -> tuple[float, float]:
    """Return the bound by both bytes, from the center of the bound by the first."""
    center += bounds[p, 0] * rows.steps[i] * (_code_dot(codes, p, rows.fine_codes, i) / 256.0)
    return center, _radius(bounds, p, rows, i, rows.errors[i, 1], center)


@jit
def _code_dot(left: Any, p: Any, right: Any, i: Any) -> float:
    total = np.int32(0)  # each step cast, or Numba would widen it
    for j in range(left.shape[1]):
        total = np.int32(total + np.int32(np.int32(left[p, j]) * np.int32(right[i, j])))
    return float(total)


@jit
def _radius(bounds: Any, p: Any, rows: Any, i: Any, error: Any, center: Any) -> float:
    radius = bounds[p, 2] * error + bounds[p, 1] * (rows.norms[i] + error)
    return float(radius * _UPWARD + abs(center) * _ROUNDED)


@jit
def _largest_code(width: Any) -> int:
    """Return the largest code of a user whose sums stay within int32."""
    return int(min(32_767, (2**31 - 1) // (128 * max(width, 1))))


@jit
def _step(vectors: Any, i: Any, most: Any) -> float:
    largest = np.float32(0)
    for j in range(vectors.shape[1]):
        largest = max(largest, abs(vectors[i, j]))
    return float(np.float64(largest) / most)


@njit(cache=True, nogil=True, error_model="numpy")
def _encode_rows(vectors: Any, start: Any, stop: Any, rows: Any) -> None:
    for i in range(start, stop):
        _encode_row(vectors, i, rows)


@jit
def _encode_row(vectors: Any, i: Any, rows: Any) -> None:
    step = _step(vectors, i, _LARGEST)
    lost, lost_by_both, square = 0.0, 0.0, 0.0
    for j in range(vectors.shape[1]):
        value = np.float64(vectors[i, j])
        code = np.rint(value / step) if step > 0 else 0.0
        off = value - code * step
        fine = min(max(np.rint(off / step * 256.0), -128.0), 127.0) if step > 0 else 0.0
        rows.codes[i, j], rows.fine_codes[i, j] = int(code), int(fine)
        lost += off * off
        lost_by_both += (off - fine * step / 256.0) ** 2
        square += value * value
    rows.steps[i], rows.norms[i] = step, np.sqrt(square) * _UPWARD
    rows.errors[i, 0], rows.errors[i, 1] = np.sqrt(lost) * _UPWARD, np.sqrt(lost_by_both) * _UPWARD

"""Item vectors in two bytes per coordinate that bound an inner product for half the memory traffic of float32.

With p~ = s_u c_u and q~ = s_i c_i, c in int16,

    p.q - p~.q~ = p.(q - q~) + (p - p~).q~,   so   |p.q - p~.q~| <= |p| |q - q~| + |p - p~| |q~|

A pair whose bound lies on one side of what it is compared with needs no score; of a thousand, one or two do.

Before, each column of q is divided by a power of two near its size, and that of p multiplied by it: p.q stays, and a
column of large numbers does not take the resolution of the others. The norm of a code is at most 2^15.5, so the sums
of c_u c_i, and all their partial sums, are below 2^31 by Cauchy and Schwarz: they are exact in int32.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import jit, prefetch
from mllmrec_kernels.base.parallel import chunks, parallel_for

_LANES = 64  # of a step of the loop that multiplies codes, to which rows are padded
_LINE = 32  # codes of a cache line
_PREFETCHED = 4  # lines of a row
_LARGEST = 32_767.0
_NORM = 46_000.0  # of a code before it is rounded: 2^15.5 less what rounding adds to the norm of 400,000 columns
_UPWARD = 1.0 + 1e-9  # float64 sums are off by far less
_ROUNDED = 1e-14  # of a center, some float64 roundings
_ROWS = 4_096  # encoded at a time, by a thread


class CodedRows(NamedTuple):
    """Encoded rows; a tuple, because compiled code takes it as it is.

    Attributes:
        codes: int16 [I, width], c; no rows where scores are to be made at once.
        bounds: float64 [I, 3], the worth of 1 in a row's codes, a bound of |row - its code|, and one of |row|.
        sizes: float64 [d], the powers of two that the columns were divided by.
    """

    codes: NDArray[np.int16]
    bounds: NDArray[np.float64]
    sizes: NDArray[np.float64]


def encode(vectors: NDArray[np.float32], max_bytes: int) -> CodedRows:
    """Return the rows in int16, or no rows where they take more than `max_bytes`."""
    n, d = vectors.shape
    width = -(-d // _LANES) * _LANES
    if d == 0 or table_bytes(n, d) > max_bytes:
        n, width = 0, 0
    rows = CodedRows(np.zeros((n, width), np.int16), np.empty((n, 3)), _column_sizes(vectors[:n]))
    parallel_for(lambda start, stop: _encode_rows(vectors, start, stop, rows), chunks(n, _ROWS))
    return rows


def table_bytes(n: int, d: int) -> int:
    """Return the bytes of n encoded rows of d coordinates."""
    return n * (2 * -(-d // _LANES) * _LANES + 24)


def _column_sizes(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the power of two nearest to the root mean square of each column, 1 for a column of zeros."""
    squares = np.einsum("ij,ij->j", vectors, vectors, dtype=np.float64) / max(1, len(vectors))
    exponents = np.rint(np.log2(squares, out=np.zeros_like(squares), where=squares > 0) / 2)
    return np.asarray(np.exp2(exponents))


@jit
def encode_user(users: Any, u: Any, sizes: Any, codes: Any, bounds: Any, p: Any) -> None:
    """Encode row u of `users` into row p of `codes`.

    Args:
        users: float32 [U, d].
        u: the row.
        sizes: of the items' columns, float64 [d].
        codes: int16 [., width], written.
        bounds: float64 [., 3], written: step, error and norm.
        p: the row that is written.
    """
    largest, square = 0.0, 0.0
    for j in range(users.shape[1]):
        value = np.float64(users[u, j]) * sizes[j]
        largest = max(largest, abs(value))
        square += value * value
    step, lost = _step(largest, square), 0.0
    for j in range(users.shape[1]):
        value = np.float64(users[u, j]) * sizes[j]
        rounded = np.rint(value / step) if step > 0 else 0.0
        codes[p, j] = int(rounded)
        lost += (value - rounded * step) ** 2
    bounds[p, 0], bounds[p, 1], bounds[p, 2] = step, np.sqrt(lost) * _UPWARD, np.sqrt(square) * _UPWARD


@jit
def bound_dot(codes: Any, bounds: Any, p: Any, rows: Any, i: Any) -> tuple[float, float]:
    """Return (center, radius): the inner product of encoded user p and row i is at most `radius` off `center`."""
    step, error, norm = rows.bounds[i, 0], rows.bounds[i, 1], rows.bounds[i, 2]
    center = bounds[p, 0] * step * _code_dot(codes, p, rows.codes, i)
    radius = bounds[p, 2] * error + bounds[p, 1] * (norm + error)
    return center, float(radius * _UPWARD + abs(center) * _ROUNDED)


@jit
def prefetch_row(rows: Any, i: Any) -> None:
    """Prefetch the start of row i; the processor follows."""
    for line in range(_PREFETCHED):
        prefetch(rows.codes, np.int64(i) * rows.codes.shape[1] + line * _LINE)


@jit
def _code_dot(left: Any, p: Any, right: Any, i: Any) -> float:
    total = np.int32(0)  # each step cast, or Numba would widen it
    for j in range(left.shape[1]):
        total = np.int32(total + np.int32(np.int32(left[p, j]) * np.int32(right[i, j])))
    return float(total)


@jit
def _step(largest: Any, square: Any) -> float:
    """Return the worth of 1 in the codes of a row with this largest number and this sum of squares."""
    return float(max(largest / _LARGEST, np.sqrt(square) / _NORM))


@njit(cache=True, nogil=True, error_model="numpy")
def _encode_rows(vectors: Any, start: Any, stop: Any, rows: Any) -> None:
    for i in range(start, stop):
        _encode_row(vectors, i, rows)


@jit
def _encode_row(vectors: Any, i: Any, rows: Any) -> None:
    largest, square = 0.0, 0.0
    for j in range(vectors.shape[1]):
        value = np.float64(vectors[i, j]) / rows.sizes[j]
        largest = max(largest, abs(value))
        square += value * value
    step, lost = _step(largest, square), 0.0
    for j in range(vectors.shape[1]):
        value = np.float64(vectors[i, j]) / rows.sizes[j]
        code = np.rint(value / step) if step > 0 else 0.0
        rows.codes[i, j] = int(code)
        lost += (value - code * step) ** 2
    rows.bounds[i, 0], rows.bounds[i, 1], rows.bounds[i, 2] = step, np.sqrt(lost) * _UPWARD, np.sqrt(square) * _UPWARD

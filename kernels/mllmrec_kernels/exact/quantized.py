"""Rows as int8: laid out for the tile, with a bound of what each lost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.base.parallel import over_chunks
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS
from mllmrec_kernels.exact.plan import LARGEST, Plan
from mllmrec_kernels.exact.score import as_unit

PANEL = 5 * ROWS * COLUMNS // DEPTH  # 480 rows: whole in tiles of 12 rows and of 32 columns
_UPWARD = 1.0 + 1e-9  # float64 sums of squares are off by far less
_CHUNK = 960  # rows turned at a time, by a thread


class Packed(NamedTuple):
    """A block of rows; a tuple, so that compiled code takes it as it is.

    Attributes:
        ids: int32 [R], which row of the whole each is; -1 for the rows that fill up the last panel.
        left: int8 [R * stride], the coordinates multiplied for every pair, as the tile's rows.
        starts: int32 [R], what the tile's sums start from.
        right: uint8 [R * stride], the same as the tile's columns.
        rest: int8 [R, d - m], the other coordinates.
        height: int32 [R], h: |r| <= sqrt(spares) h scale.
        low: float64 [R], norm of the second bytes, z' = scale q' / 256; 0 where there are none.
        near: float64 [R], bound of |p - its int8|.
        off: float64 [R], bound of |z - its int8|.
        length: float64 [R], bound of |z| and of its int8's norm.
        unit, slack: float64 [R], the row's own of the request (ask.py).
        margin: float64 [R], what to take off a bar before it is compared with a tile's sum.
        bars: int32 [R], the least sum of a tile with which the row's list may take a pair.
    """

    ids: NDArray[np.int32]
    left: NDArray[np.int8]
    starts: NDArray[np.int32]
    right: NDArray[np.uint8]
    rest: NDArray[np.int8]
    height: NDArray[np.int32]
    low: NDArray[np.float64]
    near: NDArray[np.float64]
    off: NDArray[np.float64]
    length: NDArray[np.float64]
    unit: NDArray[np.float64]
    slack: NDArray[np.float64]
    margin: NDArray[np.float64]
    bars: NDArray[np.int32]


def row_bytes(plan: Plan, d: int) -> int:
    """Bytes that a packed row takes."""
    return 2 * plan.stride + (d - plan.prefix) + 4 * 4 + 7 * 8


def chunk_bytes(d: int) -> int:
    """Bytes that packing takes for itself."""
    return 4 * 4 * _CHUNK * d * get_num_threads()


def padded(rows: int) -> int:
    """`rows` filled up to whole panels."""
    return -(-rows // PANEL) * PANEL


def empty(rows: int, d: int, plan: Plan, *, as_rows: bool = True) -> Packed:
    """Room for `rows` rows; with `as_rows=False`, for use as the tile's columns alone."""
    size = padded(rows)
    return Packed(
        np.full(size, -1, np.int32),
        np.zeros(size * plan.stride if as_rows else 0, np.int8),
        np.zeros(size, np.int32),
        np.zeros(size * plan.stride, np.uint8),
        np.zeros((size, d - plan.prefix), np.int8),
        np.zeros(size, np.int32),
        low=np.zeros(size),
        near=np.zeros(size),
        off=np.zeros(size),
        length=np.zeros(size),
        unit=np.zeros(size),
        slack=np.zeros(size),
        margin=np.zeros(size),
        bars=np.zeros(size, np.int32),
    )


def pack(
    room: Packed,
    vectors: NDArray[np.float32],
    scale: NDArray[np.float64],
    scored: NDArray[np.float64],
    rows: NDArray[np.int32],
    plan: Plan,
    step: float,
) -> Packed:
    """Rows `rows` of `vectors`, times their `scale`, into `room`; `step` is one step of int8, `scored` a or b."""
    size = padded(len(rows))
    parts: Any = (part[: size * (len(part) // len(room.ids))] for part in room)
    made = Packed(*parts)
    # A row without a score, one of zeros under a cosine, is nobody's: as the rows that fill the last panel.
    made.ids[: len(rows)] = np.where(scored[rows] != 0.0, rows, -1)
    made.ids[len(rows) :] = -1
    d = vectors.shape[1]

    def pack_chunk(start: int, stop: int) -> None:
        part = rows[start:stop]
        if plan.axes is None:  # straight from where they lie
            source, picked, factor = vectors, part, scale
        else:
            source = plan.turn(as_unit(vectors[part], scale[part], np.empty((len(part), d), np.float32)))
            picked, factor = np.arange(len(part), dtype=np.int32), np.broadcast_to(np.float64(1), (len(part),))
        _quantise(source, picked, factor, start, plan.prefix, plan.fine, plan.spares, step, made)

    over_chunks(pack_chunk, len(rows), _CHUNK, least=8)
    # The rows that fill the last panel: their sums are 0.
    fillers = np.full(size - len(rows), -1, np.int32)
    _quantise(vectors, fillers, scale, len(rows), plan.prefix, plan.fine, plan.spares, step, made)
    return made


@njit(cache=True, nogil=True, error_model="numpy")
def _quantise(
    source: Any, picked: Any, factor: Any, at: Any, m: Any, fine: Any, spares: Any, step: Any, out: Any
) -> None:
    """Pack the picked rows of `source` times their factor, zeros for -1, from row `at` on."""
    stride = len(out.right) // len(out.ids)
    z, left, right = np.zeros(source.shape[1], np.float32), np.zeros(stride, np.int8), np.zeros(stride, np.int8)
    for r in range(len(picked)):
        pick = picked[r]
        for j in range(len(z)):
            z[j] = np.float32(source[pick, j] * factor[pick]) if pick >= 0 else np.float32(0)
        if fine:
            _quantise_row_fine(z, at + r, step, left, right, out)
            _lay_out(left, right, at + r, out)
        else:
            _quantise_row(z, at + r, m, spares, step, left, out)
            _lay_out(left, left, at + r, out)


# Sums of squares in any order: _UPWARD covers it.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _quantise_row(z: Any, row: Any, m: Any, spares: Any, step: Any, codes: Any, out: Any) -> None:
    """Round one row's coordinates to int8, and bound what it lost."""
    rest = out.rest
    total, height = 0, 0
    near = lost = first = others = rounded = 0.0
    for j in range(m):
        q = _rounded(z[j], step)
        near += (z[j] - q * step) ** 2
        first += np.float64(z[j]) ** 2
        rounded += (q * step) ** 2
        total += q
        codes[j] = q
    for j in range(m, len(z)):
        q = _rounded(z[j], step)
        lost += (z[j] - q * step) ** 2
        others += np.float64(z[j]) ** 2
        rounded += (q * step) ** 2
        rest[row, j - m] = q
    if spares:
        height = int(np.ceil(_UPWARD * np.sqrt(others / spares) / step))
        codes[len(codes) - spares :] = height
        total += spares * height
    out.starts[row] = -128 * total
    out.height[row] = height
    out.low[row] = 0.0
    out.near[row] = _UPWARD * np.sqrt(near)
    out.off[row] = _UPWARD * np.sqrt(near + lost)
    out.length[row] = _UPWARD * np.sqrt(max(first + others, rounded))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _quantise_row_fine(z: Any, row: Any, step: Any, left: Any, right: Any, out: Any) -> None:
    """Two bytes a coordinate: the left side holds q, q', q in turn, the right one q, q, q'."""
    width = len(left) // 3
    upper, lower = 0, 0
    off = low = length = rounded = 0.0
    for j in range(len(z)):
        q = _rounded(z[j], step)
        rest = _rounded((z[j] - q * step) * 256, step)
        made = (q + rest / 256) * step
        off += (z[j] - made) ** 2
        low += (rest * step / 256) ** 2
        length += np.float64(z[j]) ** 2
        rounded += made**2
        upper, lower = upper + q, lower + rest
        left[j], left[width + j], left[2 * width + j] = q, rest, q
        right[j], right[width + j], right[2 * width + j] = q, q, rest
    out.starts[row] = np.int32(-128 * (256 * upper + upper + lower))
    out.height[row] = 0
    out.low[row] = _UPWARD * np.sqrt(low)
    out.near[row] = out.off[row] = _UPWARD * np.sqrt(off)
    out.length[row] = _UPWARD * np.sqrt(max(length, rounded))


@compiled
def _rounded(value: Any, step: Any) -> int:
    return int(min(max(np.rint(value / step), -LARGEST), LARGEST))


@compiled
def _lay_out(left: Any, right: Any, row: Any, out: Any) -> None:
    """One row in both layouts of the tile."""
    rows, columns, stride = out.left, out.right, len(left)
    if len(rows):
        for j in range(stride):
            rows[row * stride + j] = left[j]
    first = row // COLUMNS * stride * COLUMNS + row % COLUMNS * DEPTH
    for group in range(stride // DEPTH):
        for byte in range(DEPTH):
            columns[first + group * COLUMNS * DEPTH + byte] = right[group * DEPTH + byte] + 128

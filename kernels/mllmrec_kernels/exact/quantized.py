"""Rows as int8, laid out for the tile, with bounds of what each row lost."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Float64Array, Int8Array, Int32Array
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.exact.int8_tile import COLUMNS, DEPTH, ROWS
from mllmrec_kernels.exact.plan import MAX_CODE, RotationPlan
from mllmrec_kernels.exact.score import unit_rows

PANEL = 5 * ROWS * COLUMNS // DEPTH  # 480 rows: whole in tiles of 12 rows and of 32 columns
_UPWARD = 1.0 + 1e-9  # float64 sums of squares are off by far less
_CHUNK = 960  # rows rotated at a time, by a thread


class QuantizedRows(NamedTuple):
    """A block of rows; a tuple, because compiled code takes it as it is.

    A row z has the coordinates p that every pair is multiplied on, and the others, r.

    Attributes:
        ids: int32 [R], each row's number in the whole; -1 for the rows that fill the last panel.
        row_codes: int8 [R * stride], the codes of p as the tile's rows.
        sum_offsets: int32 [R], start values of the tile's sums.
        column_codes: uint8 [R * stride], the codes of p as the tile's columns.
        tail_codes: int8 [R, d - m], the codes of r.
        tail_scale: int32 [R], h with |r| <= sqrt(tail_bytes) h step.
        low_norm: float64 [R], norm of the second bytes, z' = step q' / 256; 0 if there are none.
        head_rounding: float64 [R], bound of |p - its int8|.
        rounding: float64 [R], bound of |z - its int8|.
        norm: float64 [R], bound of |z| and of its int8's norm.
        score_unit: float64 [R], the problem's value for the row.
        margin: float64 [R], subtracted from score / score_unit before it is compared with a tile's sum.
        thresholds: int32 [R], least tile sum with which a pair may enter the row's list.
    """

    ids: NDArray[np.int32]
    row_codes: NDArray[np.int8]
    sum_offsets: NDArray[np.int32]
    column_codes: NDArray[np.uint8]
    tail_codes: NDArray[np.int8]
    tail_scale: NDArray[np.int32]
    low_norm: NDArray[np.float64]
    head_rounding: NDArray[np.float64]
    rounding: NDArray[np.float64]
    norm: NDArray[np.float64]
    score_unit: NDArray[np.float64]
    margin: NDArray[np.float64]
    thresholds: NDArray[np.int32]

    def panels(self, start: int, stop: int) -> QuantizedRows:
        """Return views of the rows start to stop, both whole numbers of panels."""
        fields: Any = self
        views: Any = (field[start * n : stop * n] for field, n in zip(fields, self._entries_per_row(), strict=True))
        return QuantizedRows(*views)

    def take(self, rows: NDArray[np.int64]) -> QuantizedRows:
        """Copy some rows of a block without `column_codes`, filled up to whole panels with rows of id -1."""
        picked = np.concatenate([rows, np.zeros(padded(len(rows)) - len(rows), np.int64)])
        fields: Any = self
        copies: Any = (
            field.reshape(len(self.ids), n, *field.shape[1:])[picked].reshape(len(picked) * n, *field.shape[1:])
            for field, n in zip(fields, self._entries_per_row(), strict=True)
        )
        block = QuantizedRows(*copies)
        block.ids[len(rows) :] = -1
        return block

    def _entries_per_row(self) -> list[int]:
        return [len(field) // len(self.ids) for field in self]


def row_bytes(plan: RotationPlan, d: int, *, layouts: int = 2) -> int:
    """Count the bytes of a quantized row that is laid out as the tile's row, as its column, or as both.

    Args:
        plan: axes and scales.
        d: columns of a row.
        layouts: 1 or 2.
    """
    return layouts * plan.stride + (d - plan.prefix) + 4 * 4 + 6 * 8


def chunk_bytes(d: int) -> int:
    """Count the bytes of working memory that `quantize` takes."""
    return 4 * 4 * _CHUNK * d * get_num_threads()


def padded(rows: int) -> int:
    """Round a number of rows up to whole panels."""
    return -(-rows // PANEL) * PANEL


def allocate(rows: int, d: int, plan: RotationPlan, *, as_rows: bool = True, as_columns: bool = True) -> QuantizedRows:
    """Allocate memory for quantized rows.

    Args:
        rows: largest number of rows of a block.
        d: columns of a row.
        plan: axes and scales.
        as_rows: make `row_codes`; False for blocks that serve only as the tile's columns.
        as_columns: make `column_codes`; False for blocks that serve only as the tile's rows.
    """
    size = padded(rows)
    return QuantizedRows(
        ids=np.full(size, -1, np.int32),
        row_codes=np.zeros(size * plan.stride if as_rows else 0, np.int8),
        sum_offsets=np.zeros(size, np.int32),
        column_codes=np.zeros(size * plan.stride if as_columns else 0, np.uint8),
        tail_codes=np.zeros((size, d - plan.prefix), np.int8),
        tail_scale=np.zeros(size, np.int32),
        low_norm=np.zeros(size),
        head_rounding=np.zeros(size),
        rounding=np.zeros(size),
        norm=np.zeros(size),
        score_unit=np.zeros(size),
        margin=np.zeros(size),
        thresholds=np.zeros(size, np.int32),
    )


def quantize(
    memory: QuantizedRows,
    vectors: NDArray[np.float32],
    scale: NDArray[np.float64],
    weights: NDArray[np.float64],
    rows: NDArray[np.int32],
    plan: RotationPlan,
    step: float,
) -> QuantizedRows:
    """Quantize a block of rows into allocated memory.

    Args:
        memory: from `allocate`, for at least as many rows.
        vectors: float32 [N, d].
        scale: float64 [N], makes rows of norm at most 1.
        weights: float64 [N], of the problem; a row of weight 0 has no score.
        rows: int32 [R], the block's rows of `vectors`.
        plan: axes and number of coordinates.
        step: worth of one step of int8.

    Returns:
        Views of `memory` for the block, filled up to whole panels with rows of id -1.
    """
    size = padded(len(rows))
    views: Any = (field[: size * (len(field) // len(memory.ids))] for field in memory)
    block = QuantizedRows(*views)
    # A row without a score, a zero row under a cosine, gets id -1, as the rows that fill the last panel.
    block.ids[: len(rows)] = np.where(weights[rows] != 0.0, rows, -1)
    block.ids[len(rows) :] = -1

    shape = plan.prefix, plan.stride, plan.two_bytes, plan.tail_bytes

    def _quantize_chunk(start: int, stop: int) -> None:
        chunk = rows[start:stop]
        if plan.axes is None:  # straight from where they lie
            source, picked, factor = vectors, chunk, scale
        else:
            source = plan.rotate(unit_rows(vectors[chunk], scale[chunk]))
            picked, factor = np.arange(len(chunk), dtype=np.int32), np.broadcast_to(np.float64(1), (len(chunk),))
        quantize_rows(source, picked, factor, start, *shape, step, block)

    parallel_for(_quantize_chunk, chunks(len(rows), _CHUNK), min_spans=8)
    # The rows that fill the last panel: their sums are 0.
    fillers = np.full(size - len(rows), -1, np.int32)
    quantize_rows(vectors, fillers, scale, len(rows), *shape, step, block)
    return block


@njit(cache=True, nogil=True, error_model="numpy")
def quantize_rows(
    source: Float32Array, picked: Int32Array, factor: Float64Array, at: int, m: int, stride: int, two_bytes: bool,
    tail_bytes: int, step: float, out: QuantizedRows,
) -> None:  # fmt: skip
    """Quantize the picked rows of `source` times their factor, zeros for -1, to row `at` on.

    Args:
        source: float32 [N, d].
        picked: int32 [R], rows of `source`.
        factor: float64 [N].
        at: first row of `out`.
        m: coordinates that every pair is multiplied on.
        stride: bytes of a row in the tile.
        two_bytes: take two bytes per coordinate.
        tail_bytes: bytes that hold the norm of the others.
        step: worth of one step of int8.
        out: written.
    """
    z, left, right = np.zeros(source.shape[1], np.float32), np.zeros(stride, np.int8), np.zeros(stride, np.int8)
    for r in range(len(picked)):
        pick = picked[r]
        for j in range(len(z)):
            z[j] = np.float32(source[pick, j] * factor[pick]) if pick >= 0 else np.float32(0)
        if two_bytes:
            _quantize_two_bytes(z, at + r, step, left, right, out)
            _lay_out(left, right, at + r, out)
        else:
            _quantize_one_byte(z, at + r, m, tail_bytes, step, left, out)
            _lay_out(left, left, at + r, out)


# Sums of squares in any order: _UPWARD covers it.
@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _quantize_one_byte(
    z: Float32Array, row: int, m: int, tail_bytes: int, step: float, codes: Int8Array, out: QuantizedRows,
) -> None:  # fmt: skip
    """Round one row's coordinates to int8, and bound what it lost."""
    tail_codes = out.tail_codes
    total, tail_scale = 0, 0
    head_lost = tail_lost = head = tail = rounded = 0.0
    for j in range(m):
        q = _rounded(z[j], step)
        head_lost += (z[j] - q * step) ** 2
        head += np.float64(z[j]) ** 2
        rounded += (q * step) ** 2
        total += q
        codes[j] = q
    for j in range(m, len(z)):
        q = _rounded(z[j], step)
        tail_lost += (z[j] - q * step) ** 2
        tail += np.float64(z[j]) ** 2
        rounded += (q * step) ** 2
        tail_codes[row, j - m] = q
    if tail_bytes:
        tail_scale = int(np.ceil(_UPWARD * np.sqrt(tail / tail_bytes) / step))
        codes[len(codes) - tail_bytes :] = tail_scale
        total += tail_bytes * tail_scale
    out.sum_offsets[row] = -128 * total
    out.tail_scale[row] = tail_scale
    out.low_norm[row] = 0.0
    out.head_rounding[row] = _UPWARD * np.sqrt(head_lost)
    out.rounding[row] = _UPWARD * np.sqrt(head_lost + tail_lost)
    out.norm[row] = _UPWARD * np.sqrt(max(head + tail, rounded))


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _quantize_two_bytes(
    z: Float32Array, row: int, step: float, left: Int8Array, right: Int8Array, out: QuantizedRows,
) -> None:  # fmt: skip
    """Round one row to two bytes per coordinate: the left side holds q, q', q in turn, the right one q, q, q'."""
    width = len(left) // 3
    upper, lower = 0, 0
    lost = low = norm = rounded = 0.0
    for j in range(len(z)):
        q = _rounded(z[j], step)
        rest = _rounded((z[j] - q * step) * 256, step)
        value = (q + rest / 256) * step
        lost += (z[j] - value) ** 2
        low += (rest * step / 256) ** 2
        norm += np.float64(z[j]) ** 2
        rounded += value**2
        upper, lower = upper + q, lower + rest
        left[j], left[width + j], left[2 * width + j] = q, rest, q
        right[j], right[width + j], right[2 * width + j] = q, q, rest
    out.sum_offsets[row] = np.int32(-128 * (256 * upper + upper + lower))
    out.tail_scale[row] = 0
    out.low_norm[row] = _UPWARD * np.sqrt(low)
    out.head_rounding[row] = out.rounding[row] = _UPWARD * np.sqrt(lost)
    out.norm[row] = _UPWARD * np.sqrt(max(norm, rounded))


@jit
def _rounded(value: float, step: float) -> int:
    return int(min(max(np.rint(value / step), -MAX_CODE), MAX_CODE))


@jit
def _lay_out(left: Int8Array, right: Int8Array, row: int, out: QuantizedRows) -> None:
    """Write one row in those layouts of the tile that there is memory for."""
    rows, columns, stride = out.row_codes, out.column_codes, len(left)
    if len(rows):
        for j in range(stride):
            rows[row * stride + j] = left[j]
    if not len(columns):
        return
    first = row // COLUMNS * stride * COLUMNS + row % COLUMNS * DEPTH
    for group in range(stride // DEPTH):
        for byte in range(DEPTH):
            columns[first + group * COLUMNS * DEPTH + byte] = right[group * DEPTH + byte] + 128

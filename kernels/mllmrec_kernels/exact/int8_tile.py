"""The inner loop of every int8 product: 12 rows x 32 columns, summed and compared with thresholds in registers.

    sums[r, c] = starts[r] + 2^shift sum_{j < first} left[r, j] right[c, j] + sum_{j >= first} left[r, j] right[c, j]

with left int8, right uint8, sums int32, all exact. The shift is for rows of two bytes per coordinate (quantized.py).

AVX-512 VNNI multiplies 64 pairs of bytes an instruction. 24 accumulators, two vectors of columns and one
broadcast of four bytes of a row fill 27 of the 32 registers. The tile is compared with its thresholds before it
leaves them, so sums that no list takes are never written: N x N products cost no memory traffic.
The instruction needs an unsigned right side: a signed q is stored as q + 128, and starts[r] = -128 sum(left[r])
subtracts the 128s again.

`left` is row after row, `right` in groups of 32 columns: [group][depth / 4][32 columns][4 bytes].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils

from mllmrec_kernels.base.jit import CodeGenerator, intrinsic

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.context import Context
    from numba.core.typing.templates import Signature

Depth = tuple[int, int, int]  # of a product before the shift and in all, in groups of 4 bytes, and the shift

ROWS = 12
COLUMNS = 32
DEPTH = 4  # bytes of a row that one instruction multiplies

_LANES = 16
_VECTORS = COLUMNS // _LANES
_I16, _I32, _I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_I32, _LANES)
# Inline assembly, since the intrinsic's signature differs between the LLVM versions that Numba comes with.
_DOT = ir.InlineAsm(ir.FunctionType(_VECTOR, [_VECTOR] * 3), "vpdpbusd $3, $2, $0", "=v,0,v,v")
llvm.initialize_native_asmparser()


def supported() -> bool:
    """Tell if this processor has the instruction; without it the float32 product runs."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512bw") and features.get("avx512vl"))


class _Tile:
    """Builder of the instructions of one tile."""

    def __init__(
        self, context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value]
    ) -> None:
        self._context, self._types, self._arguments = context, signature.args, arguments
        self._b = builder

    def pointer(self, n: int) -> ir.Value:
        """Return the data pointer of array argument n."""
        return self._context.make_array(self._types[n])(self._context, self._b, self._arguments[n]).data

    def splat(self, value: ir.Value) -> ir.Value:
        """Repeat one int32 in all lanes."""
        one = self._b.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_I32, 0))
        zeros = ir.Constant(_VECTOR, [0] * _LANES)
        return self._b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

    def row_value(self, n: int, at: ir.Value, row: int) -> ir.Value:
        """Load an int32 into all lanes.

        Args:
            n: place of the array argument.
            at: first entry of the tile, an int64 of the code.
            row: entries after it.
        """
        return self.splat(self._b.load(self._b.gep(self.pointer(n), [self.offset(at, row)])))

    def vectors(self, n: int, at: ir.Value) -> list[ir.Value]:
        """Load 32 entries of int32 array argument n from `at` on."""
        start = self._b.bitcast(self._b.gep(self.pointer(n), [at]), _VECTOR.as_pointer())
        return [self._b.load(self._b.gep(start, [ir.Constant(_I64, v)]), align=4) for v in range(_VECTORS)]

    def offset(self, at: ir.Value, by: int) -> ir.Value:
        """Return at + by."""
        return self._b.add(at, ir.Constant(_I64, by))

    def product(self, left: int, starts: int, right: int, depth: int) -> list[ir.Value]:
        """Return the tile's sums, row by row, vector by vector.

        Args:
            left: place of the first argument of the left side: codes, row, stride.
            starts: place of the start values.
            right: place of the first argument of the right side: codes, offset.
            depth: place of the first argument of the depth: first, groups, shift.
        """
        b, arguments = self._b, self._arguments
        row, stride, at = arguments[left + 1], arguments[left + 2], arguments[right + 1]
        first, groups, shift = arguments[depth], arguments[depth + 1], arguments[depth + 2]
        # Stack slots that the optimiser turns into registers.
        sums = [cgutils.alloca_once_value(b, ir.Constant(_VECTOR, [0] * _LANES)) for _ in range(ROWS * _VECTORS)]
        rows = [
            b.bitcast(b.gep(self.pointer(left), [b.mul(self.offset(row, r), stride)]), _I32.as_pointer())
            for r in range(ROWS)
        ]
        columns = b.bitcast(b.gep(self.pointer(right), [at]), _VECTOR.as_pointer())
        with cgutils.for_range(b, first) as loop:
            self._multiply(sums, rows, columns, loop.index)
        by = self.splat(b.trunc(shift, _I32))
        for slot in sums:
            b.store(b.shl(b.load(slot), by), slot)
        with cgutils.for_range(b, groups, start=first) as loop:
            self._multiply(sums, rows, columns, loop.index)
        begun = [self.row_value(starts, row, r) for r in range(ROWS)]
        return [b.add(b.load(slot), begun[n // _VECTORS]) for n, slot in enumerate(sums)]

    def _multiply(self, sums: list[ir.Value], rows: list[ir.Value], columns: ir.Value, group: ir.Value) -> None:
        """Add four bytes of every row times those of every column."""
        b = self._b
        at = b.mul(group, ir.Constant(_I64, _VECTORS))
        loaded = [b.load(b.gep(columns, [self.offset(at, v)]), align=4) for v in range(_VECTORS)]
        for n, slot in enumerate(sums):
            if n % _VECTORS == 0:
                bytes_of_row = self.splat(b.load(b.gep(rows[n // _VECTORS], [group]), align=1))
            b.store(b.call(_DOT, [b.load(slot), loaded[n % _VECTORS], bytes_of_row]), slot)

    def count(
        self, found: list[ir.Value], row: ir.Value, *, entries: int, high: int, low: int, above: int
    ) -> list[ir.Value]:
        """Count one row's sums above each of its limits; return the masks of those between two of them.

        Args:
            found: the row's sums, a vector each.
            row: the row.
            entries: place of the row's first limit, and of the next row's.
            high: place of the upper limits.
            low: place of the lower limits.
            above: place of the counts.
        """
        b = self._b
        popcount = b.module.declare_intrinsic("llvm.ctpop", [_I16])
        near = [cgutils.alloca_once_value(b, ir.Constant(_I16, 0)) for _ in found]
        start, stop = (b.load(b.gep(self.pointer(entries), [self.offset(row, n)])) for n in range(2))
        with cgutils.for_range(b, stop, start=start) as loop:
            high_limit, low_limit = self.row_value(high, loop.index, 0), self.row_value(low, loop.index, 0)
            counter = b.gep(self.pointer(above), [loop.index])
            total = b.load(counter)
            for slot, value in zip(near, found, strict=True):
                over = b.bitcast(b.icmp_signed(">", value, high_limit), _I16)
                reached = b.bitcast(b.icmp_signed(">=", value, low_limit), _I16)
                total = b.add(total, b.zext(b.call(popcount, [over]), _I32))
                b.store(b.or_(b.load(slot), b.and_(reached, b.not_(over))), slot)
            b.store(total, counter)
        return [b.load(slot) for slot in near]

    def report(self, sums: list[ir.Value], masks: list[ir.Value], sums_out: int, masks_out: int) -> ir.Value:
        """Write sums and masks if any lane is set; return int32 1 if so, else 0.

        Args:
            sums: vectors of the tile's sums.
            masks: a mask for each vector.
            sums_out: place of the array for the sums.
            masks_out: place of the array for the masks.
        """
        b, any_lane = self._b, ir.Constant(_I16, 0)
        for mask in masks:
            any_lane = b.or_(any_lane, mask)
        hit = b.icmp_unsigned("!=", any_lane, ir.Constant(_I16, 0))
        with b.if_then(hit, likely=False):
            to_sums = b.bitcast(self.pointer(sums_out), _VECTOR.as_pointer())
            to_masks = b.bitcast(self.pointer(masks_out), _I16.as_pointer())
            for n, (total, mask) in enumerate(zip(sums, masks, strict=True)):
                b.store(total, b.gep(to_sums, [ir.Constant(_I64, n)]), align=4)
                b.store(mask, b.gep(to_masks, [ir.Constant(_I64, n)]), align=2)
        return b.zext(hit, _I32)


@intrinsic
def candidates(
    typing_context: Context, left: types.Array, row: types.Type, stride: types.Type, starts: types.Array,
    right: types.Array, at: types.Type, first: types.Type, groups: types.Type, shift: types.Type,
    row_thresholds: types.Array, column_thresholds: types.Array, column: types.Type, sums: types.Array,
    masks: types.Array,
) -> tuple[Signature, CodeGenerator]:  # fmt: skip
    """Find the sums that reach the threshold of their row or of their column.

    Args:
        typing_context: Numba's; a caller passes only the other arguments.
        left: int8 rows.
        row: the tile's first row.
        stride: bytes per row.
        starts: int32, one a row of `left`.
        right: uint8 columns.
        at: offset of the tile's group of 32 columns in `right`.
        first: the depth before the shift, / 4.
        groups: the depth in all, / 4.
        shift: the shift.
        row_thresholds: int32, one a row of `left`.
        column_thresholds: int32.
        column: the tile's first column in `column_thresholds`.
        sums: int32 (12 * 32,), written only if a threshold is reached.
        masks: uint32 (12,), likewise.

    Returns:
        int32, 1 if any sum reaches a threshold, else 0.
    """
    signature = types.int32(
        left, types.int64, types.int64, starts, right, types.int64, types.int64, types.int64, types.int64,
        row_thresholds, column_thresholds, types.int64, sums, masks,
    )  # fmt: skip

    def _generate(
        context: BaseContext, b: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value],
    ) -> ir.Value:  # fmt: skip
        tile = _Tile(context, b, signature, arguments)
        found = tile.product(left=0, starts=3, right=4, depth=6)
        columns = tile.vectors(10, arguments[11])
        hits = []
        for n, total in enumerate(found):
            threshold, other = tile.row_value(9, arguments[1], n // _VECTORS), columns[n % _VECTORS]
            lower = b.select(b.icmp_signed("<", threshold, other), threshold, other)
            hits.append(b.bitcast(b.icmp_signed(">=", total, lower), _I16))
        return tile.report(found, hits, sums_out=12, masks_out=13)

    return signature, _generate


@intrinsic
def count_above(
    typing_context: Context, left: types.Array, row: types.Type, stride: types.Type, starts: types.Array,
    right: types.Array, at: types.Type, first: types.Type, groups: types.Type, shift: types.Type, entries: types.Array,
    high: types.Array, low: types.Array, above: types.Array, sums: types.Array, masks: types.Array,
) -> tuple[Signature, CodeGenerator]:  # fmt: skip
    """Count the sums above each upper limit of their row, and find those between its two limits.

    Args:
        typing_context: Numba's; a caller passes only the other arguments.
        left: int8 rows.
        row: the tile's first row.
        stride: bytes per row.
        starts: int32, one a row of `left`.
        right: uint8 columns.
        at: offset of the tile's group of 32 columns in `right`.
        first: the depth before the shift, / 4.
        groups: the depth in all, / 4.
        shift: the shift.
        entries: int64, one a row of `left` and one more: the limits of row r are entries[r] to entries[r + 1].
        high: int32, upper limits.
        low: int32, lower limits.
        above: int32, one a limit, added to.
        sums: int32 (12 * 32,), written only if a sum lies between limits.
        masks: uint32 (12,), likewise.

    Returns:
        int32, 1 if any sum lies from the `low` to the `high` of its row, else 0.
    """
    signature = types.int32(
        left, types.int64, types.int64, starts, right, types.int64, types.int64, types.int64, types.int64,
        entries, high, low, above, sums, masks,
    )  # fmt: skip

    def _generate(
        context: BaseContext, b: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value],
    ) -> ir.Value:  # fmt: skip
        tile = _Tile(context, b, signature, arguments)
        found = tile.product(left=0, starts=3, right=4, depth=6)
        between = []
        for r in range(ROWS):
            of_row = found[r * _VECTORS : (r + 1) * _VECTORS]
            between += tile.count(of_row, tile.offset(arguments[1], r), entries=9, high=10, low=11, above=12)
        return tile.report(found, between, sums_out=13, masks_out=14)

    return signature, _generate


@intrinsic
def lowest_bit(typing_context: Context, mask: types.Type) -> tuple[Signature, CodeGenerator]:
    """Return the place of the lowest set bit of a uint32 that is not 0."""
    signature = types.int64(types.uint32)

    def _generate(
        context: BaseContext, b: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value],
    ) -> ir.Value:  # fmt: skip
        return b.zext(b.cttz(arguments[0], ir.Constant(ir.IntType(1), 1)), _I64)

    return signature, _generate

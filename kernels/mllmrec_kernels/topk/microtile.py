"""The inner loop of every certified product: 12 rows x 32 columns of int8, summed and compared in registers.

    sums[r, c] = starts[r] + sum_j left[r, j] right[c, j],    left int8, right uint8, sums int32, exact

AVX-512 VNNI multiplies 64 pairs of bytes an instruction; 24 accumulators, two vectors of columns and one
broadcast of four bytes of a row fill 27 of the 32 registers. The tile is compared with its bars before it
leaves them, so that what no list can want is never written: N x N products cost no memory traffic at all.
The instruction wants its right side unsigned: a signed q is stored as q + 128, and starts[r] = -128 sum(left[r])
takes the 128s out again.

`left` is row after row, `right` in groups of 32 columns: [group][depth / 4][32 columns][4 bytes].
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

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
    """Whether this processor has the instruction; without it the float32 product takes over."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni") and features.get("avx512bw") and features.get("avx512vl"))


class _Tile:
    """The code of one tile under construction."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self._context, self._types, self._arguments = context, signature.args, arguments
        self._b = builder

    def pointer(self, n: int) -> Any:
        """The data of array argument n."""
        return self._context.make_array(self._types[n])(self._context, self._b, self._arguments[n]).data

    def splat(self, value: Any) -> Any:
        """One int32 in all lanes."""
        one = self._b.insert_element(ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(_I32, 0))
        zeros = ir.Constant(_VECTOR, [0] * _LANES)
        return self._b.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

    def row_value(self, n: int, at: Any, row: int) -> Any:
        """Entry `at + row` of int32 array argument n, in all lanes."""
        return self.splat(self._b.load(self._b.gep(self.pointer(n), [self.offset(at, row)])))

    def vectors(self, n: int, at: Any) -> list[Any]:
        """32 entries of int32 array argument n from `at` on."""
        start = self._b.bitcast(self._b.gep(self.pointer(n), [at]), _VECTOR.as_pointer())
        return [self._b.load(self._b.gep(start, [ir.Constant(_I64, v)]), align=4) for v in range(_VECTORS)]

    def offset(self, at: Any, by: int) -> Any:
        """at + by."""
        return self._b.add(at, ir.Constant(_I64, by))

    def product(self, left: int, starts: int, right: int, groups: Any) -> list[Any]:
        """The tile's sums as stack slots that the optimiser keeps in registers, row by row, vector by vector."""
        b, (row, stride, at) = (
            self._b,
            (self._arguments[left + 1], self._arguments[left + 2], self._arguments[right + 1]),
        )
        sums = [cgutils.alloca_once(b, _VECTOR) for _ in range(ROWS * _VECTORS)]  # type: ignore[no-untyped-call]
        rows = []
        for r in range(ROWS):
            start = self.row_value(starts, row, r)
            for v in range(_VECTORS):
                b.store(start, sums[r * _VECTORS + v])
            first = b.gep(self.pointer(left), [b.mul(self.offset(row, r), stride)])
            rows.append(b.bitcast(first, _I32.as_pointer()))
        columns = b.bitcast(b.gep(self.pointer(right), [at]), _VECTOR.as_pointer())
        with cgutils.for_range(b, groups) as loop:
            at = b.mul(loop.index, ir.Constant(_I64, _VECTORS))
            loaded = [b.load(b.gep(columns, [self.offset(at, v)]), align=4) for v in range(_VECTORS)]
            for r in range(ROWS):
                bytes_of_row = self.splat(b.load(b.gep(rows[r], [loop.index]), align=1))
                for v in range(_VECTORS):
                    slot = sums[r * _VECTORS + v]
                    b.store(b.call(_DOT, [b.load(slot), loaded[v], bytes_of_row]), slot)
        return [b.load(slot) for slot in sums]

    def report(self, sums: list[Any], masks: list[Any], sums_out: int, masks_out: int) -> Any:
        """Write sums and masks where any lane is set; int32 1 or 0."""
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
def candidates(  # type: ignore[no-untyped-def]
    typing_context, left, row, stride, starts, right, at, groups, row_bars, column_bars, column, sums, masks
):
    """Which sums reach the bar of their row or that of their column.

    Args:
        left, row, stride: int8 rows, the tile's first row, bytes a row.
        starts: int32, one a row of `left`.
        right, at, groups: uint8 columns, where the tile's group of 32 begins in it, its depth / 4.
        row_bars, column_bars, column: int32 bars, and the tile's first column in `column_bars`.
        sums, masks: int32 (12 * 32,) and uint32 (12,), written only where a bar is reached.

    Returns:
        Whether any was.
    """
    signature = types.int32(
        left, types.int64, types.int64, starts, right, types.int64, types.int64, row_bars, column_bars, types.int64,
        sums, masks,
    )  # fmt: skip

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        tile = _Tile(context, b, signature, arguments)
        found = tile.product(left=0, starts=3, right=4, groups=arguments[6])
        columns = tile.vectors(8, arguments[9])
        hits = []
        for n, total in enumerate(found):
            bar, other = tile.row_value(7, arguments[1], n // _VECTORS), columns[n % _VECTORS]
            lower = b.select(b.icmp_signed("<", bar, other), bar, other)
            hits.append(b.bitcast(b.icmp_signed(">=", total, lower), _I16))
        return tile.report(found, hits, sums_out=10, masks_out=11)

    return signature, generate


@intrinsic
def count_above(typing_context, left, row, stride, starts, right, at, groups, high, low, above, sums, masks):  # type: ignore[no-untyped-def]
    """Count the sums above `high` of their row into `above`, and say which lie from `low` to `high`.

    Args:
        left, row, stride, starts, right, at, groups, sums, masks: as for `candidates`.
        high, low: int32, one a row of `left`.
        above: int32, one a row of `left`, added to.

    Returns:
        Whether any sum lies in between.
    """
    signature = types.int32(
        left, types.int64, types.int64, starts, right, types.int64, types.int64, high, low, above, sums, masks
    )

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        tile = _Tile(context, b, signature, arguments)
        found = tile.product(left=0, starts=3, right=4, groups=arguments[6])
        popcount = b.module.declare_intrinsic("llvm.ctpop", [_I16])
        between = []
        for r in range(ROWS):
            row_at = [tile.offset(arguments[1], r)]
            high_bar, low_bar = tile.row_value(7, arguments[1], r), tile.row_value(8, arguments[1], r)
            total = b.load(b.gep(tile.pointer(9), row_at))
            for v in range(_VECTORS):
                value = found[r * _VECTORS + v]
                over = b.bitcast(b.icmp_signed(">", value, high_bar), _I16)
                reached = b.bitcast(b.icmp_signed(">=", value, low_bar), _I16)
                total = b.add(total, b.zext(b.call(popcount, [over]), _I32))
                between.append(b.and_(reached, b.not_(over)))
            b.store(total, b.gep(tile.pointer(9), row_at))
        return tile.report(found, between, sums_out=10, masks_out=11)

    return signature, generate


@intrinsic
def lowest_bit(typing_context, mask):  # type: ignore[no-untyped-def]
    """Place of the lowest set bit of a uint32 that is not 0."""
    signature = types.int64(types.uint32)

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        return b.zext(b.cttz(arguments[0], ir.Constant(ir.IntType(1), 1)), _I64)

    return signature, generate

"""The inner loop of propagation: a stretch of one row's weighted sum, in registers.

    out[c] = sum_e data[e] source[indices[e], c]     for 4 vectors of columns c, entries e in their order

Four accumulators stay in registers while the entries pass, instead of going through the cache once an entry; and
the stretch that comes two entries later is asked for ahead, since rows lie anywhere in memory.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from mllmrec_kernels.base.prefetch import ask_for

_VECTOR_BYTES, _VECTORS, _LINE = 64, 4, 64
STRETCH_BYTES = _VECTOR_BYTES * _VECTORS
_AHEAD = 2  # entries
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


@intrinsic
def gather(typing_context, indices, data, start, stop, source, column, out):  # type: ignore[no-untyped-def]
    """Sum one stretch of columns of one row.

    Args:
        indices, data: int32 and float32, the entries of all rows; empty `data` stands for ones.
        start, stop: the row's entries.
        source: float32 or float64 [N, d], contiguous.
        column: where the stretch begins; STRETCH_BYTES from there on must lie within the row.
        out: [d], its dtype; the stretch is written.
    """
    signature = types.void(indices, data, types.int64, types.int64, source, types.int64, out)
    single = source.dtype == types.float32
    number: Any = ir.FloatType() if single else ir.DoubleType()
    vector = ir.VectorType(number, _VECTOR_BYTES // (4 if single else 8))

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        arrays = {n: context.make_array(signature.args[n])(context, b, arguments[n]) for n in (0, 1, 4, 6)}
        start, stop, column = arguments[2], arguments[3], arguments[5]
        width = cgutils.unpack_tuple(b, arrays[4].shape)[1]  # type: ignore[no-untyped-call]
        weighted = b.icmp_signed(">", arrays[1].nitems, ir.Constant(_I64, 0))
        total = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{vector.count}f{32 if single else 64}"
        )

        def stretch(entry: Any) -> Any:
            row = b.sext(b.load(b.gep(arrays[0].data, [entry])), _I64)
            return b.gep(arrays[4].data, [b.add(b.mul(row, width), column)])

        sums = [cgutils.alloca_once_value(b, ir.Constant(vector, [0.0] * vector.count)) for _ in range(_VECTORS)]  # type: ignore[no-untyped-call]
        last = b.sub(stop, ir.Constant(_I64, 1))
        with cgutils.for_range(b, stop, start=start) as loop:
            ahead = b.add(loop.index, ir.Constant(_I64, _AHEAD))
            later = b.bitcast(stretch(b.select(b.icmp_signed("<", ahead, last), ahead, last)), _BYTES)
            for n in range(STRETCH_BYTES // _LINE):
                ask_for(b, b.gep(later, [ir.Constant(_I64, n * _LINE)]))
            with b.if_else(weighted) as (given, implied):
                with given:
                    stored = b.load(b.gep(arrays[1].data, [loop.index]))
                    given_weight = stored if single else b.fpext(stored, number)
                    given_block = b.block
                with implied:
                    implied_block = b.block
            weight = b.phi(number)
            weight.add_incoming(given_weight, given_block)
            weight.add_incoming(ir.Constant(number, 1.0), implied_block)
            one = b.insert_element(ir.Constant(vector, ir.Undefined), weight, ir.Constant(_I32, 0))
            lanes = ir.Constant(ir.VectorType(_I32, vector.count), [0] * vector.count)
            weights = b.shuffle_vector(one, ir.Constant(vector, ir.Undefined), lanes)
            begin = b.bitcast(stretch(loop.index), vector.as_pointer())
            for n, slot in enumerate(sums):
                part = b.load(b.gep(begin, [ir.Constant(_I64, n)]), align=4 if single else 8)
                b.store(b.call(total, [weights, part, b.load(slot)]), slot)
        to = b.bitcast(b.gep(arrays[6].data, [column]), vector.as_pointer())
        for n, slot in enumerate(sums):
            b.store(b.load(slot), b.gep(to, [ir.Constant(_I64, n)]), align=4 if single else 8)
        return context.get_dummy_value()

    return signature, generate

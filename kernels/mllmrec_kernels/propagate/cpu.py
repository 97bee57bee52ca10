"""Sparse rows times dense features in Numba, the layers combined in the same pass.

    next[i] = sum_e a_e current[col_e];   out[i] (+)= next[i]

Bytes a layer: nnz d 4 gathered (from cache where columns repeat nearby), N d 4 written for `next` and again
for `out`; FLOPs 2 nnz d. At 20 edges per row and 384 features that is bound by the gathers. The last layer
writes only `out`, and the first of several only `next`: one layer needs no buffer and L layers at most two.

The inner loop is `_gather`: four vectors of columns stay in registers while a row's entries pass, instead of going
through the cache once per entry. The columns needed two entries later are prefetched: rows lie anywhere in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.core import cgutils
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import CodeGenerator, emit_prefetch, intrinsic
from mllmrec_kernels.propagate.reference import Floats

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.context import Context
    from numba.core.typing.templates import Signature

# contract: a multiply-add may be one instruction; nothing is reordered, so results stay reproducible.
_FAST = {"contract"}
_ROWS = 64  # a thread takes at a time
_VECTOR_BYTES, _VECTORS, _LINE_BYTES = 64, 4, 64
_STRETCH_BYTES = _VECTOR_BYTES * _VECTORS
_AHEAD = 2  # entries
Ids: TypeAlias = NDArray[np.int32]
Offsets: TypeAlias = NDArray[np.int64]
Weights: TypeAlias = NDArray[np.float32]
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_BYTES = ir.IntType(8).as_pointer()


@njit(cache=True)
def _row_sums(indptr: Offsets, data: Weights) -> NDArray[np.float64]:
    sums = np.zeros(len(indptr) - 1, np.float64)
    for i in range(len(sums)):
        for e in range(indptr[i], indptr[i + 1]):
            sums[i] += data[e]
    return sums


@njit(cache=True)
def _scale(
    indptr: Offsets, indices: Ids, data: Weights, inverse: NDArray[np.float64], symmetric: bool, out: Weights,
) -> None:  # fmt: skip
    for i in range(len(indptr) - 1):
        for e in range(indptr[i], indptr[i + 1]):
            factor = np.sqrt(inverse[i] * inverse[indices[e]]) if symmetric else inverse[i]
            out[e] = data[e] * factor


def normalize(graph: CSR, how: str) -> NDArray[np.float32]:
    """Return the normalized entries of `graph`, in its own order; float32 [nnz]."""
    data = graph.values()
    sums = _row_sums(graph.indptr, data)
    inverse = np.divide(1.0, sums, out=np.zeros_like(sums), where=sums > 0)
    out = np.empty(graph.nnz, np.float32)
    _scale(graph.indptr, graph.indices, data, inverse, how == "symmetric", out)
    return out


@intrinsic
def _gather(
    typing_context: Context, indices: types.Array, data: types.Array, start: types.Type, stop: types.Type,
    source: types.Array, column: types.Type, out: types.Array,
) -> tuple[Signature, CodeGenerator]:  # fmt: skip
    """Sum a row's entries over one stretch of columns: out[c] = sum_e data[e] source[indices[e], c], in their order.

    Args:
        typing_context: Numba's; a caller passes only the other arguments.
        indices: int32, the columns of all rows' entries.
        data: float32, their values; empty for ones.
        start: the row's first entry.
        stop: the next row's.
        source: float32 or float64 [N, d], contiguous.
        column: where the stretch begins; _STRETCH_BYTES from there on must lie within the row.
        out: [d], its dtype; the stretch is written.
    """
    signature = types.void(indices, data, types.int64, types.int64, source, types.int64, out)
    single = source.dtype == types.float32
    number: Any = ir.FloatType() if single else ir.DoubleType()
    vector = ir.VectorType(number, _VECTOR_BYTES // (4 if single else 8))

    def _generate(
        context: BaseContext, b: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value],
    ) -> ir.Value:  # fmt: skip
        arrays = {n: context.make_array(signature.args[n])(context, b, arguments[n]) for n in (0, 1, 4, 6)}
        start, stop, column = arguments[2], arguments[3], arguments[5]
        width = cgutils.unpack_tuple(b, arrays[4].shape)[1]
        weighted = b.icmp_signed(">", arrays[1].nitems, ir.Constant(_I64, 0))
        total = cgutils.get_or_insert_function(
            b.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fma.v{vector.count}f{32 if single else 64}"
        )

        def stretch(entry: Any) -> Any:
            row = b.sext(b.load(b.gep(arrays[0].data, [entry])), _I64)
            return b.gep(arrays[4].data, [b.add(b.mul(row, width), column)])

        sums = [cgutils.alloca_once_value(b, ir.Constant(vector, [0.0] * vector.count)) for _ in range(_VECTORS)]
        last = b.sub(stop, ir.Constant(_I64, 1))
        with cgutils.for_range(b, stop, start=start) as loop:
            ahead = b.add(loop.index, ir.Constant(_I64, _AHEAD))
            later = b.bitcast(stretch(b.select(b.icmp_signed("<", ahead, last), ahead, last)), _BYTES)
            for n in range(_STRETCH_BYTES // _LINE_BYTES):
                emit_prefetch(b, b.gep(later, [ir.Constant(_I64, n * _LINE_BYTES)]))
            with b.if_else(weighted) as (given, implied):
                with given:
                    stored = b.load(b.gep(arrays[1].data, [loop.index]))
                    stored_weight = stored if single else b.fpext(stored, number)
                    given_block = b.block
                with implied:
                    implied_block = b.block
            weight = b.phi(number)
            weight.add_incoming(stored_weight, given_block)
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

    return signature, _generate


@njit(cache=True, fastmath=_FAST)
def _row(indptr: Offsets, indices: Ids, data: Weights, current: Floats, i: int, total: Floats) -> None:
    """Write total = row i of A current."""
    width = current.shape[1]
    whole = width - width % (_STRETCH_BYTES // total.itemsize)
    for column in range(0, whole, _STRETCH_BYTES // total.itemsize):
        _gather(indices, data, indptr[i], indptr[i + 1], current, column, total)
    total[whole:] = 0
    for e in range(indptr[i], indptr[i + 1] if whole < width else indptr[i]):
        weight = data[e] if len(data) else np.float32(1)
        for c in range(whole, width):
            total[c] += weight * current[indices[e], c]


@njit(cache=True, fastmath=_FAST)
def _rows(
    indptr: Offsets, indices: Ids, data: Weights, current: Floats, base: Floats, second: Floats, scale: float,
    following: Floats, out: Floats, start: int, stop: int,
) -> None:  # fmt: skip
    total = np.empty(current.shape[1], current.dtype)
    for i in range(start, stop):
        _row(indptr, indices, data, current, i, total)
        if len(following):
            following[i] = total
        if len(out) and len(second):
            for c in range(len(total)):
                out[i, c] = ((base[i, c] + second[i, c]) + total[c]) * scale
        elif len(out) and len(base):
            for c in range(len(total)):
                out[i, c] = (base[i, c] + total[c]) * scale
        elif len(out):
            for c in range(len(total)):
                out[i, c] = total[c] * scale


@njit(cache=True, parallel=True)
def _layer(
    indptr: Offsets, indices: Ids, data: Weights, current: Floats, base: Floats, second: Floats, scale: float,
    following: Floats, out: Floats,
) -> None:  # fmt: skip
    """Write out = (base + second + A current) scale and following = A current; what is empty is left out."""
    n = len(indptr) - 1
    for block in prange((n + _ROWS - 1) // _ROWS):
        start = block * _ROWS
        _rows(indptr, indices, data, current, base, second, scale, following, out, start, min(start + _ROWS, n))


def propagate(graph: CSR, features: Floats, layers: int, combine: str) -> Floats:
    """Return the combined layers, [N, d], in the dtype of the features.

    Args:
        graph: A, [N, N].
        features: float32 or float64 [N, d].
        layers: L >= 0.
        combine: "sum", "mean" or "last".
    """
    if layers == 0:
        return features.copy()
    current: Any = np.ascontiguousarray(features)
    first = current
    out: Floats = np.empty_like(current)
    nothing = np.empty((0, current.shape[1]), current.dtype)
    data = np.empty(0, np.float32) if graph.data is None else graph.data
    base, second = nothing, nothing
    for layer in range(layers):
        last = layer == layers - 1
        scale = current.dtype.type(1 / (layers + 1) if last and combine == "mean" else 1)
        following = nothing if last else np.empty_like(current)
        if combine != "last":
            # The first layer writes no sum: the second adds up the features and that layer as it reads them.
            base, second = (current, nothing) if layer == 0 else (first, current) if layer == 1 else (out, nothing)
        written = out if last or (combine != "last" and layer) else nothing
        _layer(graph.indptr, graph.indices, data, current, base, second, scale, following, written)
        current = following
    return out

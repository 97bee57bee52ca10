"""Prefetch of memory, where an access pattern is known here but not to the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llvmlite import ir
from numba import types
from numba.core import cgutils

from mllmrec_kernels.base.jit import CodeGenerator, intrinsic

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.context import Context
    from numba.core.typing.templates import Signature

_I32 = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()


def emit_prefetch(builder: ir.IRBuilder, pointer: ir.Value) -> None:
    """Emit a prefetch for reading of the cache line at `pointer`; any address is harmless."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    read, everywhere, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
    builder.call(function, [builder.bitcast(pointer, _BYTES), read, everywhere, data])


@intrinsic
def prefetch(typing_context: Context, array: types.Array, at: types.Type) -> tuple[Signature, CodeGenerator]:
    """Prefetch the cache line of one entry of an array, from compiled code.

    Args:
        typing_context: Numba's; a caller passes the other arguments alone.
        array: any contiguous array.
        at: int64, the entry.
    """
    signature = types.void(array, types.int64)

    def _generate(
        context: BaseContext, builder: ir.IRBuilder, signature: Signature, arguments: Sequence[ir.Value],
    ) -> ir.Value:  # fmt: skip
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        emit_prefetch(builder, builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return signature, _generate

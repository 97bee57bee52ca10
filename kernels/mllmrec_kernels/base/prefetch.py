"""Prefetch of memory, where an access pattern is known here but not to the processor."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I32 = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()


def emit_prefetch(builder: Any, pointer: Any) -> None:
    """Emit a prefetch for reading of the cache line at `pointer`; any address is harmless."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
    read, everywhere, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
    builder.call(function, [builder.bitcast(pointer, _BYTES), read, everywhere, data])


@intrinsic
def prefetch(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Prefetch the cache line of one entry of an array, from compiled code.

    Args:
        typing_context: Numba's; a caller passes the other arguments alone.
        array: any contiguous array.
        at: int64, the entry.
    """
    signature = types.void(array, types.int64)

    def _generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        emit_prefetch(builder, builder.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return signature, _generate

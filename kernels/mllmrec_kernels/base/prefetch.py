"""Asking for memory before it is needed, where an access pattern is known to us but not to the processor."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I32 = ir.IntType(32)
_BYTES = ir.IntType(8).as_pointer()


def ask_for(b: Any, pointer: Any) -> None:
    """Emit a prefetch for reading of the cache line at `pointer`; any address is harmless."""
    kind = ir.FunctionType(ir.VoidType(), [_BYTES, _I32, _I32, _I32])
    ask = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
    read, everywhere, data = (ir.Constant(_I32, n) for n in (0, 3, 1))
    b.call(ask, [b.bitcast(pointer, _BYTES), read, everywhere, data])


@intrinsic
def prefetch(typing_context, array, at):  # type: ignore[no-untyped-def]
    """Prefetch the cache line of entry `at` of an array."""
    signature = types.void(array, types.int64)

    def generate(context, b, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, b, arguments[0]).data
        ask_for(b, b.gep(data, [arguments[1]]))
        return context.get_dummy_value()

    return signature, generate

"""Compilation of inner functions: without reference counts, intrinsics written as instructions, prefetch of memory.

A function that takes a tuple of arrays counts a reference up and down, atomically, for each array that it touches.
That costs 200 ns per call, twice the time of scoring a pair of 384 dimensions. Functions compiled by `jit` own no
memory, their callers do, so nothing needs counting. Numba refuses to compile an allocation in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numba.extending
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.context import Context
    from numba.core.typing.templates import Signature

CodeGenerator: TypeAlias = Callable[..., ir.Value]
Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def jit(function: Function) -> Function:
    """Compile a function on its first call, without the interpreter's lock and without reference counts.

    Args:
        function: of arrays, numbers and tuples of them; it allocates nothing.

    Returns:
        The compiled function, callable from other compiled code.
    """
    dispatcher: Function = njit(**_OPTIONS)(function)
    return dispatcher


def intrinsic(function: Callable[..., Any]) -> Callable[..., Any]:
    """Declare a function of compiled code by its instructions.

    Args:
        function: takes Numba's typing context and the arguments' types; returns the call's signature and a function
            that writes the instructions.

    Returns:
        The intrinsic, callable from compiled code with only the arguments.
    """
    declared: Callable[..., Any] = numba.extending.intrinsic(function)
    return declared


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
        typing_context: Numba's; a caller passes only the other arguments.
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

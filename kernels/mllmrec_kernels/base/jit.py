"""Compilation of inner functions: without reference counts, and intrinsics written as instructions.

A function that takes a tuple of arrays counts a reference up and down, atomically, for each array that it touches.
That costs 200 ns a call, twice the time of scoring a pair of 384 dimensions. Functions compiled by `jit` own no memory,
their callers do, so nothing needs counting. Numba refuses to compile an allocation in them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numba.extending
from llvmlite import ir
from numba import njit

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
        The intrinsic, callable from compiled code with the arguments alone.
    """
    declared: Callable[..., Any] = numba.extending.intrinsic(function)
    return declared

"""How inner functions are compiled: without reference counts.

A function that takes a tuple of arrays counts a reference up and down, atomically, for each array that it touches:
200 ns a call, twice what scoring a pair of 384 dimensions takes. What is compiled here never owns memory, its
caller does, so there is nothing to count; Numba refuses to compile an allocation in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit

Function = TypeVar("Function", bound=Callable[..., Any])

_OPTIONS: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}


def compiled(function: Function) -> Function:
    """The function, compiled on its first call, without the interpreter's lock and without reference counts."""
    made: Function = njit(**_OPTIONS)(function)
    return made

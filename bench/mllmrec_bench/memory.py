"""Peak memory of one call, as the kernel counts it.

On Linux a process can set its high-water mark of resident memory back to now (`/proc/self/clear_refs`), run,
and read how far it rose: every byte that was really touched, by whatever library, at its exact peak. What is
subtracted is what was resident before, after the allocator gave its free memory back (`malloc_trim`), and the
result. Not counted: buffers that a library made at an earlier call and keeps, such as a BLAS workspace.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from typing import Any

from mllmrec.foundation.memory import PeakMemory


def peak_extra(call: Callable[[], Any]) -> int | None:
    """Bytes that `call` needs at its peak beyond what is resident now and beyond its result.

    A result of scipy, NumPy or torch arrays, and tuples of them, is measured by its own bytes.

    Returns:
        None where the system cannot say (no Linux, or a container that forbids it); the call is made anyway.
    """
    gc.collect()
    _give_back()
    memory = PeakMemory()
    result = call()
    added = memory.added_bytes()
    return None if added is None else max(0, added - size(result))


def size(result: Any) -> int:
    """Bytes of the arrays in a result."""
    if isinstance(result, tuple | list):
        return sum(size(part) for part in result)
    if hasattr(result, "indptr"):  # any CSR
        return sum(size(getattr(result, name)) for name in ("indptr", "indices", "data"))
    return int(getattr(result, "nbytes", 0))


def _give_back() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        return

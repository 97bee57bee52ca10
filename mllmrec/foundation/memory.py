"""Memory of the process: its peak, what it gives back, and arrays that stay in their file until they are read.

A page of a mapped array is in memory from its first reading on. The system may drop it when memory is short; a process
that is done with it says so. Only files that this process wrote are mapped, under the lock of their run: a file that
shrinks under a map ends the process. Every write of this package replaces a file and shrinks none.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# By glibc's malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD (of free memory at the end of the heap) and M_ARENA_MAX.
_ALLOCATION = {-3: 16 << 20, -1: 64 << 20, -8: 2}


def return_large_blocks() -> None:
    """Let the C library give large blocks back when they are freed, and share memory among threads.

    By itself it keeps ever larger blocks, up to 32 MiB, apart for each thread: a gigabyte in a large fit. Smaller ones
    than these stay, for kernels allocate them again and again, and each new page costs a microsecond. Only glibc can.
    """
    with contextlib.suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        for option, value in _ALLOCATION.items():
            library.mallopt(option, value)


def release_memory() -> None:
    """Return freed memory to the system; the C library keeps it, gigabytes after a large fit. Only glibc can."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)


def map_array(path: Path) -> NDArray[Any]:
    """Return a .npy array whose rows are read once they are looked at; changes to it do not reach the file."""
    array: NDArray[Any] = np.load(path, mmap_mode="c", allow_pickle=False)
    return array


def drop_pages(array: NDArray[Any]) -> None:
    """Let go of the memory of an array by `map_array`, and of changes to it; another array stays as it is."""
    mapped = getattr(array, "_mmap", None)
    if isinstance(mapped, mmap.mmap):
        mapped.madvise(mmap.MADV_DONTNEED)


class PeakMemory:
    """Measure the highest resident memory since its creation; of several at once only the newest is right."""

    def __init__(self) -> None:
        self._start: int | None = None
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets the peak, only of this process
            self._start = _status("VmRSS")
        except OSError:
            pass  # another system, or not allowed: no figures

    def added_bytes(self) -> int | None:
        """Return bytes above the start, or None if the system gives no figure."""
        peak = _status("VmHWM") if self._start is not None else None
        return None if peak is None or self._start is None else 1024 * max(0, peak - self._start)

    def added_mib(self) -> float | None:
        """Return MiB above the start, or None if the system gives no figure."""
        added = self.added_bytes()
        return None if added is None else round(added / 2**20, 1)

    def total_mib(self) -> float | None:
        """Return MiB of the whole process, or None if the system gives no figure."""
        peak = _status("VmHWM") if self._start is not None else None
        return None if peak is None else round(peak / 1024, 1)


def _status(name: str) -> int | None:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else None

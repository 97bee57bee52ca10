"""Time methods in turn, in one process, with one number of threads, and measure the peak memory of a call.

A round runs every method once, so other load on the machine falls on all of them alike; the ratio of two methods is
taken round by round. A short pause before each run lets the workers of the method before go to sleep. They may spin for
some milliseconds after their last task.

On Linux a process can reset its high-water mark of resident memory (`/proc/self/clear_refs`), run, and read how far
it rose: every byte that was touched, by whatever library, at its exact peak. Memory that was resident before, after
the allocator gave its free memory back (`malloc_trim`), and the result are subtracted. Not counted: buffers that a
library keeps from an earlier call, such as a BLAS workspace.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mllmrec.errors import ConfigError
from mllmrec.foundation.memory import PeakMemory
from mllmrec.foundation.progress import Progress, silent

PAUSE = 0.03  # seconds; OpenBLAS spins for about 20 ms


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Median, 20th and 80th percentile of a sample."""

    median: float
    p20: float
    p80: float

    @staticmethod
    def of(values: Sequence[float]) -> Quantiles:
        """Return the quantiles of a sample that is not empty; linear between neighbors."""
        p20, median, p80 = np.quantile(np.asarray(values, dtype=np.float64), [0.2, 0.5, 0.8])
        return Quantiles(float(median), float(p20), float(p80))


@dataclass(frozen=True, slots=True)
class Method:
    """One way to do a piece of work: a name, and a call that does all of it and returns the result."""

    name: str
    run: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Timed:
    """The times and memory of one method.

    Attributes:
        name: the method's.
        seconds: one per round.
        extra_bytes: peak memory of one call beyond what was there before and beyond its result;
            None if this system cannot say.
    """

    name: str
    seconds: tuple[float, ...]
    extra_bytes: int | None

    def slower_than(self, other: Timed) -> Quantiles:
        """Return this method's time over the other's, round by round."""
        return Quantiles.of([own / other_s for own, other_s in zip(self.seconds, other.seconds, strict=True)])


class Race:
    """Methods that take turns.

    Each is warmed up once (compilation, lazily made buffers), which is not timed. Its peak memory is measured
    in the first timed run: pages that were given back beforehand are faulted in again, as in any first call.
    """

    def __init__(self, methods: Sequence[Method], progress: Progress = silent, label: str = "measure") -> None:
        self.methods = tuple(methods)
        self._seconds: dict[str, list[float]] = {method.name: [] for method in methods}
        self._extra: dict[str, int | None] = {}
        self._progress, self._label = progress, label

    def warm_up(self) -> None:
        """Run every method once, untimed."""
        for method in self.methods:
            method.run()

    def measure_memory(self, method: Method) -> None:
        """Measure a method's peak memory in an untimed run."""
        self._extra[method.name] = peak_extra(method.run)

    def turn(self, method: Method) -> None:
        """Pause, then run a method once, timed."""
        time.sleep(PAUSE)
        if method.name in self._extra:
            self.record(method)
        else:
            self._extra[method.name] = peak_extra(lambda: self.record(method))

    def record(self, method: Method) -> Any:
        """Run a method, timed, and return its result."""
        started = time.perf_counter()
        result = method.run()
        self._seconds[method.name].append(time.perf_counter() - started)
        return result

    def rounds(self, count: int, *, budget: float = math.inf, warm_up: bool = True) -> list[Timed]:
        """Warm up, then time every method `count` times, in turn.

        Args:
            count: rounds.
            budget: seconds after which no new round begins.
            warm_up: run every method once before, untimed.
        """
        self._progress(self._label, 0, count)
        if warm_up:
            self.warm_up()
        started = time.perf_counter()
        for number in range(1, count + 1):
            for method in self.methods:
                self.turn(method)
            self._progress(self._label, number, count)
            if time.perf_counter() - started > budget:
                break
        return self.timed()

    def timed(self) -> list[Timed]:
        """Return the measurements so far."""
        return [
            Timed(method.name, tuple(self._seconds[method.name]), self._extra.get(method.name))
            for method in self.methods
        ]


def peak_extra(call: Callable[[], Any]) -> int | None:
    """Return the bytes that `call` needs at its peak beyond what is resident now and beyond its result.

    A result of scipy, NumPy or torch arrays, and tuples of them, is measured by its own bytes.

    Returns:
        None if the system cannot say (no Linux, or a container that forbids it); the call is made anyway.
    """
    gc.collect()
    _return_free_memory()
    memory = PeakMemory()
    result = call()
    added = memory.added_bytes()
    return None if added is None else max(0, added - size(result))


def size(result: Any) -> int:
    """Return the bytes of the arrays in a result."""
    if isinstance(result, tuple | list):
        return sum(size(part) for part in result)
    if hasattr(result, "indptr"):  # any CSR
        return sum(size(getattr(result, name)) for name in ("indptr", "indices", "data"))
    return int(getattr(result, "nbytes", 0))


def _return_free_memory() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # another C library
        return


def usable_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# OpenBLAS's names of processors that it does not know.
_PLAIN = {"Prescott", "Core2", "Generic", "ARMV8"}


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Give every pool `count` threads: BLAS and OpenMP libraries, Numba, torch, faiss.

    Call it after everything that will run has been imported; a library loaded inside keeps its own default.

    Raises:
        ConfigError: fewer than one, or more than there are cores.
    """
    if not 1 <= count <= usable_cores():
        raise ConfigError(f"threads must lie in 1..{usable_cores()}, the usable cores; got {count}")
    import numba
    import torch
    from threadpoolctl import threadpool_limits

    before = numba.get_num_threads(), torch.get_num_threads()
    with threadpool_limits(count):
        numba.set_num_threads(count)
        torch.set_num_threads(count)
        faiss = sys.modules.get("faiss")
        if faiss is not None:
            faiss.omp_set_num_threads(count)
        try:
            yield
        finally:
            numba.set_num_threads(before[0])
            torch.set_num_threads(before[1])


def misjudged_blas() -> str:
    """Return a remedy if a loaded OpenBLAS takes this processor for an older one than another does; else empty.

    Each library brings its own, and an older release runs a new processor by its plainest code: a peer that is
    slow for that reason is no peer.
    """
    from threadpoolctl import threadpool_info

    pools = {(pool.get("architecture") or "", Path(pool["filepath"]).name) for pool in threadpool_info()}
    plain = sorted(name for architecture, name in pools if architecture in _PLAIN)
    better = sorted({architecture for architecture, _ in pools} - _PLAIN - {""})
    if not plain or not better:
        return ""
    remedy = f"for fair ratios set OPENBLAS_CORETYPE={better[-1]}"
    return f"{', '.join(plain)} runs this processor by its plainest code; {remedy}"


def is_installed(module: str) -> bool:
    """Return whether `module` can be imported; does not import it."""
    return importlib.util.find_spec(module) is not None

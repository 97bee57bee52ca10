"""Run Python functions on threads, with BLAS on one thread in each.

Two thread pools fight: BLAS workers spin after each product and take the cores from Numba's. Where both are needed,
Python threads hold the cores. In each, BLAS runs on one thread, and compiled code without a pool of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

from numba import get_num_threads
from threadpoolctl import ThreadpoolController

Span = tuple[int, int]

# A product of rows has the same bits in ranges that start at multiples of it: OpenBLAS takes rows in groups, of 12 or
# of 16 by processor, and what is left of a range by another loop.
ROW_TILE = 192


def chunks(total: int, size: int) -> list[Span]:
    """Cut range(total) into (start, stop) of `size` each; the last may be shorter."""
    return [(start, min(start + size, total)) for start in range(0, total, size)]


def equal_parts(total: int, min_size: int) -> list[Span]:
    """Cut range(total) into equal (start, stop), one a thread that Numba may use, of at least `min_size`."""
    parts = max(1, min(get_num_threads(), total // min_size))
    return [(total * part // parts, total * (part + 1) // parts) for part in range(parts)] if total else []


def parallel_for(
    work: Callable[[int, int], None], spans: Sequence[Span], *, min_spans: int = 2, keep_threads: bool = False
) -> None:
    """Call work(start, stop) for each span, on as many threads as Numba may use.

    Args:
        work: releases the GIL where it matters, and calls no parallel Numba code.
        spans: from `chunks` or `equal_parts`.
        min_spans: fewer are done by the calling thread; starting threads takes milliseconds.
        keep_threads: use threads that stay alive between calls, and the calling thread for the first span. For
            calls of well under a millisecond.
    """
    with single_threaded_blas():
        if len(spans) < min_spans or get_num_threads() == 1:
            for start, stop in spans:
                work(start, stop)
        elif keep_threads:
            _run_on_kept_threads(work, spans)
        else:
            with ThreadPoolExecutor(get_num_threads()) as pool:
                for future in [pool.submit(work, start, stop) for start, stop in spans]:
                    future.result()


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit BLAS to one thread inside the block."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@cache
def _kept_threads(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mllmrec")


os.register_at_fork(after_in_child=_kept_threads.cache_clear)  # a fork has no threads but its own


def _run_on_kept_threads(work: Callable[[int, int], None], spans: Sequence[Span]) -> None:
    running = [_kept_threads(get_num_threads()).submit(work, *span) for span in spans[1:]]
    try:
        work(*spans[0])
    finally:
        _finish(running)


def _finish(running: list[Future[None]]) -> None:
    """Wait for all; if one fails, raise its error and cancel those that have not begun."""
    try:
        for future in running:
            future.result()
    finally:
        for future in running:
            future.cancel()
        wait(running)

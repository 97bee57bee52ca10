"""One pool of threads at a time.

Two pools fight: BLAS workers spin after each product and take the cores from Numba's. Where both are needed,
Python threads hold the cores, BLAS runs on one thread in each, and compiled code beside it without a pool
of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import cache

from numba import get_num_threads
from threadpoolctl import ThreadpoolController


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()


@contextmanager
def single_threaded() -> Iterator[None]:
    """BLAS on the calling thread alone, for small products between pieces of Numba code."""
    with _controller().limit(limits=1, user_api="blas"):
        yield


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Threads that wait for work, for what is called too often to start some each time."""
    return ThreadPoolExecutor(threads, thread_name_prefix="mllmrec")


os.register_at_fork(after_in_child=_pool.cache_clear)  # a fork has no threads but its own


def over_parts(work: Callable[[int, int, int], None], total: int, *, least: int) -> None:
    """Call work(part, start, stop) for equal parts of range(total), one for each thread that Numba may use.

    Args:
        work: as in `over_chunks`.
        total: the length of the range.
        least: the shortest part that is worth a thread.
    """
    if not total:
        return
    threads = get_num_threads()
    parts = max(1, min(threads, total // least))
    bounds = [total * part // parts for part in range(parts + 1)]
    with single_threaded():
        running = [_pool(threads).submit(work, part, *bounds[part : part + 2]) for part in range(1, parts)]
        try:
            work(0, *bounds[:2])
        finally:
            _finish(running)


def over_chunks(work: Callable[[int, int], None], total: int, chunk: int, *, least: int = 2) -> None:
    """Call work(start, stop) for each chunk of range(total), on as many threads as Numba may use.

    Args:
        work: must release the GIL where it matters, and call no parallel Numba code.
        total: the length of the range.
        chunk: the length of a chunk; the last may be shorter.
        least: fewer chunks are done by the calling thread; starting threads takes milliseconds.
    """
    spans = [(start, min(start + chunk, total)) for start in range(0, total, chunk)]
    with single_threaded():
        if len(spans) < least or get_num_threads() == 1:
            for start, stop in spans:
                work(start, stop)
            return
        with ThreadPoolExecutor(get_num_threads()) as pool:
            for done in [pool.submit(work, start, stop) for start, stop in spans]:
                done.result()


def _finish(running: list[Future[None]]) -> None:
    """Wait for all; where one fails, its error comes out and what has not begun is left undone."""
    try:
        for done in running:
            done.result()
    finally:
        for left in running:
            left.cancel()
        wait(running)

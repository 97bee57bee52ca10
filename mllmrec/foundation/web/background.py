"""Run a coroutine from ordinary code, wherever that code runs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return a coroutine's result, from an event loop in a thread of its own.

    A caller that has a loop already (a notebook) may call this too. Whatever interrupts the caller cancels the
    coroutine, and is raised once that has cleaned up.
    """
    cancel: Future[Callable[[], object]] = Future()
    with ThreadPoolExecutor(1, thread_name_prefix="web") as thread:
        outcome = thread.submit(asyncio.run, _cancellable(main, cancel))
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                cancel.result()()
            raise


async def _cancellable(main: Coroutine[Any, Any, T], cancel: Future[Callable[[], object]]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    cancel.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
    return await main


async def for_each(items: Sequence[Item], work: Callable[[int, Item], Awaitable[None]], *, workers: int) -> None:
    """Call `work(n, item)` for every item; the first error cancels the others and is raised.

    Args:
        items: the items, in the order in which they are started.
        work: called with each item's number and the item.
        workers: the most calls at once.
    """
    pending = iter(enumerate(items))

    async def loop() -> None:
        for n, item in pending:
            await work(n, item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(items))):
                group.create_task(loop())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None

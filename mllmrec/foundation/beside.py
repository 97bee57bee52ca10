"""Run a function on a thread of its own, beside the caller, which may be interrupted meanwhile.

An executor waits for its threads when the program ends. So Ctrl-C would wait minutes for a step that nobody reads any
more. This thread ends with the program.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


def start_beside(make: Callable[..., T], *arguments: Any) -> Future[T]:
    """Start a function on a thread; return its result to come.

    Args:
        make: is called once; what it raises, `result()` raises.
        arguments: of the function.
    """
    future = Future[T]()

    def _run() -> None:
        try:
            future.set_result(make(*arguments))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=_run, name="mllmrec-beside", daemon=True).start()
    return future

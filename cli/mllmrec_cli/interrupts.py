"""Ctrl-C: one line, which says how to go on if the same command continues the work."""

from __future__ import annotations

import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_LATER = 0.05  # seconds


class Interrupted(BaseException):
    """Somebody pressed Ctrl-C; the text says how to go on, if there is a way."""


def listen() -> None:
    """Turn SIGINT into Interrupted from now on."""
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise in the code that runs. Python lets nothing out of a finaliser, so there raise a little later."""
    if _in_finaliser(frame):
        later = threading.Timer(_LATER, signal.raise_signal, [signal.SIGINT])
        later.daemon = True
        later.start()
    else:
        raise Interrupted


def _in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "__del__":
            return True
        frame = frame.f_back
    return False


def command_line() -> str:
    """Return the running command, as a shell reads it."""
    return shlex.join(["mllmrec", *sys.argv[1:]])


@contextmanager
def resumable() -> Iterator[None]:
    """Name the command that goes on if Ctrl-C ends the work inside."""
    try:
        yield
    except Interrupted:
        raise Interrupted(f"what is done is kept; go on with: {command_line()}") from None

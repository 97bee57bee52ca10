"""Ctrl-C: one line, which says how to go on where the same command does."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupted(BaseException):
    """Somebody pressed Ctrl-C; the text says how to go on, if there is a way."""


def listen() -> None:
    """Turn SIGINT into Interrupted from now on."""
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(*_: object) -> None:
    raise Interrupted


def command_line() -> str:
    """The command that is running, as a shell reads it."""
    return shlex.join(["mllmrec", *sys.argv[1:]])


@contextmanager
def resumable() -> Iterator[None]:
    """Around work that the same command goes on with."""
    try:
        yield
    except Interrupted:
        raise Interrupted(f"what is done is kept; go on with: {command_line()}") from None

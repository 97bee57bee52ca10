"""Report progress: the command line draws it, a library caller may ignore it."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, "int | None"], None]
"""Called as progress(label, done, total); total is None if it is unknown."""


def silent(label: str, done: int, total: int | None) -> None:
    """Ignore progress.

    Args:
        label: name of the task.
        done: units done.
        total: units in all; None: unknown.
    """


def under(progress: Progress, label: str) -> Progress:
    """Return a progress that reports to another one under a label of the caller's."""
    return lambda _, done, total: progress(label, done, total)

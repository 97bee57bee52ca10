"""How things look in a terminal: progress, tables, and text that the data cannot style."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from mllmrec.foundation.progress import Progress as Hook
from mllmrec.foundation.progress import silent

# Panels that the verbs are listed under, in this order.
DATA, METHOD, JUDGE, SPEED, UPKEEP = ("Data in and out", "The method", "Look and judge", "Speed", "Settings and upkeep")

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)
_LOG_SECONDS = 10.0  # between two lines of one task, where nobody watches a bar
_LONGEST_ERROR = 2000  # characters; an id in an error may have any number of them


def never_fail_to_print() -> None:
    """Print what the terminal's encoding lacks, and halves of surrogate pairs, as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def plain(text: str, style: str = "") -> Text:
    """Text from data: no markup, and no control character that could steer a terminal."""
    kept = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text(kept, style=style)


def short(text: str, most: int) -> str:
    """At most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def one_line(text: str) -> str:
    """An error as one line."""
    return short(" ".join(text.split()), _LONGEST_ERROR)


def warn(text: str) -> None:
    """A warning, one line on standard error."""
    err.print(plain(f"warning: {one_line(text)}"), style="yellow", soft_wrap=True)


def say(text: str) -> None:
    """A line about the result, such as a path; never broken, so that a script can read it."""
    out.print(plain(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output; what is not finite becomes null, which JSON has no numbers for."""
    from mllmrec.foundation.storage import nulled

    sys.stdout.write(json.dumps(nulled(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> Table:
    """A table whose first `words` columns are words, and the others numbers."""
    made = Table(title=plain(title), title_justify="left", title_style="bold", header_style="bold")
    for n, column in enumerate(columns):
        made.add_column(plain(column), justify="left" if n < words else "right", no_wrap=n == 0 or n >= words)
    for row in rows:
        made.add_row(*(plain(cell) for cell in row))
    return made


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.1f}/s" if speed else "", style="progress.data.speed")


@contextmanager
def progress(*, quiet: bool) -> Iterator[Hook]:
    """A hook that draws a bar a task in a terminal, and writes a line now and then elsewhere.

    Colours may be forced upon a log file; bars are not, for each of their frames would stay in it.
    """
    if quiet:
        yield silent
    elif sys.stderr.isatty() and err.is_terminal and not err.is_dumb_terminal:
        with _bars() as bars:
            yield _Bars(bars)
    else:
        yield _Lines()


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


class _Bars:
    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total)
        self._bars.update(self._tasks[label], completed=done, total=total)


class _Lines:
    def __init__(self) -> None:
        self._started: dict[str, float] = {}
        self._written: dict[str, float] = {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        started = self._started.setdefault(label, now)
        if done != total and now - self._written.get(label, started) < _LOG_SECONDS:
            return
        self._written[label] = now
        of = f"/{total:,}" if total is not None else ""
        speed = done / (now - started) if now > started else 0.0
        rate = f", {speed:,.1f}/s" if speed else ""
        left = f", {timedelta(seconds=round((total - done) / speed))} left" if speed and total and done < total else ""
        err.print(f"{label}: {done:,}{of}{rate}{left}", markup=False)

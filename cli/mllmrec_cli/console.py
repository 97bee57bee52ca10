"""How things look in a terminal: progress, tables, and text that the data cannot style."""

from __future__ import annotations

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

from mllmrec.progress import Progress as Hook
from mllmrec.progress import silent

out = Console(highlight=False, soft_wrap=False)
err = Console(stderr=True, highlight=False)
_LOG_SECONDS = 10.0  # between two lines of one task, where nobody watches a bar


def plain(text: str) -> Text:
    """Text from data: no markup, and no control character that could steer a terminal."""
    return Text("".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> Table:
    """A table whose first `words` columns are words, and the others numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="bold")
    for n, column in enumerate(columns):
        made.add_column(column, justify="left" if n < words else "right", no_wrap=n == 0 or n >= words)
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
    """A hook that draws a bar a task in a terminal, and writes a line now and then elsewhere."""
    if quiet:
        yield silent
    elif err.is_terminal:
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

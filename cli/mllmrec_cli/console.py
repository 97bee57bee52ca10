"""The terminal: progress, tables, text that data cannot style, and Ctrl-C.

Ctrl-C ends in one line. It says how to go on if the same command continues the work.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
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
_BEYOND_ASCII = re.compile(r"[^\n -~]")
_LOG_SECONDS = 10.0  # between two lines of one task, where nobody watches a bar
_RATE_SECONDS = 60.0  # that a rate in a log is taken over
_LONGEST_ERROR = 2000  # characters; an id in an error may have any number of them
_LATER = 0.05  # seconds


def never_fail_to_print() -> None:
    """Print what the terminal's encoding lacks, and halves of surrogate pairs, as a question mark."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def plain(text: str, style: str = "") -> Text:
    """Return text from data without markup, and without control characters that could steer a terminal."""
    kept = "".join(c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
    return Text(kept, style=style)


def short(text: str, most: int) -> str:
    """Return a text cut to at most so many characters."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def one_line(text: str) -> str:
    """Return an error as one line."""
    return short(" ".join(text.split()), _LONGEST_ERROR)


def warn(text: str) -> None:
    """Print a warning, one line on standard error."""
    err.print(plain(f"warning: {one_line(text)}"), style="yellow", soft_wrap=True)


def say(text: str) -> None:
    """Print a line about the result, such as a path; never broken, so that a script can read it."""
    out.print(plain(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document; numbers that are not finite become null, and no character steers a terminal."""
    from mllmrec.foundation.storage import nulled

    text = json.dumps(nulled(value), indent=2, ensure_ascii=False, allow_nan=False)
    sys.stdout.write(_BEYOND_ASCII.sub(_escape, text) + "\n")


def _escape(match: re.Match[str]) -> str:
    """Escape a character that could steer a terminal, as JSON does."""
    return match[0] if match[0].isprintable() else json.dumps(match[0])[1:-1]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> Table:
    """Return a table; where it is too wide, words are wrapped rather than numbers cut.

    Args:
        title: above it.
        columns: their headings.
        rows: cells of each row.
        words: how many of the first columns hold words; the others hold numbers.
    """
    grid = Table(title=plain(title), title_justify="left", title_style="bold", header_style="bold")
    for n, column in enumerate(columns):
        whole = n >= words or (n == 0 and words > 1)  # other words make room
        grid.add_column(plain(column), justify="left" if n < words else "right", no_wrap=whole, overflow="fold")
    for row in rows:
        grid.add_row(*(plain(cell) for cell in row))
    return grid


@contextmanager
def progress(*, quiet: bool) -> Iterator[Hook]:
    """Yield a hook that draws a bar per task in a terminal, and writes a line every ten seconds elsewhere.

    Colors may be forced upon a log file; bars are not, for each of their frames would stay in it.
    """
    if quiet:
        yield silent
    elif sys.stderr.isatty() and err.is_terminal and not err.is_dumb_terminal:
        with _display() as display:
            yield _TerminalProgress(display)
    else:
        lines = _LogProgress()
        with lines.ticking():
            yield lines


def _display() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )


class _Rate(ProgressColumn):
    """Units a second, or seconds a unit."""

    def render(self, task: Task) -> Text:
        """Return the rate of a task."""
        return Text(_rate(task.finished_speed or task.speed or 0.0), style="progress.data.speed")


def _rate(speed: float) -> str:
    """Return a speed in units per second for a person: 12.5/s, or 8.0 s each; empty for none."""
    if speed <= 0:
        return ""
    return f"{speed:,.1f}/s" if speed >= 1 else f"{1 / speed:,.1f} s each"


class _TerminalProgress:
    """A bar per task; a task that restarts from a lower count has its bar, clock and rate reset."""

    def __init__(self, display: Progress) -> None:
        self._display = display
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Show how far a task is."""
        if label not in self._tasks:  # what an earlier start did is no work of this one: it counts for no rate
            self._tasks[label] = self._display.add_task(label, total=total, completed=done)
        elif done < self._done[label]:
            self._display.reset(self._tasks[label], total=total, completed=done)
        self._done[label] = done
        self._display.update(self._tasks[label], completed=done, total=total)


class _Task:
    """A task in a log: when it started, how far it was then, and how far it was lately."""

    def __init__(self, done: int, total: int | None, now: float) -> None:
        self.started = self.written = now
        self.recent = deque([(now, done)])
        self.done, self.total = done, total

    def speed(self, now: float) -> float:
        """Return units per second over the last minute or two; what was done before the task started does not count."""
        while len(self.recent) > 2 and now - self.recent[1][0] > _RATE_SECONDS:
            self.recent.popleft()
        began, before = self.recent[0]
        return (self.done - before) / (now - began) if now > began else 0.0


class _LogProgress:
    """A line for each task that ends, and every ten seconds for one that runs, also while it says nothing."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._tasks: dict[str, _Task] = {}
        self._latest = ""

    def __call__(self, label: str, done: int, total: int | None) -> None:
        """Write how far a task is, if a line is due."""
        with self._lock:
            now, task = self._clock(), self._tasks.get(label)
            if task is None or done < task.done:
                task = self._tasks[label] = _Task(done, total, now)
            self._latest, task.done, task.total = label, done, total
            if now - task.recent[-1][0] >= 1:
                task.recent.append((now, done))
            if (done == total and total) or now - task.written >= _LOG_SECONDS:
                self._write(label, task, now)

    def tick(self) -> None:
        """Write a line of the latest task if one is due."""
        with self._lock:
            task, now = self._tasks.get(self._latest), self._clock()
            if task and task.done != task.total and now - task.written >= _LOG_SECONDS:
                self._write(self._latest, task, now)

    @contextmanager
    def ticking(self) -> Iterator[None]:
        """Tick once per second inside."""
        stop = threading.Event()

        def run() -> None:
            while not stop.wait(1.0):
                self.tick()

        thread = threading.Thread(target=run, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()

    @staticmethod
    def _write(label: str, task: _Task, now: float) -> None:
        task.written = now
        speed, of = task.speed(now), f"/{task.total:,}" if task.total is not None else ""
        parts = [f"{label}: {task.done:,}{of}", _rate(speed)]
        if task.total is not None and task.done < task.total:
            passed = timedelta(seconds=round(now - task.started))
            left = f"{timedelta(seconds=round((task.total - task.done) / speed))} left" if speed else ""
            parts += [f"{passed} so far", left]
        err.print(", ".join(part for part in parts if part), markup=False, soft_wrap=True)


class Interrupted(BaseException):
    """Somebody pressed Ctrl-C; the text says how to go on, if there is a way."""


def listen() -> None:
    """Turn SIGINT into Interrupted from now on."""
    signal.signal(signal.SIGINT, _interrupt)


def _interrupt(_number: int, frame: FrameType | None) -> None:
    """Raise in the code that runs; in a finalizer, which Python lets nothing out of, raise a little later."""
    if _in_finalizer(frame):
        later = threading.Timer(_LATER, signal.raise_signal, [signal.SIGINT])
        later.daemon = True
        later.start()
    else:
        raise Interrupted


def _in_finalizer(frame: FrameType | None) -> bool:
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

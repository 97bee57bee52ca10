"""Progress in a log and in a terminal: rates of resumed tasks, labels that restart, lines while nothing is said."""

from __future__ import annotations

import pytest
from mllmrec_cli import console
from rich.console import Console
from rich.progress import Progress


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def lines(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> console._LogProgress:
    monkeypatch.setattr(console, "err", Console(stderr=True, highlight=False, width=200))
    return console._LogProgress(clock)


def test_a_line_every_ten_seconds_has_rate_and_time_left(
    lines: console._LogProgress, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for second in range(21):
        clock.now = float(second)
        lines("fit", 5 * second, 1000)
    assert capsys.readouterr().err.splitlines() == [
        "fit: 50/1,000, 5.0/s, 0:00:10 so far, 0:03:10 left",
        "fit: 100/1,000, 5.0/s, 0:00:20 so far, 0:03:00 left",
    ]


def test_what_an_earlier_start_did_counts_for_no_rate(
    lines: console._LogProgress, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines("describe", 5000, 5100)
    clock.now = 10.0
    lines("describe", 5020, 5100)
    assert capsys.readouterr().err == "describe: 5,020/5,100, 2.0/s, 0:00:10 so far, 0:00:40 left\n"


def test_a_label_that_restarts_has_a_clock_of_its_own(
    lines: console._LogProgress, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines("epochs", 0, 100)
    clock.now = 1.0
    lines("epochs", 100, 100)
    clock.now = 500.0
    lines("epochs", 0, 100)
    clock.now = 510.0
    lines("epochs", 1, 100)
    assert capsys.readouterr().err.splitlines() == [
        "epochs: 100/100, 100.0/s",
        "epochs: 1/100, 10.0 s each, 0:00:10 so far, 0:16:30 left",
    ]


def test_a_task_that_says_nothing_has_its_line_and_one_that_ended_has_none(
    lines: console._LogProgress, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    lines("evaluate", 0, 4)
    for second in (1.0, 9.0, 10.0, 15.0, 20.0):
        clock.now = second
        lines.tick()
    assert capsys.readouterr().err.splitlines() == [
        "evaluate: 0/4, 0:00:10 so far",
        "evaluate: 0/4, 0:00:20 so far",
    ]
    lines("evaluate", 4, 4)
    clock.now = 90.0
    lines.tick()
    assert capsys.readouterr().err.splitlines() == ["evaluate: 4/4, 5.0 s each"]


def test_an_old_rate_is_forgotten(
    lines: console._LogProgress, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    for second in range(1, 301):  # 100 a second at first, one a second later, such as trials of a resumed study
        clock.now = float(second)
        lines("trials", 100 * second if second < 10 else 1000 + second, 2000)
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "trials: 1,291/2,000, 1.0/s, 0:04:50 so far, 0:11:49 left"


def test_a_bar_restarts_with_its_label() -> None:
    clock = Clock()
    display = Progress(console=Console(file=None, quiet=True), get_time=clock, auto_refresh=False)
    hook = console._TerminalProgress(display)
    hook("epochs", 40, 100)  # resumed
    (task,) = display.tasks
    assert task.completed == 40 and not task.speed
    clock.now = 10.0
    hook("epochs", 60, 100)
    clock.now = 20.0
    hook("epochs", 80, 100)
    assert task.speed == pytest.approx(2.0) and task.time_remaining == 10
    clock.now = 100.0
    hook("epochs", 1, 100)
    assert task.completed == 1 and task.elapsed == 0
    clock.now = 110.0
    hook("epochs", 2, 100)
    assert task.elapsed == 10


def test_a_table_wraps_long_words_and_cuts_no_number(capsys: pytest.CaptureFixture[str]) -> None:
    words, numbers = "a user's interactions (mean, median, most)", "16,129,581 / 1,789,921 / 2,080,498"
    Console(width=60).print(console.table("of the dataset", ("of", "number"), [(words, numbers)]))
    shown = capsys.readouterr().out
    assert numbers in shown
    assert "…" not in shown
    assert all(word in shown for word in words.split())

"""Progress shows at once and within a long call, and only grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

import pytest

from mllmrec.reason.cache import open_cache
from mllmrec.reason.engine import Answer, Report
from mllmrec.reason.generate import generate


def test_progress_shows_before_the_first_answer_and_within_a_call(tmp_path: Path) -> None:
    shown: list[tuple[str, int, int | None]] = []

    def complete(batch: Sequence[str], report: Callable[[int], None]) -> list[Answer]:
        assert shown, "nothing was shown before the first call"
        report(2)
        report(1)  # of a slower thread
        return [Answer(text) for text in batch]

    requests = [str(n) for n in range(6)]
    with open_cache(tmp_path / "c.sqlite") as cache:
        for _ in range(2):
            generate(
                keys=requests,
                requests=requests,
                complete=complete,
                batch_size=lambda: 3,
                cache=cache,
                progress=lambda *step: shown.append(step),
                label="describe items",
            )
    assert shown == [("describe items", done, 6) for done in (0, 2, 3, 5, 6)]


def test_tokens_within_a_batch_are_shown_beside_the_requests(tmp_path: Path) -> None:
    shown: list[tuple[str, int, int | None]] = []

    def complete(batch: Sequence[str], report: Report) -> list[Answer]:
        report(0, 5, 20)
        report(1, 9, 20)
        return [Answer(text) for text in batch]

    with open_cache(tmp_path / "c.sqlite") as cache:
        generate(
            keys=list("abcd"),
            requests=list("abcd"),
            complete=complete,
            batch_size=lambda: 2,
            cache=cache,
            progress=lambda label, done, total: shown.append((label, done, total)),
            label="profile users",
        )
    tokens = [(done, total) for label, done, total in shown if label == "profile users: new tokens, of at most"]
    # Two calls of two requests: each may come to 20 tokens, so the first sees 40 ahead.
    assert tokens == [(5, 40), (9, 40), (14, 29), (18, 29)]


def test_what_was_answered_before_a_stop_is_kept(tmp_path: Path) -> None:
    calls: list[Sequence[str]] = []

    def complete(batch: Sequence[str], report: Report) -> list[Answer]:
        calls.append(batch)
        if len(calls) > 1:
            return [Answer(f"{text} again") for text in batch]
        thread = Thread(target=report, args=(1, 0, 0, {2: Answer("two"), 1: Answer("", "failed", "busy")}))
        thread.start()  # a server's answers come on another thread
        thread.join()
        raise KeyboardInterrupt

    def answers(file: Path) -> list[str]:
        with open_cache(file) as cache:
            made = generate(
                keys=list("abcd"),
                requests=list("abcd"),
                complete=complete,
                batch_size=lambda: 9,
                cache=cache,
                progress=lambda *step: None,
                label="profile users",
            )
            assert [held.rows for held in cache.holdings()] == [4]
            return [answer.text for answer in made]

    with pytest.raises(KeyboardInterrupt):
        answers(tmp_path / "c.sqlite")
    assert answers(tmp_path / "c.sqlite") == ["a again", "b again", "two", "d again"]
    assert calls == [list("abcd"), list("abd")]

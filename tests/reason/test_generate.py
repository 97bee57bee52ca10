"""Progress shows at once and within a long call, and only grows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mllmrec.reason.cache import open_cache
from mllmrec.reason.engine import Answer
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

"""When to ask again, by the server's word or by a wait that grows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from mllmrec.foundation.web.concurrency import backoff, retry_after


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("7", 7.0), (" 0.5 ", 0.5), ("-3", 0.0), ("", None), ("soon", None), ("nan", None), ("1e999", None)],
)
def test_seconds_are_read_and_nonsense_is_none(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}) == seconds
    assert retry_after({}) is None


def test_a_date_counts_by_the_clock_of_the_server() -> None:
    wrong = datetime(2031, 1, 1, tzinfo=UTC)  # years from the clock of this machine
    headers = {"retry-after": format_datetime(wrong + timedelta(seconds=9), usegmt=True)}
    assert retry_after({**headers, "date": format_datetime(wrong, usegmt=True)}) == 9.0
    past = format_datetime(datetime.now(UTC) - timedelta(hours=1), usegmt=True)
    assert retry_after({"retry-after": past}) == 0.0


def test_waits_grow_to_a_cap_and_are_the_same_under_one_seed() -> None:
    waits = [backoff(n, seed=1, name="a") for n in range(20)]
    assert waits == [backoff(n, seed=1, name="a") for n in range(20)]
    assert all(min(30, 2.0**n / 2) / 2 <= wait <= min(30, 2.0**n / 2) for n, wait in enumerate(waits))
    assert len({backoff(0, seed=1, name=n) for n in range(100)}) == 100
    assert backoff(0, seed=2, name="a") != waits[0]

"""The limit of requests at once finds what a server can do, and failed requests wait before they are repeated."""

from __future__ import annotations

import heapq
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import numpy as np
import pytest

from mllmrec.foundation.web.concurrency import ConcurrencyPolicy, backoff, retry_after


def play(most: int, capacity: int, *, refuses: bool, requests: int = 4000, jitter: float = 0.3) -> tuple[float, float]:
    """(mean limit of the last half, replies a second as a share of what the server can do).

    The server works on `capacity` requests at once, about one second each; further ones it lets queue, or refuses.
    """
    generator = np.random.default_rng(0)
    policy, now, left = ConcurrencyPolicy(most), 0.0, requests
    slots = [0.0] * capacity  # when each becomes free
    flying: list[tuple[float, float, bool, bool]] = []  # ends, sent, full, refused
    limits = []
    while left or flying:
        while left and len(flying) < policy.limit:
            left -= 1
            full = len(flying) + 1 >= policy.limit
            if refuses and min(slots) > now:
                heapq.heappush(flying, (now + 0.01, now, full, True))
                continue
            begin = max(now, heapq.heappop(slots))
            end = begin + float(generator.uniform(1 - jitter, 1 + jitter))
            heapq.heappush(slots, end)
            heapq.heappush(flying, (end, now, full, False))
        now, sent, full, refused = heapq.heappop(flying)
        limits.append(policy.limit)
        if refused:
            left += 1
            policy.overloaded(sent, now)
        elif full:
            policy.succeeded(sent, now)
    return float(np.mean(limits[len(limits) // 2 :])), requests / now / capacity


@pytest.mark.parametrize("capacity", [1, 3, 16, 50])
def test_a_server_that_queues_is_not_buried_and_not_starved(capacity: int) -> None:
    limit, share = play(256, capacity, refuses=False)
    assert limit <= max(12, 2 * capacity)
    assert share > 0.85


@pytest.mark.parametrize("capacity", [1, 3, 16, 50])
def test_a_server_that_refuses_is_asked_for_less(capacity: int) -> None:
    limit, share = play(64, capacity, refuses=True)
    assert limit <= 1.2 * capacity + 2
    assert share > 0.65


def test_an_idle_server_gets_all_that_is_allowed() -> None:
    assert play(64, 1000, refuses=False)[0] == pytest.approx(64, abs=4)


def test_one_burst_of_refusals_halves_the_limit_once() -> None:
    policy = ConcurrencyPolicy(64)
    policy.limit = 32
    for n in range(20):
        policy.overloaded(sent=1.0, now=2.0 + n / 100)
    assert policy.limit == 16
    policy.overloaded(sent=3.0, now=4.0)
    assert policy.limit == 8


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

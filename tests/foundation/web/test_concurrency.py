"""The limit finds what a server bears, by its refusals and by its queue; played without a clock."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from mllmrec.foundation.web.concurrency import ConcurrencyPolicy


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

"""Damaged files end as a dataset or as one line."""

from __future__ import annotations

import pytest

from tests.dataset.door_fuzz import SECONDS, fuzz


def test_two_hundred_damaged_shops() -> None:
    outcomes, longest, failures = fuzz(200, seed=0)
    assert not failures, failures[0]
    assert outcomes.total() == 200
    assert min(outcomes["dataset"], outcomes["refused"]) > 20
    assert longest < SECONDS


@pytest.mark.slow
def test_ten_thousand_damaged_shops() -> None:
    outcomes, longest, failures = fuzz(10_000, seed=1)
    assert not failures, failures[0]
    assert outcomes.total() == 10_000
    assert longest < SECONDS

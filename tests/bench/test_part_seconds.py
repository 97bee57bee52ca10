"""Seconds of the steps of a fit: each step once, and all of them together."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bench.part_seconds import LAST, Clock, measure, step_of
from mllmrec.dataset import Dataset


@pytest.mark.parametrize(
    ("label", "step"),
    [
        ("fit 64 factors 2 of 2", "fit 64 factors"),
        ("validate ridges 1 of 2, 1", "validate ridges"),
        ("validate content, 3 on 20,000 of 35,574 users", "validate content"),
        ("fit ridges on 2 tables", "fit ridges on 2 tables"),
    ],
)
def test_a_step_is_a_label_without_numbers(label: str, step: str) -> None:
    assert step_of(label) == step


def test_time_counts_for_the_step_that_is_named_after_it() -> None:
    clock = Clock()
    time.sleep(0.05)
    clock("first, 1", 1, 2)
    clock("first, 2", 2, 2)
    time.sleep(0.1)
    clock("second", 1, 1)
    assert list(clock.seconds) == ["first", "second"]
    assert 0.05 <= clock.seconds["first"][1] < 0.1 <= clock.seconds["second"][1]


def test_the_steps_of_the_default_sum_to_the_last_line(dataset: Dataset, vectors: np.ndarray) -> None:
    lines = [line.strip("| ").split(" | ") for line in measure(dataset, vectors, "ensemble").splitlines()[2:]]
    steps = [line[0] for line in lines]
    assert {"fit 64 factors", "search neighbors", "list items", "search weights"} <= set(steps)
    assert steps[-2:] == [LAST, "together"] and len(set(steps)) == len(steps)
    for column in (1, 2):
        assert sum(float(line[column]) for line in lines[:-1]) == pytest.approx(float(lines[-1][column]), abs=0.1)

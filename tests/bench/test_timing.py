"""Methods really take turns, threads really are limited, and memory is what was touched."""

from __future__ import annotations

import time

import numba
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_bench.timing import Method, Quantiles, Race, Timed, peak_extra, size, threads, usable_cores
from threadpoolctl import threadpool_info

from mllmrec.errors import ConfigError

MIB = 2**20


def test_quantiles_are_those_of_numpy() -> None:
    assert Quantiles.of([3, 1, 2, 5, 4]) == Quantiles(3, 1.8, 4.2)
    assert Quantiles.of([7]) == Quantiles(7, 7, 7)


def test_ratios_are_taken_round_by_round() -> None:
    ours, other = Timed("a", (1, 2, 4), None), Timed("b", (3, 6, 12), None)
    assert other.slower_than(ours) == Quantiles(3, 3, 3)


def test_methods_take_turns_after_one_warm_up() -> None:
    calls: list[str] = []
    race = Race([Method("a", lambda: calls.append("a")), Method("b", lambda: calls.append("b"))])
    timed = race.rounds(3)
    assert calls == ["a", "b"] * 4
    assert [(one.name, len(one.seconds)) for one in timed] == [("a", 3), ("b", 3)]


def test_without_a_warm_up_the_first_call_counts() -> None:
    calls: list[str] = []
    assert len(Race([Method("a", lambda: calls.append("a"))]).rounds(2, warm_up=False)[0].seconds) == len(calls) == 2


def test_time_is_the_call_alone_and_a_budget_ends_the_rounds() -> None:
    timed = Race([Method("sleep", lambda: time.sleep(0.05))]).rounds(50, budget=0.2)[0]
    assert 1 <= len(timed.seconds) < 10
    assert min(timed.seconds) >= 0.05


def test_every_pool_gets_the_threads_asked_for_and_has_its_own_back() -> None:
    np.ones((300, 300)) @ np.ones((300, 300))
    before = numba.get_num_threads(), torch.get_num_threads()
    with threads(1):
        assert numba.get_num_threads() == torch.get_num_threads() == 1
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    assert (numba.get_num_threads(), torch.get_num_threads()) == before
    for count in (0, usable_cores() + 1):
        with pytest.raises(ConfigError, match=rf"threads must lie in 1\.\.{usable_cores()}"), threads(count):
            pass


def test_peak_memory_is_what_was_touched_and_not_the_result() -> None:
    def work() -> np.ndarray:
        scratch = np.ones(40 * MIB // 8)
        return np.full(10 * MIB // 8, scratch.sum())

    extra = peak_extra(work)
    if extra is None:
        pytest.skip("this system does not say what memory a call took")
    assert extra / MIB == pytest.approx(40, abs=2)
    # Within what the interpreter itself takes and gives back between two readings.
    assert peak_extra(lambda: np.empty(40 * MIB // 8)[:0]) < 4 * MIB  # type: ignore[operator]


def test_the_size_of_a_result_is_that_of_its_arrays() -> None:
    array, tensor = np.zeros(8, np.float32), torch.zeros(4, dtype=torch.int64)
    assert size((array, [tensor, None])) == 64
    assert size(sp.csr_matrix(np.eye(3, dtype=np.float32))) == 4 * 3 + 4 * 3 + 4 * 4

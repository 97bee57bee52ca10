from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.sample import sample_negatives
from mllmrec_kernels.sample.reference import random_bits, seen_items

from tests.kernels.sparse_cases import INTERACTIONS, Interactions, from_rows, ids, random_interactions

BACKENDS = ["numba"]
CASES = pytest.mark.parametrize("case", INTERACTIONS, ids=ids(INTERACTIONS))


def users_of(n_users: int, n: int = 500) -> np.ndarray:
    return np.random.default_rng(0).integers(0, n_users, n if n_users else 0)


@CASES
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_equals_the_reference(case: Interactions, backend: str, dtype: type):
    user_items = case.make()
    users = users_of(user_items.n_rows).astype(dtype)
    wanted = sample_negatives(user_items, users, generator=np.random.default_rng(5), backend="reference")
    got = sample_negatives(user_items, users, generator=np.random.default_rng(5), backend=backend)
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, wanted)


@CASES
def test_negatives_are_seen_by_somebody_else(case: Interactions):
    user_items = case.make()
    seen = set(seen_items(user_items).tolist())
    users = users_of(user_items.n_rows)
    negatives = sample_negatives(user_items, users, generator=np.random.default_rng(6))
    for u, j in zip(users, negatives, strict=True):
        left = seen - set(user_items.row(int(u)).tolist())
        assert int(j) in left if left else j == -1


@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_a_user_who_has_seen_everything_gets_minus_one(backend: str):
    # Item 3 is in nobody's row: user 0 has seen all there is to see.
    user_items = from_rows([[0, 1, 2], [1]], 4)
    negatives = sample_negatives(user_items, np.array([0, 1, 0]), generator=np.random.default_rng(0), backend=backend)
    assert negatives[[0, 2]].tolist() == [-1, -1]
    assert negatives[1] in (0, 2)


def test_one_choice_is_found_at_once():
    user_items = from_rows([list(range(10_000)), [10_000]], 10_001)
    negatives = sample_negatives(user_items, np.zeros(50, np.int64), generator=np.random.default_rng(0))
    assert (negatives == 10_000).all()


@pytest.mark.parametrize("row", [[], [0, 1, 2], [17], [3, 5, 8, 13, 14, 21], list(range(1, 30))])
def test_uniform_over_what_is_left(row: list[int]):
    user_items = from_rows([row, list(range(31))], 40)
    left = np.setdiff1d(np.arange(31), row)
    n = 1000 * len(left)
    negatives = sample_negatives(user_items, np.zeros(n, np.int64), generator=np.random.default_rng(11))
    observed = np.bincount(negatives, minlength=40)
    assert observed.sum() == observed[left].sum()
    # Pearson's statistic has mean f and variance 2f; five deviations, at a fixed seed.
    freedom = len(left) - 1
    statistic = ((observed[left] - 1000) ** 2 / 1000).sum()
    assert statistic <= freedom + 5 * np.sqrt(2 * max(freedom, 1))


def test_the_generators_state_decides_and_threads_do_not():
    user_items, users = random_interactions(200, 100, 6), users_of(200)
    generator = np.random.default_rng(3)
    first = sample_negatives(user_items, users, generator=generator)
    second = sample_negatives(user_items, users, generator=generator)
    assert (first != second).any()
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        again = sample_negatives(user_items, users, generator=np.random.default_rng(3))
    finally:
        numba.set_num_threads(threads)
    np.testing.assert_array_equal(again, first)


def test_torch_in_torch_out():
    user_items, users = random_interactions(200, 100, 6), users_of(200)
    got = sample_negatives(user_items, torch.from_numpy(users), generator=np.random.default_rng(3))
    assert got.dtype == torch.int32
    wanted = sample_negatives(user_items, users, generator=np.random.default_rng(3))
    np.testing.assert_array_equal(got.numpy(), wanted)
    by_torch = [sample_negatives(user_items, users, generator=torch.Generator().manual_seed(3)) for _ in range(2)]
    np.testing.assert_array_equal(*by_torch)


def test_random_bits_are_splitmix64():
    # The first outputs for seed 1234567, as in the published test vectors of the generator.
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert random_bits(1234567, 4).tolist() == wanted


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (np.array([0, 2]), r"users must lie in \[0, 2\); got \[0, 2\]"),
        (np.array([-1]), r"users must lie in \[0, 2\); got \[-1, -1\]"),
        (np.array([0.0]), r"users must be int32 or int64 \[B\]; got float64 \(1,\)"),
        (np.zeros((1, 1), np.int64), r"got int64 \(1, 1\)"),
    ],
)
def test_refusals_name_the_argument(users, message):
    with pytest.raises(KernelInputError, match=message):
        sample_negatives(from_rows([[0], [1]], 2), users, generator=np.random.default_rng(0))

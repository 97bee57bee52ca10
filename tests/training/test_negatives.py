"""Negatives of an epoch: of others, and as uniform from a pool as without one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR
from scipy.stats import chisquare

from mllmrec.training.loop import Negatives

CPU = torch.device("cpu")
ROWS = [[0, 1, 2], [2], [1, 3, 4, 5, 6, 7], [], [0, 8]]  # of ten items, of which nobody has seen the last
N_ITEMS = 10


def interactions() -> CSR:
    users = np.repeat(np.arange(len(ROWS)), [len(row) for row in ROWS])
    return CSR.from_pairs(users, np.concatenate([*ROWS]).astype(int), (len(ROWS), N_ITEMS))


def drawn(users: np.ndarray, pool: int, batch: int = 16, seed: int = 0) -> np.ndarray:
    generator = torch.Generator().manual_seed(seed)
    return Negatives(interactions(), batch, pool, CPU).draw(torch.from_numpy(users), generator).numpy()


@pytest.mark.parametrize("pool", [0, 1, 4, 1000])
def test_each_negative_is_uniform_over_what_others_have_seen(pool: int) -> None:
    for user, row in enumerate(ROWS):
        left = [item for item in range(N_ITEMS - 1) if item not in row]
        # One pair a batch: within a batch draws from a pool are not independent, which the test takes them to be.
        counts = np.bincount(drawn(np.full(5000, user), pool, batch=1, seed=user), minlength=N_ITEMS)
        assert counts[left].sum() == 5000
        assert chisquare(counts[left]).pvalue > 1e-4


def test_a_batch_has_few_distinct_ones() -> None:
    users = np.full(4000, 3)  # has seen nothing, so keeps nothing of their own
    batches = drawn(users, pool=2, batch=100).reshape(40, 100)
    distinct = [len(np.unique(batch)) for batch in batches]
    assert max(distinct) == 2 and len(np.unique(batches)) == N_ITEMS - 1


def test_who_has_seen_everything_gets_minus_one() -> None:
    seen = CSR.from_pairs(np.array([0, 0, 1]), np.array([0, 1, 0]), (2, 2))
    negatives = Negatives(seen, 8, 4, CPU).draw(torch.tensor([0, 1, 0, 1]), torch.Generator().manual_seed(1))
    assert negatives.tolist() == [-1, 1, -1, 1]


def test_the_last_batch_may_be_short_and_an_epoch_empty() -> None:
    assert len(drawn(np.array([1, 1, 3]), pool=4, batch=2)) == 3
    assert len(drawn(np.array([], np.int64), pool=4)) == 0

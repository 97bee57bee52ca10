"""bpr_loss against its float64 reference, and unique_rows against np.unique."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels import KernelInputError, bpr_loss, unique_rows
from mllmrec_kernels.bpr import cpu, reference, torch_op

# (users, items, width, triples): one of each, odd sizes, rows that many triples share
CASES = [(1, 1, 1, 1), (5, 7, 3, 40), (33, 129, 64, 500), (200, 3, 17, 1000)]


def case(users: int, items: int, width: int, triples: int) -> list[np.ndarray]:
    generator = np.random.default_rng(items)
    tables = [2 * generator.standard_normal((n, width)).astype(np.float32) for n in (users, items)]
    return [*tables, *(generator.integers(n, size=triples) for n in (users, items, items))]


def differentiated(loss, arrays: list[np.ndarray]) -> tuple[float, np.ndarray, np.ndarray]:
    u, i, *triples = map(torch.from_numpy, arrays)
    u.requires_grad_(), i.requires_grad_()
    made = loss(u, i, *triples)
    (3 * made).backward()  # what comes after a loss scales its gradient
    return float(made.detach()), u.grad.numpy() / 3, i.grad.numpy() / 3


@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("loss", [bpr_loss, torch_op.in_one_pass, torch_op.by_operations])
def test_it_is_the_reference(sizes: tuple[int, ...], loss) -> None:
    arrays = case(*sizes)
    got, wanted = differentiated(loss, arrays), reference.bpr_loss(*arrays)
    # An inner product of d float32 terms is off by at most d 2^-24 |u||p - n|, below 1e-4 for these sizes and scales;
    # loss and slope change by no more than their argument does.
    for ours, theirs in zip(got, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=1e-4)


def test_every_number_of_the_gradient_is_written() -> None:
    arrays = case(33, 129, 64, 50)
    poisoned = [np.full_like(table, np.nan) for table in arrays[:2]]
    cpu.bpr_loss(*arrays, *poisoned)
    assert all(np.isfinite(table).all() for table in poisoned)


@pytest.mark.parametrize("score", [0.0, 1e-30, 80.0, -80.0, 3e4, -3e4])
def test_extreme_scores_neither_overflow_nor_vanish(score: float) -> None:
    arrays = [np.array([[1.0]], np.float32), np.array([[score], [0.0]], np.float32)]
    arrays += [np.array([0]), np.array([0]), np.array([1])]
    loss, by_users, by_items = differentiated(bpr_loss, arrays)
    assert loss == pytest.approx(np.logaddexp(0, -score), rel=1e-6)
    assert np.isfinite(by_users).all()
    # Compared at a distance that float32 can tell: exp(-80) is a float32 number, exp(-3e4) is 0.
    assert by_items[0, 0] == pytest.approx(-np.exp(-np.logaddexp(0, score)), rel=1e-5)


def test_what_is_not_a_number_shows() -> None:
    arrays = case(5, 7, 3, 40)
    arrays[0][arrays[2][0]] = np.nan
    assert np.isnan(float(bpr_loss(*map(torch.from_numpy, arrays))))


def test_other_floats_and_strided_tables() -> None:
    u, i, *triples = map(torch.from_numpy, case(33, 129, 64, 500))
    wanted = float(bpr_loss(u, i, *triples))
    assert float(bpr_loss(u.T.contiguous().T, i.T.contiguous().T, *triples)) == wanted
    assert float(bpr_loss(u.double(), i.double(), *triples)) == pytest.approx(wanted, rel=1e-5)
    low = bpr_loss(u.bfloat16(), i.bfloat16(), *triples)
    assert low.dtype == torch.float32 and float(low) == pytest.approx(wanted, rel=0.02)


def test_what_it_refuses() -> None:
    u, i, *triples = map(torch.from_numpy, case(5, 7, 3, 40))
    with pytest.raises(KernelInputError, match=r"of one dtype; got torch.float32 \(5, 2\) and torch.float32 \(7, 3\)"):
        bpr_loss(u[:, :2], i, *triples)
    with pytest.raises(KernelInputError, match=r"one at least; got 40, 40 and 39"):
        bpr_loss(u, i, triples[0], triples[1], triples[2][:-1])
    with pytest.raises(KernelInputError, match=r"one at least; got 0, 0 and 0"):
        bpr_loss(u, i, *(ids[:0] for ids in triples))


@pytest.mark.parametrize("ids", [[], [7], [3, 3, 3], [5, 0, 5, 2**62, -1, 0, -(2**63)]])
def test_unique_rows_is_unique_in_the_order_of_meeting(ids: list[int]) -> None:
    given = np.array(ids, np.int64)
    rows, which = unique_rows(given)
    assert rows.tolist() == list(dict.fromkeys(ids))
    assert (rows[which] == given).all()


def test_unique_rows_of_many() -> None:
    for n, below in ((4096, 7050), (4096, 2**40), (1000, 3), (1, 1)):
        ids = np.random.default_rng(n).integers(below, size=n) * 4096  # alike in their last bits
        rows, which = unique_rows(ids)
        assert np.array_equal(np.sort(rows), np.unique(ids)) and np.array_equal(rows[which], ids)

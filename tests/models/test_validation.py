"""Candidates are judged on all users or on a sample, and those behind by more than the error are given up."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.foundation.progress import Progress, silent
from mllmrec.models import validation as judging
from mllmrec.models.validation import Validation, is_behind, only_users, sample_summary, validation_ndcg

USERS, ITEMS = 400, 30


def interactions() -> tuple[CSR, CSR]:
    """Everybody has item 0 and holds out item 1 + u mod 9; user 3 holds out nothing, user 5 has nothing."""
    users = np.arange(USERS)
    owners, held = users[users != 5], users[users != 3]
    shape = (USERS, ITEMS)
    return CSR.from_pairs(owners, np.zeros_like(owners), shape), CSR.from_pairs(held, 1 + held % 9, shape)


class Placed:
    """Ranks every held-out item at one place, and remembers who was ranked."""

    def __init__(self, place: int) -> None:
        self.place, self.users = place, list[int]()

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        self.users += heldout.rows().tolist()
        return np.full(heldout.nnz, self.place, np.int32)


def test_few_users_are_all_judged_and_the_first_of_equals_is_best() -> None:
    train, valid = interactions()
    validation = Validation(train, valid)
    candidates = [Placed(3), Placed(1), Placed(1)]
    assert validation.best("places", candidates) == (1, candidates[1])
    assert not validation.is_sampled and validation.record == {} and sample_summary({}) == ""
    known = sorted(set(range(USERS)) - {3, 5})
    assert validation.users.tolist() == known and validation.total == len(known)
    assert validation.judgments[1].ndcg == pytest.approx(1 / np.log2(3)) == validation_ndcg(candidates[1], train, valid)
    assert [one.users for one in validation.judgments] == [398, 398, 398]


def test_a_candidate_that_is_behind_is_given_up_after_the_first_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judging, "SAMPLED_USERS", 80)
    validation = Validation(*interactions(), seed=4)
    good, bad, better = Placed(2), Placed(9), Placed(0)
    assert validation.best("places", [good, bad, better]) == (2, better)
    assert validation.is_sampled and len(validation.users) == 80 and len(set(validation.users)) == 80
    assert sorted(good.users) == validation.users.tolist() == sorted(better.users)
    assert len(bad.users) == 10 and set(bad.users) <= set(good.users)
    record = validation.record
    assert (record["users"], record["of"], record["seed"]) == (80, 398, 4)
    assert [one["users"] for one in record["judgments"]] == [80, 10, 80]
    assert sample_summary(record) == "chosen on 80 of 398 validation users, standard error 0.0000"
    assert Validation(*interactions(), seed=4).users.tolist() == validation.users.tolist()
    assert Validation(*interactions(), seed=5).users.tolist() != validation.users.tolist()


def test_behind_is_more_than_two_standard_errors_below() -> None:
    spread = np.tile([-1.0, 1.0], 50)  # its mean is 0, its standard error 0.1005
    assert is_behind(spread - 0.21) and not is_behind(spread - 0.20)
    assert not is_behind(np.array([-1.0])) and not is_behind(np.array([-1.0, np.nan]))
    assert is_behind(np.array([-1.0, np.nan, -1.0]))


def test_the_rows_of_other_users_are_emptied() -> None:
    matrix = CSR.from_pairs(np.array([0, 0, 1, 3]), np.array([1, 2, 0, 4]), (4, 5))
    kept = only_users(matrix, np.array([0, 3]))
    np.testing.assert_array_equal(kept.to_scipy().toarray(), matrix.to_scipy().toarray() * [[1], [0], [0], [1]])

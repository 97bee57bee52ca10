"""The strength of a ridge, chosen by all items or by a sample of them."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_kernels import CSR

from mllmrec.dataset import Dataset
from mllmrec.foundation.progress import silent
from mllmrec.models import ridge_strengths
from mllmrec.models.ridge import Strengths, ridge_support, ridge_weights, solve_ridges
from mllmrec.models.ridge_strengths import fit_ridges
from mllmrec.models.validation import Validation, validation_ndcg
from mllmrec.models.weight_scorers import WeightsScorer

STRENGTHS = ((1.0, 2.0), (30.0, 1.0))


def fit(dataset: Dataset, vectors: np.ndarray) -> tuple[list[tuple[int, CSR]], Validation, list[int], list[list[CSR]]]:
    """Return a fit on two tables, its validation, how many regressions each solution took, and all W."""
    R, tables, solved = dataset.train, (vectors, vectors[:, :2].copy()), list[int]()
    support = ridge_support(vectors, R, 6, 6)

    def solve(used: list[np.ndarray], on: CSR, strengths: Strengths) -> np.ndarray:
        solved.append(len(used) * len(strengths) * int((np.diff(on.indptr) > 0).sum()))
        return solve_ridges(used, R, on, strengths)

    validation = Validation(R, dataset.matrix("valid"), 3)
    fitted = fit_ridges(validation, tables, support, STRENGTHS, solve, silent)
    return fitted, validation, solved, [ridge_weights(V, R, support, STRENGTHS) for V in tables]


def best(validation: Validation, table: int) -> int:
    """Return the better strength of a table by the judgments."""
    return int(np.argmax([one.ndcg for one in validation.judgments[2 * table : 2 * table + 2]]))


def test_few_items_are_solved_at_every_strength(dataset: Dataset, vectors: np.ndarray) -> None:
    fitted, validation, solved, alone = fit(dataset, vectors)
    assert solved == [4 * dataset.n_items]
    for n, (chosen, W) in enumerate(fitted):
        assert chosen == best(validation, n) and W.values().tobytes() == alone[n][chosen].values().tobytes()
    assert validation_ndcg(WeightsScorer(dataset.train, fitted[0][1]), dataset.train, dataset.matrix("valid")) > 0
    assert [one.candidate for one in validation.judgments] == [f"ridges {n} of 2, {m}" for n in (1, 2) for m in (1, 2)]


def test_of_many_items_a_sample_chooses_and_the_others_are_solved_once(
    dataset: Dataset, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ridge_strengths, "SAMPLED_ITEMS", dataset.n_items // 3)
    monkeypatch.setattr(ridge_strengths, "BLOCK", 2)
    fitted, validation, solved, alone = fit(dataset, vectors)
    sampled = int((np.arange(dataset.n_items) // 2 % 3 == 0).sum())
    assert solved[0] == 4 * sampled and sum(solved[1:]) == 2 * (dataset.n_items - sampled)
    for n, (chosen, W) in enumerate(fitted):
        expected = alone[n][chosen]
        assert chosen == best(validation, n) and np.array_equal(W.indices, expected.indices)
        assert W.values().tobytes() == expected.values().tobytes()
    first, other = validation.judgments[:2]
    assert first.candidate == f"ridges 1 of 2 on {sampled} of {dataset.n_items} items, 1"
    assert first.ndcg != other.ndcg and 0 < other.users <= len(validation.users)

"""Scores R X^T X and ranks by them, against scipy's products and against counting."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR, KernelInputError
from mllmrec_kernels.mixed import gram
from mllmrec_kernels.mixed.gram import gram_factor, rank_by_gram, score_by_gram


def case(users: int, items: int, density: float, seed: int = 0) -> tuple[CSR, sp.csr_array, CSR]:
    """Random R and X on one pattern, a tenth of X zero, and held-out items beside it; some users have nothing."""
    rng = np.random.default_rng(seed)
    drawn = rng.random((users, items))
    owned, held = drawn < density, (drawn > 1 - density / 2)
    owned[: users // 10] = False
    X = np.where(owned, rng.uniform(-0.5, 1, owned.shape) * (rng.random(owned.shape) > 0.1), 0)
    R, H = (CSR.from_scipy(sp.csr_array(matrix.astype(np.float32)), binary=True) for matrix in (owned, held))
    return R, sp.csr_array(X), H


@pytest.mark.parametrize("sizes", [(1, 1, 0.9), (40, 30, 0.2), (700, 90, 0.05), (30, 400, 0.1)])
def test_scores_have_the_bits_of_scipy(sizes: tuple[int, int, float]) -> None:
    R, X, _ = case(*sizes)
    expected = (R.to_scipy().astype(np.float64) @ X.T @ X).toarray().astype(np.float32)
    assert score_by_gram(gram_factor(X), R).to_scipy().toarray().tobytes() == expected.tobytes()


@pytest.mark.parametrize("piece", [1, 256])
def test_ranks_are_counted_and_ties_go_to_the_lower_id(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gram, "_USERS", piece)
    R, X, H = case(60, 35, 0.15)
    X.data = np.rint(3 * X.data)  # many equal scores, and zeros
    ranks, scores = rank_by_gram(gram_factor(X), R, R, H), (R.to_scipy() @ X.T @ X).toarray()
    assert len(np.unique(scores)) < scores.size / 20
    expected = []
    for user, item in zip(H.rows(), H.indices, strict=True):
        allowed = [i for i in range(35) if i not in R.row(user)]
        expected.append(sorted(allowed, key=lambda i: (-scores[user, i], i)).index(item))
    assert ranks.tolist() == expected and max(expected) > 20


def test_nobody_has_no_scores_and_what_is_not_finite_is_refused() -> None:
    R, X, H = case(20, 9, 0.3)
    nobody, none = R.take_rows(np.zeros(0, int)), H.take_rows(np.zeros(0, int))
    assert score_by_gram(gram_factor(X), nobody).shape == (0, 9)
    assert rank_by_gram(gram_factor(X), nobody, nobody, none).shape == (0,)
    X.data[0] = np.nan
    with pytest.raises(KernelInputError, match="X must be finite"):
        gram_factor(X)

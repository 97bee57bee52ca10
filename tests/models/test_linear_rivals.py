"""Linear rivals against the formulas of their papers, written out densely."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, TrainingError
from mllmrec.models import registry
from mllmrec.models.ease import EDLAE
from mllmrec.models.gfcf import GFCF
from mllmrec.models.l3ae import L3AE, AdditiveEASE
from mllmrec.models.mrf import MRF
from mllmrec.models.sansa import SANSA, product
from mllmrec.models.turbo_cf import MMGF, TurboCF, strongest


def dense(R: CSR) -> np.ndarray:
    return R.to_scipy().toarray().astype(np.float64)


def weights(model) -> np.ndarray:
    W = model.sums.weights
    return W if isinstance(W, np.ndarray) else W.to_scipy().toarray()


def regressed(A: np.ndarray) -> np.ndarray:
    """Each column solved as a regression on all others, by normal equations."""
    B = np.zeros_like(A)
    for j in range(len(A)):
        others = np.delete(np.arange(len(A)), j)
        B[others, j] = np.linalg.solve(A[np.ix_(others, others)], A[others, j])
    return B


@pytest.fixture
def content(vectors: np.ndarray) -> np.ndarray:
    V = vectors.astype(np.float64)
    return regressed(V @ V.T + 4 * np.eye(len(V)))


def test_l3ae_minimises_its_objective_item_by_item(dataset: Dataset, vectors: np.ndarray, content: np.ndarray) -> None:
    settings = {"regularization": -5, "content_pull": 30, "content_regularization": 4}
    B = weights(L3AE(**settings).fit(dataset.train, item_features=vectors))
    R = dense(dataset.train)
    G = R.T @ R
    for j in (0, 7, 41):
        others = np.delete(np.arange(len(G)), j)
        left = G[np.ix_(others, others)] + 25 * np.eye(len(others))  # lambda + w
        expected = np.linalg.solve(left, G[others, j] + 30 * content[others, j])
        np.testing.assert_allclose(B[others, j], expected, atol=1e-6)
        assert B[j, j] == 0


def test_l3ae_without_vectors_is_ease_and_its_strengths_must_be_above_zero(dataset: Dataset) -> None:
    B = weights(L3AE(regularization=-5, content_pull=30).fit(dataset.train))
    R = dense(dataset.train)
    np.testing.assert_allclose(B, regressed(R.T @ R + 25 * np.eye(R.shape[1])), atol=1e-6)
    with pytest.raises(ConfigError, match="must together be above 0"):
        L3AE(regularization=-200)


def test_additive_ease_is_the_sum_of_both_sides(dataset: Dataset, vectors: np.ndarray, content: np.ndarray) -> None:
    settings = {"regularization": 20, "content_regularization": 4, "interaction_share": 0.3}
    B = weights(AdditiveEASE(**settings).fit(dataset.train, item_features=vectors))
    R = dense(dataset.train)
    np.testing.assert_allclose(B, 0.3 * regressed(R.T @ R + 20 * np.eye(R.shape[1])) + 0.7 * content, atol=1e-6)


def test_edlae_is_ease_with_the_penalty_of_dropout(dataset: Dataset) -> None:
    B = weights(EDLAE(dropout=0.4, regularization=7).fit(dataset.train))
    G = dense(dataset.train).T @ dense(dataset.train)
    np.testing.assert_allclose(B, regressed(G + 7 * np.eye(len(G)) + np.diag(0.4 / 0.6 * np.diag(G))), atol=1e-6)


@pytest.mark.parametrize("limit", [0.3, 1.0])
def test_rdlae_is_the_best_matrix_whose_diagonal_stays_below_its_limit(dataset: Dataset, limit: float) -> None:
    """B minimizes |R - R B|² + |L^1/2 B|² with B_jj <= limit, a convex problem: any feasible step is worse."""
    B = weights(EDLAE(dropout=0.2, regularization=3, diagonal_limit=limit).fit(dataset.train))
    G = dense(dataset.train).T @ dense(dataset.train)
    penalty = 3 + 0.25 * np.diag(G)
    A, n = G + np.diag(penalty), len(G)
    for j in (2, 30):
        free = np.linalg.solve(A, G[:, j])
        if free[j] <= limit:
            expected = free
        else:  # its diagonal at the limit, all others the best beside it
            others = np.delete(np.arange(n), j)
            expected = np.insert(np.linalg.solve(A[np.ix_(others, others)], (1 - limit) * G[others, j]), j, limit)
        expected[j] = 0
        np.testing.assert_allclose(B[:, j], expected, atol=1e-6)


def test_mrf_regresses_each_item_on_those_it_correlates_with(dataset: Dataset) -> None:
    settings = {"threshold": 0.1, "support": 6, "popularity_scaling": 0.6, "regularization": 0.5}
    B = weights(MRF(**settings).fit(dataset.train))
    R = dense(dataset.train)
    centered = R - R.mean(axis=0)
    variance = (centered**2).sum(axis=0)
    scaled = centered / variance**0.3
    S, shared = scaled.T @ scaled, R.T @ R > 0
    for j in range(len(S)):
        size = np.where(shared[j], np.abs(S[j]), 0)
        size[j] = 0
        near = np.lexsort((np.arange(len(S)), -size.round(12)))[:6]
        near = np.sort(near[size[near] > 0.1])
        expected = np.zeros(len(S))
        b = np.linalg.solve(S[np.ix_(near, near)] + 0.5 * np.eye(len(near)), S[near, j])
        expected[near] = b * (variance[j] / variance[near]) ** 0.3
        np.testing.assert_allclose(B[:, j], expected, atol=1e-5)


def item_similarity(R: np.ndarray, a: float, s: float) -> np.ndarray:
    rows, columns = R.sum(axis=1), R.sum(axis=0)
    scaled = rows[:, None] ** -a * R * columns ** (a - 1)
    return (scaled.T @ scaled) ** s


FORMS = {
    "linear": lambda P: P,
    "second": lambda P: 2 * P - P @ P,
    "third": lambda P: P + 0.01 * (-P @ P @ P + 10 * P @ P - 29 * P),
}


@pytest.mark.parametrize("form", FORMS)
def test_turbo_cf_is_a_polynomial_of_item_similarities(dataset: Dataset, form: str) -> None:
    R = dense(dataset.train)
    model = TurboCF(filter=form, exponent=0.4, power=0.8).fit(dataset.train)
    S = R @ FORMS[form](item_similarity(R, 0.4, 0.8))
    scores, new = model.scores(np.arange(len(R))), R == 0
    np.testing.assert_allclose(scores[new], S[new], rtol=1e-4, atol=1e-6)


def test_mm_gf_adds_the_filter_of_shifted_item_vectors(dataset: Dataset, vectors: np.ndarray) -> None:
    R = dense(dataset.train)
    model = MMGF(filter="second", exponent=0.4, power=0.8, content_weight=5).fit(dataset.train, item_features=vectors)
    low, middle, high = np.percentile(vectors, (25, 50, 75), axis=0)
    V = (vectors - middle) / (high - low)
    V = V - V.min(axis=0)
    f = FORMS["second"]
    S = R @ (f(item_similarity(R, 0.4, 0.8)) + 5 * f(item_similarity(V.T, 0.4, 0.8)))
    new = R == 0
    np.testing.assert_allclose(model.scores(np.arange(len(R)))[new], S[new], rtol=1e-3, atol=1e-4)


def test_gf_cf_is_a_linear_filter_plus_a_low_pass(dataset: Dataset, tmp_path: Path) -> None:
    R = dense(dataset.train)
    model = GFCF(factors=5, filter_weight=0.3).fit(dataset.train)
    by_user, by_item = R.sum(axis=1), R.sum(axis=0)
    scaled = R / np.sqrt(by_user[:, None] * by_item)
    V = np.linalg.svd(scaled)[2][:5].T
    S = R @ (scaled.T @ scaled + 0.3 * (V / by_item[:, None] ** 0.5) @ (V.T * by_item**0.5))
    scores, new = model.scores(np.arange(len(R))), R == 0
    np.testing.assert_allclose(scores[new], S[new], rtol=1e-4, atol=1e-5)
    _, best = model.recommend([3, 9], 4)
    S[R > 0] = -np.inf
    np.testing.assert_allclose(best, -np.sort(-S[[3, 9]], axis=1)[:, :4], rtol=1e-4)


def test_the_strongest_entries_are_those_of_largest_size_and_of_equal_ones_the_lower() -> None:
    rows = np.array([[0.0, -3, 1, 3], [2, 2, 2, 0]])
    kept = strongest(sp.csr_array(rows), 2).toarray()
    assert kept.tolist() == [[0, -3, 0, 3], [2, 2, 0, 0]]


def test_sansa_multiplies_its_factors_and_says_how_to_install_it(dataset: Dataset) -> None:
    A, B = np.random.default_rng(0).standard_normal((2, 9, 9))
    np.testing.assert_allclose(product(*map(sp.csr_array, (A, B)), 9).toarray(), A @ B)
    if find_spec("sansa"):
        pytest.skip("sansa is installed")
    with pytest.raises(ConfigError, match=r"model.kind=sansa needs sansa, .*pip install 'mllmrec\[sansa\]'"):
        SANSA().fit(dataset.train)


@pytest.mark.parametrize("kind", ["l3ae", "additive-ease", "edlae"])
def test_dense_rivals_refuse_a_catalogue_beyond_their_memory_in_one_line(dataset: Dataset, kind: str) -> None:
    model = registry.find(kind)(dense_gib=1e-6)
    with pytest.raises(TrainingError, match=r"over \d+ items needs 0\.0 GiB of dense matrices.*take model\.kind=ridge"):
        model.fit(dataset.train)

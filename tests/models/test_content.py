"""The learnt projection and the leave-one-out prediction against dense algebra, and factors that lean on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from mllmrec_kernels import CSR

from mllmrec.dataset import Dataset, Histories
from mllmrec.models import content as projection
from mllmrec.models import ordered_sums
from mllmrec.models.content import LeaveOneOutRegression, project_vectors
from mllmrec.models.ials import alternate

PLAIN = {"factors": 8, "unobserved_weight": 1.0, "regularization": 0.05, "iterations": 10, "seed": 0}


def centred(vectors: np.ndarray) -> np.ndarray:
    return vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)


@pytest.mark.parametrize("block", [7, 1 << 14])
def test_cosines_of_the_projection_are_the_two_sided_regression(
    dataset: Dataset, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Written out with its I x I matrix in float64."""
    for module in (projection, ordered_sums):
        monkeypatch.setattr(module, "ROWS", block)
    R, V = dataset.train.to_scipy().toarray().astype(np.float64), centred(vectors)
    scaled = R / np.sqrt(np.maximum(R.sum(1, keepdims=True), 1) * np.maximum(R.sum(0), 1))
    C = scaled.T @ scaled
    np.fill_diagonal(C, 0)
    regression = np.linalg.solve(V.T @ V + 0.1 * np.trace(V.T @ V) / 16 * np.eye(16), V.T)  # [d, I]
    values, Q = np.linalg.eigh(regression @ C @ regression.T)
    similar = V @ Q @ np.diag(np.maximum(values, 0)) @ Q.T @ V.T
    norms = np.sqrt(np.diag(similar))
    Z = project_vectors(vectors, dataset.train)
    assert Z.dtype == np.float32 and Z.shape[1] == (values > 0).sum()
    np.testing.assert_allclose(np.linalg.norm(Z, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(Z @ Z.T, similar / np.outer(norms, norms), atol=1e-4)


def tastes(n_users: int, n_items: int) -> tuple[Histories, np.ndarray, np.ndarray]:
    """Users of two tastes; vectors in which the taste is one weak coordinate and the loud ones are noise."""
    generator = np.random.default_rng(4)
    taste, kind = np.arange(n_users) % 2, np.arange(n_items) % 2
    R = (taste[:, None] == kind) & (generator.random((n_users, n_items)) < 0.3)
    vectors = generator.standard_normal((n_items, 8)).astype(np.float32)
    vectors[:, 0] = 0.3 * (2 * kind - 1) + 0.05 * vectors[:, 0]
    return _histories(R), vectors, kind


def _histories(R: np.ndarray) -> Histories:
    matrix = CSR.from_pairs(*np.nonzero(R), R.shape)
    return Histories(matrix.indptr, matrix.indices, None, R.shape[1], "train")


def test_the_projection_finds_the_coordinate_that_customers_buy_by() -> None:
    histories, vectors, kind = tastes(200, 60)
    same = (kind[:, None] == kind) & ~np.eye(60, dtype=bool)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    Z = project_vectors(vectors, histories.user_items())

    def gap(points: np.ndarray) -> float:
        cosines = points @ points.T
        return float(cosines[same].mean() - cosines[kind[:, None] != kind].mean())

    assert gap(unit) < 0.1 and gap(Z) > 1


@pytest.mark.parametrize("block", [5, 1 << 14])
def test_an_item_has_no_part_in_its_own_prediction(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """As the regression fitted without it says; and changing its row changes all predictions but its own."""
    for module in (projection, ordered_sums):
        monkeypatch.setattr(module, "ROWS", block)
    generator = np.random.default_rng(5)
    vectors, table = (generator.standard_normal((23, n)).astype(np.float32) for n in (6, 4))
    X = centred(vectors)
    damping = np.trace(X.T @ X) / 6 * np.eye(6)
    content = LeaveOneOutRegression(vectors)
    got = content.predict(table)
    assert got.dtype == np.float32
    for item in (0, 4, 5, 22):
        others = np.delete(np.arange(23), item)
        fitted = np.linalg.solve(X[others].T @ X[others] + damping, X[others].T @ table[others].astype(np.float64))
        np.testing.assert_allclose(got[item], X[item] @ fitted, rtol=1e-3, atol=1e-5)
    table[4] += 100
    np.testing.assert_allclose(content.predict(table)[4], got[4], atol=1e-3)
    assert np.abs(content.predict(table)[5] - got[5]).max() > 0.1


def test_items_lean_on_what_their_vectors_predict(dataset: Dataset, vectors: np.ndarray) -> None:
    """The last half-sweep solves each item's normal equations; its prior is the prediction of the sweep before."""
    content = LeaveOneOutRegression(vectors)
    settings = {"factors": 5, "unobserved_weight": 2.0, "regularization": 0.1, "seed": 1, "content": content}
    before, fitted = (alternate(dataset.train, iterations=iterations, **settings) for iterations in (3, 4))
    prior = content.predict(before.items).astype(np.float64)
    R, P = dataset.train.to_scipy().toarray(), fitted.users.astype(np.float64)
    share = 2 * R.mean(dtype=np.float64)
    for item in range(dataset.n_items):
        audience = P[R[:, item] > 0]
        shrink = 0.1 * (len(audience) + share * len(R))
        system = audience.T @ audience + share * P.T @ P + shrink * np.eye(5)
        wanted = np.linalg.solve(system, audience.sum(0) + shrink * prior[item])
        np.testing.assert_allclose(fitted.items[item], wanted, rtol=1e-3, atol=1e-4)


def test_an_item_that_nobody_bought_is_recommended_by_what_it_is_like() -> None:
    histories, vectors, _ = tastes(200, 60)
    R = histories.user_items().to_scipy().toarray() > 0
    R[:, :2] = False  # one of each kind
    cold = _histories(R)
    Z = project_vectors(vectors, cold.user_items())
    fitted = alternate(cold.user_items(), **PLAIN, content=LeaveOneOutRegression(Z)).scores(np.arange(200))
    own, other = np.arange(200) % 2, 1 - np.arange(200) % 2
    assert (fitted[np.arange(200), own] > fitted[np.arange(200), other]).mean() > 0.9
    plain = alternate(cold.user_items(), **PLAIN).scores(np.arange(200))
    assert not plain[:, :2].any()


def test_vectors_that_say_nothing_project_to_zeros_and_predict_zero(dataset: Dataset, vectors: np.ndarray) -> None:
    alike = np.tile(vectors[:1], (dataset.n_items, 1))
    assert not project_vectors(alike, dataset.train).any()
    table = np.ones((dataset.n_items, 3), np.float32)
    assert not LeaveOneOutRegression(alike).predict(table).any()
    nobody = replace(dataset.histories(), items=np.empty(0, np.int32), indptr=np.zeros(dataset.n_users + 1, np.int64))
    assert project_vectors(vectors, nobody.user_items()).shape == (dataset.n_items, 1)

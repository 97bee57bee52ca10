"""Dense rivals over a thousand items: the formulas with every matrix formed, and the memory of a fit."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.errors import TrainingError
from mllmrec.models import registry
from mllmrec.models.dense_weights import _BLOCK, invert

ITEMS = 2 * _BLOCK + 76  # three blocks, the last one smaller
DENSE = {
    "ease": {"content_weight": 20, "regularization": 5},
    "edlae": {"dropout": 0.3, "regularization": 5},
    "l3ae": {"content_pull": 30, "regularization": -5, "content_regularization": 4},
    "additive-ease": {"interaction_share": 0.6, "regularization": 5, "content_regularization": 4},
}


@pytest.fixture(scope="module")
def user_items() -> CSR:
    drawn = sp.random_array((900, ITEMS), density=0.02, rng=np.random.default_rng(1), format="csr")
    return CSR.from_scipy((drawn > 0).astype(np.float32))


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    V = np.random.default_rng(2).normal(size=(ITEMS, 24)) + 0.5
    return (V / np.linalg.norm(V, axis=1, keepdims=True)).astype(np.float32)


def regressed(P: np.ndarray) -> np.ndarray:
    B = -P / np.diag(P)
    np.fill_diagonal(B, 0)
    return B


def formed(kind: str, R: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Return B with every matrix of items x items formed, C among them."""
    V, one, G = vectors.astype(np.float64), np.eye(ITEMS), R.T @ R
    C = regressed(np.linalg.inv(V @ V.T + 4 * one))
    if kind == "ease":
        return regressed(np.linalg.inv(G + 20 * V @ V.T + 5 * one))
    if kind == "edlae":
        return regressed(np.linalg.inv(G + 5 * one + np.diag(3 / 7 * np.diag(G))))
    if kind == "additive-ease":
        return 0.6 * regressed(np.linalg.inv(G + 5 * one)) + 0.4 * C
    P = np.linalg.inv(G + 25 * one)
    PC = 30 * P @ C
    B = PC - P * ((1 + np.diag(PC)) / np.diag(P))
    np.fill_diagonal(B, 0)
    return B


@pytest.mark.parametrize("kind", DENSE)
def test_weights_are_those_of_the_formula_to_a_millionth(kind: str, user_items: CSR, vectors: np.ndarray) -> None:
    model = registry.find(kind)(**DENSE[kind]).fit(user_items, item_features=vectors)
    expected = formed(kind, user_items.to_scipy().toarray().astype(np.float64), vectors)
    assert model.weights.dtype == np.float32 and model.weights.flags.c_contiguous
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(model.weights, expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("kind", ["l3ae", "additive-ease"])
@pytest.mark.parametrize("is_wide", [False, True])
def test_a_regression_whose_regularization_is_lost_in_rounding_is_refused(kind: str, is_wide: bool) -> None:
    R = CSR.from_scipy(sp.random_array((40, 30), density=0.2, rng=np.random.default_rng(4), format="csr"))
    V = np.random.default_rng(5).normal(size=(30, 40)).astype(np.float32)
    V = V if is_wide else np.repeat(V[:, :2], 3, axis=1)  # wide: vectors of more columns than items; else of rank 2
    for regularization in (1e-14, 1e-20):
        with pytest.raises(TrainingError, match=r"model\.content_regularization=1e-(14|20), .*; raise it"):
            registry.find(kind)(content_regularization=regularization).fit(R, item_features=V)
    assert np.isfinite(registry.find(kind)(content_regularization=1e-6).fit(R, item_features=V).weights).all()


@pytest.mark.parametrize("kind", DENSE)
def test_a_fit_holds_one_and_a_half_matrices_and_four_blocks(kind: str) -> None:
    n, rng = 3_000, np.random.default_rng(4)
    drawn = sp.random_array((500, n), density=0.003, rng=rng, format="csr")
    user_items, V = CSR.from_scipy((drawn > 0).astype(np.float32)), rng.normal(size=(n, 8)).astype(np.float32)
    model = registry.find(kind)(**DENSE[kind])
    tracemalloc.start()
    model.fit(user_items, item_features=V)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * (1.5 * n * n + 4 * _BLOCK * n)


def test_the_inverse_reads_one_triangle_and_writes_both() -> None:
    A = np.random.default_rng(3).normal(size=(ITEMS, ITEMS))
    G = A @ A.T + ITEMS * np.eye(ITEMS)
    half = np.tril(G) + np.triu(np.full_like(G, np.nan), 1)
    invert(half, "EASE")
    np.testing.assert_allclose(half, np.linalg.inv(G), rtol=1e-9, atol=1e-12)
    assert (half == half.T).all()


def test_a_matrix_that_is_not_definite_says_what_to_raise() -> None:
    A = np.eye(ITEMS)
    A[-1, -1] = -1.0  # in the last block
    with pytest.raises(TrainingError, match=r"EASE's matrix is not positive definite; raise model\.regularization"):
        invert(A, "EASE")

"""The closed forms against dense float64 algebra, and what they may not see or hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import CSR, cooccurrence_topk, topk_cosine

from mllmrec.config import ModelConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import LeakError, TrainingError
from mllmrec.models.item_weights import ItemWeights, ease, ridge, ridge_support
from mllmrec.models.scorer import WeightsScorer


def dense(R: CSR) -> np.ndarray:
    return R.to_scipy().toarray().astype(np.float64)


def gram(dataset: Dataset, vectors: np.ndarray, w: float, lam: float) -> np.ndarray:
    R, V = dense(dataset.train), vectors.astype(np.float64)
    return R.T @ R + w * V @ V.T + lam * np.eye(len(V))


@pytest.mark.parametrize("w", [0.0, 7.0])
def test_ease_is_its_closed_form(dataset: Dataset, vectors: np.ndarray, w: float) -> None:
    fitted = ease(vectors, dataset.histories(), ModelConfig(content_weight=w, regularisation=30))
    P = np.linalg.inv(gram(dataset, vectors, w, 30))
    B = -P / np.diag(P)[None, :]
    np.fill_diagonal(B, 0)
    np.testing.assert_allclose(fitted.weights, B, atol=1e-6)  # float32 weights below 1
    expected = (dense(dataset.train) @ B)[3:9]
    np.testing.assert_allclose(fitted.scorer.scores(3, 9), expected, atol=1e-5)


def test_each_column_of_ease_minimises_its_own_regression(dataset: Dataset, vectors: np.ndarray) -> None:
    """B_j solves the ridge regression of item j on all others, by normal equations (EASE, section 3)."""
    B = ease(vectors, dataset.histories(), ModelConfig(content_weight=3, regularisation=20)).weights
    G = gram(dataset, vectors, 3, 20)
    for j in (0, 7, 41):
        others = np.delete(np.arange(len(G)), j)
        expected = np.linalg.solve(G[np.ix_(others, others)], G[others, j])
        np.testing.assert_allclose(B[others, j], expected, atol=1e-6)


def test_a_ridge_over_all_neighbours_is_ease(dataset: Dataset, vectors: np.ndarray) -> None:
    config = ModelConfig(content_weight=3, regularisation=20, semantic_support=dataset.n_items)
    fitted = ridge(vectors, dataset.histories(), config)
    np.testing.assert_allclose(
        fitted.scorer.weights.toarray(), ease(vectors, dataset.histories(), config).weights, atol=1e-5
    )


def test_the_support_is_both_neighbourhoods_and_the_weights_lie_on_it(dataset: Dataset, vectors: np.ndarray) -> None:
    config = ModelConfig(cooccurrence_support=4, semantic_support=3)
    R = dataset.train
    support = ridge_support(vectors, R, config)
    near, alike = cooccurrence_topk(R, 4)[0], topk_cosine(vectors, 3)[0]
    for j in range(dataset.n_items):
        assert set(support.row(j)) == (set(near[j]) | set(alike[j])) - {-1}
    fitted = ridge(vectors, dataset.histories(), config)
    assert np.array_equal(fitted.weights.transpose().indices, support.indices)
    item = 11
    incoming = fitted.scorer.weights.toarray()[:, item]
    ids, values = fitted.similar(2)
    assert ids[item, 0] == incoming.argmax() and values[item, 0] == incoming.max()


def test_scores_are_the_rows_of_the_users_items_and_ranks_follow(dataset: Dataset, vectors: np.ndarray) -> None:
    fitted = ridge(vectors, dataset.histories(), ModelConfig(cooccurrence_support=5, semantic_support=5))
    S = dense(dataset.train) @ fitted.scorer.weights.toarray()
    valid = dataset.matrix("valid")
    ranks = fitted.scorer.ranks(dataset.train, valid)
    ids, scores = fitted.scorer.top(np.array([4, 2]), 6, dataset.train.take_rows(np.array([4, 2])))
    S[dense(dataset.train) > 0] = -np.inf
    user, item = int(valid.rows()[0]), int(valid.indices[0])
    ahead = S[user].astype(np.float32) > np.float32(S[user, item])
    assert abs(int(ranks[0]) - ahead.sum()) <= 1  # sums of float32 in another order may swap two near ties
    np.testing.assert_allclose(scores, -np.sort(-S[[4, 2]], axis=1)[:, :6], atol=1e-6)
    assert not set(ids[0]) & set(dataset.train.row(4))


def test_top_lists_that_run_out_are_padded() -> None:
    R = CSR.from_pairs(np.array([0, 0]), np.array([0, 2]), (1, 3))
    ids, scores = WeightsScorer.of(R, np.ones((3, 3), np.float32)).top(np.array([0]), 3, R)
    assert ids.tolist() == [[1, -1, -1]] and scores[0, 0] == 2 and np.isneginf(scores[0, 1:]).all()


@pytest.mark.parametrize("fit", [ridge, ease])
def test_what_is_saved_is_read_back(dataset: Dataset, vectors: np.ndarray, tmp_path: Path, fit) -> None:
    fitted = fit(vectors, dataset.histories(), ModelConfig(cooccurrence_support=3, semantic_support=3))
    assert fitted.save(lambda name: tmp_path / name) == ["weights.safetensors", "train.json"]
    again = ItemWeights.load(lambda name: tmp_path / name)
    assert again.summary == fitted.summary and again.histories == dataset.train_digest
    np.testing.assert_array_equal(again.scorer.scores(0, 9), fitted.scorer.scores(0, 9))


@pytest.mark.parametrize("fit", [ridge, ease])
def test_held_out_interactions_are_refused(dataset: Dataset, vectors: np.ndarray, fit) -> None:
    with pytest.raises(LeakError, match="training interactions only"):
        fit(vectors, dataset.histories("all"), ModelConfig())


def test_a_catalogue_too_large_for_dense_matrices_is_refused_before_they_are_made(dataset: Dataset, vectors) -> None:
    with pytest.raises(TrainingError, match=r"needs 0\.0 GiB of dense matrices.*take model\.kind=ridge"):
        ease(vectors, dataset.histories(), ModelConfig(dense_gib=1e-6))

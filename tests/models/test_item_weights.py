"""The closed forms against dense float64 algebra, and what they may not see or hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import CSR, cooccurrence_topk, topk_cosine

from mllmrec.dataset import Dataset
from mllmrec.errors import TrainingError
from mllmrec.models import EASE, ItemGraphRidge
from mllmrec.models import ridge as ridge_module
from mllmrec.models.base import Recommender
from mllmrec.models.ridge import ridge_support
from mllmrec.models.scoring import top_by_user
from mllmrec.models.weight_scorers import WeightsScorer


def dense(R: CSR) -> np.ndarray:
    return R.to_scipy().toarray().astype(np.float64)


def gram(dataset: Dataset, vectors: np.ndarray, w: float, lam: float) -> np.ndarray:
    R, V = dense(dataset.train), vectors.astype(np.float64)
    return R.T @ R + w * V @ V.T + lam * np.eye(len(V))


@pytest.mark.parametrize("w", [0.0, 7.0])
def test_ease_is_its_closed_form(dataset: Dataset, vectors: np.ndarray, w: float) -> None:
    fitted = EASE(content_weight=w, regularization=30).fit(dataset.train, item_features=vectors)
    P = np.linalg.inv(gram(dataset, vectors, w, 30))
    B = -P / np.diag(P)[None, :]
    np.fill_diagonal(B, 0)
    np.testing.assert_allclose(fitted.weights, B, atol=1e-6)  # float32 weights below 1
    expected = (dense(dataset.train) @ B)[3:9]
    np.testing.assert_allclose(fitted.scores(np.arange(3, 9)), expected, atol=1e-5)


def test_each_column_of_ease_minimises_its_own_regression(dataset: Dataset, vectors: np.ndarray) -> None:
    """B_j solves the ridge regression of item j on all others, by normal equations (EASE, section 3)."""
    B = EASE(content_weight=3, regularization=20).fit(dataset.train, item_features=vectors).weights
    G = gram(dataset, vectors, 3, 20)
    for j in (0, 7, 41):
        others = np.delete(np.arange(len(G)), j)
        expected = np.linalg.solve(G[np.ix_(others, others)], G[others, j])
        np.testing.assert_allclose(B[others, j], expected, atol=1e-6)


def test_a_ridge_over_all_neighbours_is_ease(dataset: Dataset, vectors: np.ndarray) -> None:
    settings = {"content_weight": 3, "regularization": 20}
    fitted = ItemGraphRidge(semantic_support=dataset.n_items, **settings).fit(dataset.train, item_features=vectors)
    dense_weights = EASE(**settings).fit(dataset.train, item_features=vectors).weights
    np.testing.assert_allclose(fitted.scorer.weights.to_scipy().toarray(), dense_weights, atol=1e-5)


def test_the_support_is_both_neighbourhoods_and_the_weights_lie_on_it(dataset: Dataset, vectors: np.ndarray) -> None:
    R = dataset.train
    support = ridge_support(vectors, R, 4, 3)
    near, alike = cooccurrence_topk(R, 4)[0], topk_cosine(vectors, 3)[0]
    for j in range(dataset.n_items):
        assert set(support.row(j)) == (set(near[j]) | set(alike[j])) - {-1}
    fitted = ItemGraphRidge(cooccurrence_support=4, semantic_support=3).fit(R, item_features=vectors)
    assert np.array_equal(fitted.weights.transpose().indices, support.indices)
    item = 11
    incoming = fitted.scorer.weights.to_scipy().toarray()[:, item]
    ids, values = fitted.similar_items([item], 2)
    assert ids[0, 0] == incoming.argmax() and values[0, 0] == incoming.max()


def test_scores_are_the_rows_of_the_users_items_and_ranks_follow(dataset: Dataset, vectors: np.ndarray) -> None:
    fitted = ItemGraphRidge(cooccurrence_support=5, semantic_support=5).fit(dataset.train, item_features=vectors)
    S = dense(dataset.train) @ fitted.scorer.weights.to_scipy().toarray()
    valid = dataset.matrix("valid")
    ranks = fitted.ranks(dataset.train, valid)
    ids, scores = fitted.recommend([4, 2], 6)
    S[dense(dataset.train) > 0] = -np.inf
    user, item = int(valid.rows()[0]), int(valid.indices[0])
    ahead = S[user].astype(np.float32) > np.float32(S[user, item])
    assert abs(int(ranks[0]) - ahead.sum()) <= 1  # sums of float32 in another order may swap two near ties
    np.testing.assert_allclose(scores, -np.sort(-S[[4, 2]], axis=1)[:, :6], atol=1e-6)
    assert not set(ids[0]) & set(dataset.train.row(4))


def test_top_lists_that_run_out_are_padded() -> None:
    R = CSR.from_pairs(np.array([0, 0]), np.array([0, 2]), (1, 3))
    ids, scores = top_by_user(WeightsScorer(R, np.ones((3, 3), np.float32)), np.array([0]), 3, R)
    assert ids.tolist() == [[1, -1, -1]] and scores[0, 0] == 2 and np.isneginf(scores[0, 1:]).all()


@pytest.mark.parametrize("kind", [ItemGraphRidge, EASE])
def test_what_is_saved_is_read_back(
    dataset: Dataset, vectors: np.ndarray, tmp_path: Path, kind: type[Recommender]
) -> None:
    fitted = kind(regularization=30).fit(dataset.train, item_features=vectors)
    assert fitted.write_files(lambda name: tmp_path / name) == ["weights.safetensors", "train.json"]
    fitted.save(tmp_path / "model")
    again = kind.load(tmp_path / "model")
    assert again.summary == fitted.summary and again.config == fitted.config
    np.testing.assert_array_equal(again.scores(np.arange(9)), fitted.scores(np.arange(9)))
    np.testing.assert_array_equal(again.recommend([3, 1], 5)[0], fitted.recommend([3, 1], 5)[0])


def test_regressions_in_blocks_are_those_in_one(
    dataset: Dataset, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    def weights() -> np.ndarray:
        fitted = ItemGraphRidge(cooccurrence_support=5, semantic_support=5).fit(dataset.train, item_features=vectors)
        return fitted.scorer.weights.to_scipy().toarray()

    whole = weights()
    monkeypatch.setattr(ridge_module, "_BLOCK", 7)
    np.testing.assert_array_equal(weights(), whole)


def test_a_catalogue_too_large_for_dense_matrices_is_refused_before_they_are_made(dataset: Dataset, vectors) -> None:
    with pytest.raises(TrainingError, match=r"needs 0\.0 GiB of dense matrices.*take model\.kind=ridge"):
        EASE(dense_gib=1e-6).fit(dataset.train, item_features=vectors)

"""Item-kNN with a neighbourhood and a weighting, against its formulas written out densely."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mllmrec_kernels import CSR

from mllmrec.dataset import Dataset
from mllmrec.errors import TrainingError
from mllmrec.models import ItemKNN


def matrix(rows: list[list[int]], n_items: int) -> CSR:
    items = np.array([item for row in rows for item in row], np.int32)
    return CSR(np.cumsum([0, *map(len, rows)]), items, None, n_items)


def likeness(dataset: Dataset, weighting: str) -> np.ndarray:
    """S of the module's formulas, its diagonal 0, float64 [I, I]."""
    R = dataset.train.to_scipy().toarray().astype(np.float64)
    n_items, n_users = R.sum(axis=0), R.sum(axis=1)
    idf = np.log(R.shape[1] / (1 + n_users))
    w = np.ones(len(R)) if weighting == "cosine" else idf**2
    with np.errstate(divide="ignore"):
        d = {
            "cosine": 1 / np.sqrt(n_items),
            "tfidf": 1 / np.sqrt(R.T @ w),
            "bm25": 2.2 / (1 + 1.2 * (0.25 + 0.75 * n_items / n_items.mean())),
        }[weighting]
    d = np.where(n_items > 0, d, 0)
    S = d[:, None] * (R.T @ (w[:, None] * R)) * d[None, :]
    np.fill_diagonal(S, 0)
    return S


@pytest.mark.parametrize("weighting", ["cosine", "tfidf", "bm25"])
@pytest.mark.parametrize("k", [3, 1000])
def test_an_item_adds_its_likeness_to_its_nearest(dataset: Dataset, weighting, k: int) -> None:
    found = ItemKNN(n_neighbors=k, weighting=weighting).fit(dataset.train).scorer.weights.to_scipy().toarray()
    S = likeness(dataset, weighting)
    least = -np.sort(-S, axis=1)[:, min(k, len(S)) - 1]
    assert ((found > 0).sum(axis=1) <= k).all()
    np.testing.assert_allclose(found[found > 0], S[found > 0], rtol=1e-6)
    assert (S[(found == 0) & (S > 0)] <= np.broadcast_to(least[:, None], S.shape)[(found == 0) & (S > 0)] + 1e-12).all()
    assert np.array_equal((found > 0).sum(axis=1), np.minimum((S > 0).sum(axis=1), k))


def test_as_many_neighbors_as_items_are_all_neighbors(dataset: Dataset, tmp_path: Path) -> None:
    fitted = ItemKNN(n_neighbors=dataset.n_items, weighting="cosine").fit(dataset.train)
    every = ItemKNN(n_neighbors=0, weighting="cosine").fit(dataset.train)
    expected, found = every.scores(np.arange(20)), fitted.scores(np.arange(20))
    others = dataset.train.to_scipy()[:20].toarray() == 0  # the diagonal of S reaches a user's own items alone
    np.testing.assert_allclose(found[others], expected[others], atol=1e-6)
    for few, all_of_them in zip(fitted.similar_items([3, 8], 4), every.similar_items([3, 8], 4), strict=True):
        np.testing.assert_allclose(few, all_of_them, rtol=1e-6)
    every.save(tmp_path)
    np.testing.assert_array_equal(ItemKNN.load(tmp_path).scores(np.arange(20)), expected)


def test_of_equal_neighbours_the_lower_ids_are_kept_and_strangers_are_none() -> None:
    fitted = ItemKNN(n_neighbors=2, weighting="cosine").fit(matrix([[0, 1, 2, 3], [4]], 6))
    weights = fitted.scorer.weights.to_scipy().toarray()
    assert [np.flatnonzero(row).tolist() for row in weights] == [[1, 2], [0, 2], [0, 1], [0, 1], [], []]
    assert fitted.similar_items([0], 2)[0].tolist() == [[1, 2]] and fitted.similar_items(5, 1)[0].tolist() == [[-1]]


def test_users_of_half_the_catalogue_say_less() -> None:
    seen = matrix([[0, 1], [0, 2, 3, 4], [5, 6]], 7)
    plain, weighted = (
        ItemKNN(n_neighbors=6, weighting=w).fit(seen).scorer.weights.to_scipy().toarray() for w in ("cosine", "tfidf")
    )
    assert plain[0, 1] == plain[0, 2] and weighted[0, 1] > weighted[0, 2]


@pytest.mark.parametrize("weighting", ["cosine", "tfidf", "bm25"])
def test_no_interactions_and_users_of_everything_are_no_trouble(weighting) -> None:
    strangers = ItemKNN(n_neighbors=2, weighting=weighting).fit(matrix([[0], []], 3))
    assert strangers.weights.nnz == 0 and strangers.scores([0, 1]).tolist() == [[0] * 3] * 2
    with pytest.raises(TrainingError, match="no training interactions"):
        ItemKNN(weighting=weighting).fit(matrix([[], []], 3))
    everything = ItemKNN(n_neighbors=2, weighting=weighting).fit(matrix([[0, 1, 2], [0, 1]], 3))
    assert np.isfinite(everything.scorer.weights.to_scipy().toarray()).all()


def test_blocks_are_one_whole(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = ItemKNN(n_neighbors=4, weighting="tfidf").fit(dataset.train).weights
    monkeypatch.setattr("mllmrec_kernels.mixed.largest.USERS", 7)
    parts = ItemKNN(n_neighbors=4, weighting="tfidf").fit(dataset.train).weights
    assert isinstance(whole, CSR) and isinstance(parts, CSR)
    assert np.array_equal(whole.indices, parts.indices) and np.array_equal(whole.values(), parts.values())

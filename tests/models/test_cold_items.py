"""New items: predicted from the vectors of known ones, shown at a bounded loss, and of no influence while hidden."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.features.encode import normalize_rows
from mllmrec.models import Ensemble
from mllmrec.models.new_item_lists import TopLists, highest_offset, loss
from mllmrec.models.new_item_placement import of_known_items, split_columns
from mllmrec.models.new_items import (
    HalfWhitening,
    Prediction,
    neighbor_weights,
    predict_columns,
    predict_rows,
)
from mllmrec.models.validation import validation_ndcg

SETTINGS = {"factors": 8, "cooccurrence_support": 10, "semantic_support": 10}
GROUPS, EACH, USERS = 8, 10, 240


def shop(seed: int = 3) -> tuple[CSR, CSR, np.ndarray]:
    """Return training and validation interactions of users with one taste each, and item vectors near its center."""
    generator = np.random.default_rng(seed)
    group = np.repeat(np.arange(GROUPS), EACH)
    vectors = np.eye(GROUPS, 24)[group] + 0.2 * generator.standard_normal((len(group), 24))
    users, items = [], []
    for user in range(USERS):
        taste = np.flatnonzero(group == user % GROUPS)
        chosen = np.concatenate([generator.choice(taste, 5, replace=False), generator.choice(len(group), 1)])
        items.append(generator.permutation(np.unique(chosen)))
        users.append(np.full(len(items[-1]), user))
    u, i = np.concatenate(users), np.concatenate(items)
    held = np.concatenate([np.arange(len(row)) == 0 for row in users])
    shape = USERS, len(group)
    train, valid = (CSR.from_pairs(u[part], i[part], shape) for part in (~held, held))
    return train, valid, normalize_rows(vectors.astype(np.float32))


def test_half_whitening_evens_the_axes_and_is_blind_to_a_shift() -> None:
    generator = np.random.default_rng(1)
    vectors = (generator.standard_normal((500, 3)) * [4.0, 1.0, 0.25] + 7).astype(np.float32)
    mapped = (vectors - HalfWhitening.of(vectors).mean) @ HalfWhitening.of(vectors).axes
    np.testing.assert_allclose(np.sort(mapped.std(0)), np.sqrt(np.sort(vectors.std(0))), rtol=0.01)
    x = HalfWhitening.of(vectors)(vectors)
    np.testing.assert_allclose(np.linalg.norm(x, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.abs(HalfWhitening.of(vectors - 7)(vectors - 7)), np.abs(x), atol=1e-4)


def test_neighbor_weights_are_powers_of_the_cosine_that_sum_to_one() -> None:
    known = normalize_rows(np.array([[1, 0], [1, 1], [-1, 0.1]], np.float32))
    weights = neighbor_weights(np.array([[1, 0], [0, 0]], np.float32), known, 2.0).toarray()
    np.testing.assert_allclose(weights[0], np.array([1, 0.5, 0]) / 1.5, rtol=1e-5)  # cos^2 of 0 and 45 degrees
    assert not weights[1].any()  # no vector
    assert neighbor_weights(known, known[:0], 2.0).shape == (3, 0)


def test_predicted_parameters_are_weighted_means_times_the_gain() -> None:
    generator = np.random.default_rng(2)
    W, table = generator.standard_normal((4, 4)).astype(np.float32), generator.standard_normal((4, 3))
    A = np.array([[0.25, 0.75, 0, 0]], np.float32)
    prediction = Prediction(owned=2.0, gain=0.5)
    columns = predict_columns(sp.csr_array(W), sp.csr_array(A), prediction).toarray()
    np.testing.assert_allclose(columns[:, 0], 0.5 * (W @ A[0] + 2 * A[0]), rtol=1e-5)
    np.testing.assert_allclose(
        predict_rows(table.astype(np.float32), sp.csr_array(A), prediction), 0.5 * A @ table, rtol=1e-5
    )


def test_a_predicted_column_keeps_its_largest_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllmrec.models.new_items.MOST_WEIGHTS", 2)
    W = sp.csr_array(np.diag([1.0, -3.0, 2.0]).astype(np.float32))
    column = predict_columns(W, sp.csr_array(np.ones((1, 3), np.float32)), Prediction()).toarray()[:, 0]
    np.testing.assert_array_equal(column, [0, -3, 2])


def test_the_offset_is_the_highest_that_keeps_the_loss() -> None:
    """Ten users with one hit at the end of twenty known items; one new item each, of another score."""
    scores = np.tile(np.arange(20, 0, -1, dtype=np.float32), (10, 1))
    hits = np.zeros((10, 20), bool)
    hits[:, 19] = True
    known = TopLists(scores, hits, np.ones(10, np.int64))
    own = -np.arange(10, dtype=np.float32)[:, None]
    new = TopLists(own, np.ones((10, 1), bool), np.ones(10, np.int64))
    offset = highest_offset(known, new, 0.25)
    assert offset == pytest.approx(3, abs=1e-6)  # the first two stand above a score of 1, the third beside it
    assert known.quality_beside(new, -offset, is_first=True).recall == pytest.approx(0.8)
    reached = new.quality_beside(known, offset, is_first=False)
    assert reached.recall == pytest.approx(0.2)
    assert reached.ndcg == pytest.approx((1 / np.log2(20) + 1 / np.log2(21)) / 10)  # ranks 18 and 19
    assert loss((0.5, 0.0), (0.4, 0.0)) == pytest.approx((0.2, 0.0))


def test_a_hidden_twin_is_recommended_to_those_who_like_its_twin() -> None:
    train, valid, vectors = shop()
    twin = 12  # of group 1
    rest, _ = split_columns(train, np.array([twin]))
    fitted = Ensemble(**SETTINGS, new_items=0.5).fit(rest, item_features=vectors, valid=valid, seed=1)
    assert (fitted.shown, fitted.unshown) == (1, 0)
    likes = np.arange(1, USERS, GROUPS)
    others = np.setdiff1d(np.arange(USERS), likes)
    scores = fitted.scores(np.arange(USERS))[:, twin]
    assert scores[likes].mean() > scores[others].mean() + 1
    listed = fitted.recommend(likes, 10)[0]
    assert (listed == twin).any(axis=1).mean() > 0.9
    kin = fitted.similar_items([twin], 5)[0][0]
    assert (kin // EACH == 1).all()


def test_validation_of_hidden_items_changes_no_fitted_byte(tmp_path: Path) -> None:
    """Two splits that differ in who bought the hidden items, after the training, give the same files."""
    train, valid, vectors = shop()
    hidden = np.array([7, 45])
    rest, _ = split_columns(train, hidden)
    without, own = split_columns(valid, hidden)
    assert own.nnz > 3
    files = []
    for name, held in (("with", valid), ("without", without)):
        fitted = Ensemble(**SETTINGS).fit(rest, item_features=vectors, valid=held, seed=1)
        assert fitted.shown == 2
        fitted.save(tmp_path / name)
        files.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert files[0].keys() >= {"new_items.safetensors", "weights.safetensors", "parts.safetensors"}
    assert files[0] == files[1]


def test_without_new_items_scores_are_those_of_a_model_that_shows_none() -> None:
    train, valid, vectors = shop()
    shows, hides = (
        Ensemble(**SETTINGS, new_items=share).fit(train, item_features=vectors, valid=valid, seed=1)
        for share in (0.03, 0.0)
    )
    everybody = np.arange(USERS)
    np.testing.assert_array_equal(shows.scores(everybody), hides.scores(everybody))
    assert shows.placer is not None and hides.placer is None
    rest, _ = split_columns(train, np.array([12]))
    hides = Ensemble(**SETTINGS, new_items=0.0).fit(rest, item_features=vectors, valid=valid, seed=1)
    assert "1 new items not shown" in hides.summary


def test_items_are_added_as_hidden_ones_are_shown_and_are_read_back(tmp_path: Path) -> None:
    train, valid, vectors = shop()
    fitted = Ensemble(**SETTINGS, new_items=0.2).fit(train, item_features=vectors, valid=valid, seed=1)
    wider = fitted.add_items(vectors[[33]])
    assert fitted.scores([0]).shape == (1, GROUPS * EACH)  # the model itself is as it was
    likes = np.arange(3, USERS, GROUPS)
    scores = wider.scores(np.arange(USERS))
    assert scores.shape == (USERS, GROUPS * EACH + 1)
    assert scores[likes, -1].mean() > np.delete(scores[:, -1], likes).mean() + 1
    wider = wider.add_items(vectors[[40, 41]])
    assert wider.scores([0]).shape == (1, GROUPS * EACH + 3)
    wider.save(tmp_path)
    loaded = Ensemble.load(tmp_path)
    np.testing.assert_array_equal(loaded.scores(likes), wider.scores(likes))
    assert loaded.summary == wider.summary and "hidden ones Recall@20" in loaded.summary
    again = loaded.add_items(vectors[[7]])
    np.testing.assert_allclose(again.scores(likes), wider.add_items(vectors[[7]]).scores(likes), rtol=1e-5)


def test_a_new_user_sees_new_items_as_a_fitted_one_does() -> None:
    """The spread over the catalogue and the factors' own iterations leave a small difference."""
    train, valid, vectors = shop()
    rest, _ = split_columns(train, np.array([12, 50]))
    fitted = Ensemble(**SETTINGS, new_items=0.5).fit(rest, item_features=vectors, valid=valid, seed=1)
    users = np.arange(40)
    folded, own = fitted.fold_in(rest.take_rows(users)).scores(users), fitted.scores(users)
    assert np.corrcoef(folded.ravel(), own.ravel())[0, 1] > 0.99
    np.testing.assert_allclose(folded[:, [12, 50]], own[:, [12, 50]], atol=1)


def test_known_items_lose_no_more_than_the_share() -> None:
    """A tenth of the catalogue is new: validation of the known items keeps what the setting says."""
    train, valid, vectors = shop()
    hidden = np.arange(5, GROUPS * EACH, 10)
    rest, _ = split_columns(train, hidden)
    held, _ = split_columns(valid, hidden)
    everybody = np.repeat(np.arange(USERS), len(hidden)), np.tile(hidden, USERS)
    reached: dict[object, float] = {}
    for share in (0.0, 0.05, 0.3):
        fitted = Ensemble(**SETTINGS, new_items=share).fit(rest, item_features=vectors, valid=held, seed=1)
        reached[share] = validation_ndcg(fitted, rest, held)
        places = fitted.ranks(rest, CSR.from_pairs(*everybody, rest.shape))
        reached[share, "place"] = places.mean()
    assert reached[0.0] * 0.94 <= reached[0.05]
    assert reached[0.0] * 0.69 <= reached[0.3] < reached[0.05]
    assert reached[0.0, "place"] > reached[0.05, "place"] > reached[0.3, "place"]


def test_validation_of_unknown_items_chooses_no_weights() -> None:
    train, valid, _ = shop()
    kept, _ = split_columns(train, np.array([12]))
    judged = of_known_items(valid, kept)
    assert 12 in valid.indices and 12 not in judged.indices
    assert judged.nnz == valid.nnz - (valid.indices == 12).sum()
    assert of_known_items(valid, valid).nnz == valid.nnz

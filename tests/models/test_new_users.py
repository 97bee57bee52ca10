"""Users that a fit did not know: the same lists as known users with their histories, and nearly those of a refit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.errors import InputError
from mllmrec.models import EASE, IALS, Ensemble, ItemGraphRidge, ItemKNN, Recommender, registry
from mllmrec.models.fitting import as_interactions
from mllmrec.models.new_users import HalfSweep, filter_side, profile_side

USERS, ITEMS, GROUPS, NEW = 400, 120, 6, 4
KINDS = {
    "ease": EASE(),
    "ridge": ItemGraphRidge(cooccurrence_support=20, semantic_support=20),
    "item-knn": ItemKNN(n_neighbors=20),
    "item-knn, all": ItemKNN(n_neighbors=0, weighting="cosine"),
    "ials": IALS(factors=8, iterations=40),
    "ensemble": Ensemble(factors=8, cooccurrence_support=20, semantic_support=20),
}
# Share of a refit's ten best items that the model of the others lists too, over four users of four hundred, at least.
OVERLAP = {"ease": 0.95, "ridge": 0.95, "item-knn": 0.95, "item-knn, all": 0.95, "ials": 0.8, "ensemble": 0.85}


def shop() -> tuple[sp.csr_array, sp.csr_array, np.ndarray]:
    """Users with two tastes of six, a third of what they own held out; vectors that lie near their group's."""
    draw = np.random.default_rng(1)
    group = np.arange(ITEMS) % GROUPS
    tastes = draw.integers(0, GROUPS, (USERS, 2))
    liked = (group[None, :] == tastes[:, :1]) | (group[None, :] == tastes[:, 1:])
    owned = draw.random((USERS, ITEMS)) < np.where(liked, 0.35, 0.03)
    held = owned & (draw.random(owned.shape) < 0.3)
    vectors = np.eye(GROUPS, 12, dtype=np.float32)[group] + 0.3 * draw.standard_normal((ITEMS, 12))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    train, valid = (sp.csr_array(part.astype(np.float32)) for part in (owned & ~held, held))
    return train, valid, unit.astype(np.float32)


def fit(kind: str, rows: slice = slice(None)) -> Recommender:
    train, valid, vectors = shop()
    model = type(KINDS[kind])(KINDS[kind].config)
    return model.fit(train[rows], item_features=vectors, valid=valid[rows], seed=1)


def overlap(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(left, right, strict=True)]))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("ials", "ensemble")])
def test_a_known_history_gives_the_lists_of_its_user_to_the_bit(kind: str) -> None:
    train, _, _ = shop()
    model, users = fit(kind), np.array([3, 399, 0])
    for new, known in zip(model.recommend(train[users], 10), model.recommend(users, 10), strict=True):
        np.testing.assert_array_equal(new, known)


def test_factors_of_a_known_history_are_those_of_the_last_half_sweep() -> None:
    train, _, _ = shop()
    model = fit("ials")
    scores = model.fold_in(train).scores(np.arange(USERS))
    known = model.scores(np.arange(USERS))
    assert np.abs(scores - known).max() < 0.1 * known.std()  # forty iterations have nearly settled


def test_the_ensemble_scores_a_known_history_as_its_user() -> None:
    train, _, _ = shop()
    model = fit("ensemble")
    assert {"ridge", "factors", "graph filter", "content", "popularity"} <= set(model.weights)
    new, known = model.fold_in(train).scores(np.arange(USERS)), model.scores(np.arange(USERS))
    assert np.corrcoef(new.ravel(), known.ravel())[0, 1] > 0.999
    assert overlap(model.recommend(train, 10)[0], model.recommend(np.arange(USERS), 10)[0]) > 0.95


@pytest.mark.parametrize("kind", KINDS)
def test_the_lists_are_nearly_those_of_a_refit_with_the_users_in_it(kind: str) -> None:
    train, _, _ = shop()
    without, whole = fit(kind, slice(NEW, None)), fit(kind)
    new = without.recommend(train[:NEW], 10)[0]
    assert overlap(new, whole.recommend(np.arange(NEW), 10)[0]) >= OVERLAP[kind]
    owned = train.toarray()[:NEW] > 0
    assert not np.take_along_axis(owned, new.astype(np.int64), axis=1).any()  # nobody is shown what they have


@pytest.mark.parametrize("kind", ["ials", "ensemble", "item-knn, all"])
def test_a_model_read_from_a_folder_places_new_users_the_same(kind: str, tmp_path: Path) -> None:
    train, _, _ = shop()
    model = fit(kind)
    model.save(tmp_path / "m")
    again = type(model).load(tmp_path / "m")
    for before, after in zip(model.recommend(train[:5], 10), again.recommend(train[:5], 10), strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_half_sweep_solves_its_normal_equations() -> None:
    Q = np.array([[1, 0], [0, 2], [1, 1]], np.float32)
    histories = CSR.from_pairs(np.array([0, 0, 2]), np.array([0, 1, 2]), (3, 3))
    p = HalfSweep(Q, 0.5, 0.1)(histories)
    system = Q[:2].T @ Q[:2] + 0.5 * Q.T @ Q + 0.1 * (2 + 0.5 * 3) * np.eye(2)
    np.testing.assert_allclose(p[0], np.linalg.solve(system, Q[0] + Q[1]), rtol=1e-5)
    np.testing.assert_array_equal(p[1], 0)  # an empty history


def test_the_filter_places_a_user_by_the_degrees_of_the_fit() -> None:
    train = CSR.from_pairs(np.array([0, 1, 1]), np.array([0, 0, 1]), (2, 3))
    items = np.array([[2.0], [1.0], [4.0]], np.float32)
    new = filter_side(items, train)(CSR.from_pairs(np.array([0, 0]), np.array([0, 2]), (1, 3)))
    np.testing.assert_allclose(new, [[2 / 2 + 4 / 1]])


def test_a_profile_is_predicted_from_the_items_of_a_user() -> None:
    train, _, vectors = shop()
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 12)))[0].astype(np.float32)
    means = train @ vectors
    profiles = 3 * (means / np.linalg.norm(means, axis=1, keepdims=True)) @ turn  # a linear map of the mean
    side = profile_side(vectors, profiles[50:], as_interactions(train[50:]))
    np.testing.assert_allclose(side(as_interactions(train[:50])), profiles[:50] / 3, atol=0.05)


def test_what_is_refused() -> None:
    train, _, _ = shop()
    with pytest.raises(InputError, match="the histories have 7 columns; the model has 120 items"):
        fit("ease").recommend(sp.csr_array((1, 7)), 5)
    with pytest.raises(InputError, match="not fitted"):
        EASE().recommend(train, 5)
    model = fit("ials")
    model.share = None
    with pytest.raises(InputError, match="do not have the weight of all pairs; fit it again"):
        model.recommend(train, 5)
    ensemble = fit("ensemble")
    ensemble.widths = {}
    with pytest.raises(InputError, match="do not say how to place new users and items"):
        ensemble.recommend(train, 5)
    with pytest.raises(InputError, match="BPR-MF has no closed form for users that the fit did not know"):
        registry.find("bpr")().recommend(train, 5)

"""A fit that goes on from an earlier one: what did not change stands to the bit, the rest is solved on today's data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import CSR, row_spread
from mllmrec_kernels.mixed.scores import inverse_spread

from mllmrec.dataset import Histories
from mllmrec.dataset.growth import changed_rows
from mllmrec.errors import InputError
from mllmrec.models import IALS, Ensemble, FitContext
from mllmrec.models.ensemble import RIDGE_STRENGTHS
from mllmrec.models.ensemble_factors import FACTOR_STRENGTHS
from mllmrec.models.ensemble_firsts import RIDGE, other_weights
from mllmrec.models.fitting import as_interactions
from mllmrec.models.list_update import _Joiner, update_lists
from mllmrec.models.refit import GROWTH, count_users
from mllmrec.models.ridge import ridge_support, ridge_weights
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.validation import validation_ndcg
from mllmrec.models.weight_scorers import StandardizedScorer, WeightsScorer
from tests.models.test_new_users import ITEMS, KINDS, USERS, overlap, shop

OLD_USERS, OLD_ITEMS = USERS - 8, ITEMS - 3


def earlier_fit(kind: str) -> tuple[Ensemble, np.ndarray]:
    """A fit of the first users and items, and the labels that its progress named."""
    train, valid, vectors = shop()
    labels: list[str] = []
    context = FitContext(progress=lambda label, done, total: labels.append(label))
    model = type(KINDS[kind])(KINDS[kind].config, context=context)
    known = slice(OLD_USERS), slice(OLD_ITEMS)
    model.fit(train[known], item_features=vectors[known[1]], valid=valid[known], seed=1)
    return model, labels


def go_on(kind: str, earlier: object, **settings: object) -> tuple[Ensemble, list[str]]:
    train, valid, vectors = shop()
    labels: list[str] = []
    context = FitContext(progress=lambda label, done, total: labels.append(label), earlier=earlier)
    config = KINDS[kind].config.model_copy(update=settings)
    return type(KINDS[kind])(config, context=context).fit(train, item_features=vectors, valid=valid, seed=1), labels


def test_the_choices_of_the_earlier_fit_stand(tmp_path: Path) -> None:
    earlier, before = earlier_fit("ensemble")
    model, labels = go_on("ensemble", earlier)
    assert model.weights == earlier.weights and list(model.widths) == list(earlier.widths)
    assert model.first_settings == earlier.first_settings
    assert {tuple(strengths) for _, *strengths in model.first_settings.ridges} <= set(RIDGE_STRENGTHS)
    train, _, _ = shop()
    share, strength = model.factor_settings
    assert strength == earlier.factor_settings[1]
    w = next(w for w, lam in FACTOR_STRENGTHS if lam == strength)
    assert share == pytest.approx(w * train.nnz / (USERS * ITEMS))
    assert any("validate" in label for label in before) and "search weights" in before
    assert not any("validate" in label or "search weights" in label for label in labels)
    model.save(tmp_path / "m")  # and a fit may go on from one that was read
    again, _ = go_on("ensemble", Ensemble.load(tmp_path / "m"))
    assert again.first_settings == model.first_settings and again.factor_settings == model.factor_settings


def test_a_day_without_news_changes_no_number() -> None:
    earlier, _ = earlier_fit("ensemble")
    again = type(earlier)(earlier.config, context=FitContext(earlier=earlier))
    _, valid, _ = shop()
    again.fit(earlier.user_items.to_scipy(), item_features=earlier.item_features, valid=valid[:OLD_USERS, :OLD_ITEMS])
    assert len(again.refitted.users) == len(again.refitted.items) == 0
    for ours, theirs in ((again.rest.users, earlier.rest.users), (again.rest.items, earlier.rest.items)):
        np.testing.assert_array_equal(ours, theirs)
    for name in ("indptr", "indices", "data"):
        np.testing.assert_array_equal(getattr(again.ridge.weights, name), getattr(earlier.ridge.weights, name))
    np.testing.assert_array_equal(again.fitted_users, earlier.fitted_users)
    assert again.first_settings == earlier.first_settings and again.factor_settings == earlier.factor_settings


def test_only_users_with_another_history_and_items_that_grew_are_fitted_again() -> None:
    train, _, vectors = shop()
    earlier, _ = earlier_fit("ensemble")
    model, _ = go_on("ensemble", earlier)
    R, before = as_interactions(train), earlier.user_items
    counts, old = count_users(R), count_users(before)
    grew = [i for i in range(ITEMS) if i >= OLD_ITEMS or abs(counts[i] - old[i]) > GROWTH * old[i]]
    assert model.refitted.items.tolist() == grew and 3 < len(grew) < ITEMS - 3
    others = [u for u in range(USERS) if u >= OLD_USERS or not np.array_equal(R.row(u), before.row(u))]
    assert model.refitted.users.tolist() == others and 8 < len(others) < USERS
    kept_users, kept_items = np.setdiff1d(np.arange(OLD_USERS), others), np.setdiff1d(np.arange(OLD_ITEMS), grew)
    np.testing.assert_array_equal(model.rest.users[kept_users], earlier.rest.users[kept_users])
    np.testing.assert_array_equal(model.rest.items[kept_items], earlier.rest.items[kept_items])
    assert (model.rest.items[grew] != _lengthened(earlier.rest.items)[grew]).any(axis=1).all()
    np.testing.assert_array_equal(model.fitted_users[grew], counts[grew])
    np.testing.assert_array_equal(model.fitted_users[kept_items], old[kept_items])
    # an item whose vector moved, and its owners
    moved = vectors.copy()
    moved[kept_items[0]] = moved[kept_items[1]]
    again = type(earlier)(earlier.config, context=FitContext(earlier=earlier))
    again.fit(train, item_features=moved, valid=shop()[1])
    assert kept_items[0] in again.refitted.items
    assert set(R.transpose().row(kept_items[0])) <= set(again.refitted.users)


def _lengthened(table: np.ndarray) -> np.ndarray:
    return np.concatenate([table, np.zeros((ITEMS - len(table), table.shape[1]), table.dtype)])


def test_columns_that_are_solved_again_are_those_of_a_whole_solve_and_the_others_stay() -> None:
    train, _, vectors = shop()
    earlier, _ = earlier_fit("ensemble")
    model, _ = go_on("ensemble", earlier)
    R, settings, again = as_interactions(train), earlier.first_settings, model.refitted.items
    support = ridge_support(vectors, R, 20, 20)
    tables, whole = (vectors, earlier.projection(vectors)), sp.csr_array((ITEMS, ITEMS))
    for scale, (table, w, strength) in zip(settings.scales, settings.ridges, strict=False):
        whole = whole + scale * ridge_weights(tables[table], R, support, [(w, strength)])[0].to_scipy()
    names = [name for name in settings.shares if name != RIDGE]
    for scale, name in zip(settings.scales[len(settings.ridges) :], names, strict=True):
        whole = whole + scale * other_weights([name], R, None)[name].to_scipy()
    W, before = model.ridge.weights.to_scipy().toarray(), earlier.ridge.weights.to_scipy().toarray()
    np.testing.assert_allclose(W[:, again], whole.toarray()[:, again], rtol=1e-4, atol=1e-5)
    kept = np.setdiff1d(np.arange(OLD_ITEMS), again)
    np.testing.assert_array_equal(W[:OLD_ITEMS][:, kept], before[:, kept])
    # what a new item adds to other items is not solved, but taken from what they add to it
    new, solved = W[OLD_ITEMS:][:, kept], whole.toarray()[OLD_ITEMS:][:, kept]
    assert np.corrcoef(new.ravel(), solved.ravel())[0, 1] > 0.8
    assert 0.7 < np.abs(new).sum() / np.abs(solved).sum() < 1.4


def test_rows_are_compared_by_their_entries_and_their_order() -> None:
    before = np.array([0, 2, 3, 3, 5]), np.array([4, 1, 2, 0, 3], np.int32)
    now = np.array([0, 2, 4, 4, 6, 7]), np.array([1, 4, 2, 5, 0, 3, 9], np.int32)
    assert changed_rows(before, now).tolist() == [True, True, False, False]
    assert changed_rows(before, before).tolist() == [False] * 4


def test_lists_that_refitted_items_enter_are_those_of_a_whole_listing() -> None:
    draw, k = np.random.default_rng(3), 10
    users, items = draw.standard_normal((300, 8)).astype(np.float32), draw.standard_normal((90, 8)).astype(np.float32)
    seen = CSR.from_scipy(sp.random_array((300, 90), density=0.05, rng=draw, format="csr"), binary=True)
    nothing = WeightsScorer(seen, CSR.from_scipy(sp.csr_array((90, 90), dtype=np.float32)))
    again = np.sort(draw.choice(90, 12, replace=False))
    everybody, moved = np.arange(300), items.copy()
    moved[again] = draw.standard_normal((12, 8))
    before = StandardizedScorer(nothing, VectorScorer(users, items)).top(everybody, k, seen)
    scorer = StandardizedScorer(nothing, VectorScorer(users, moved))
    ids, scores = scorer.top(everybody, k, seen)
    stale = np.arange(300) < 7
    anew: list[int] = []

    def list_anew(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        anew.append(len(rows))
        return ids[rows], scores[rows]

    (updated, values), counts = update_lists(scorer, again, before, stale, seen, list_anew)
    assert counts.anew + counts.kept + counts.merged == 300 and counts.items == 12
    assert 7 < counts.anew < 200 and counts.kept >= 5 and counts.merged > 50
    assert anew == [counts.anew, counts.kept + counts.merged] and counts.checked == anew[1]
    shared = np.array([len(set(a) & set(b)) for a, b in zip(updated, ids, strict=True)])
    assert shared.min() >= k - 1 and 0.97 < counts.same <= 1  # one place of ten may be uncertain
    full = shared == k
    np.testing.assert_array_equal(updated[full], ids[full])
    np.testing.assert_allclose(values[full], scores[full], rtol=1e-6)
    assert full.mean() > 0.6
    unchanged, _ = update_lists(scorer, again[:0], before, np.zeros(300, bool), seen, list_anew)
    np.testing.assert_array_equal(unchanged[0], before[0])


def test_the_scale_of_a_users_sums_is_told_by_the_scores_of_a_list() -> None:
    earlier, _ = earlier_fit("ensemble")
    scorer, known, users = earlier.scorer, earlier.user_items, np.arange(OLD_USERS)
    lists = earlier.recommend(users, 10)
    scale = inverse_spread(row_spread(known, scorer.weights.weights))
    assert (scale > 0).all()
    joined = _Joiner(scorer, np.array([3]), known)
    joined._set_scale(users, lists)
    np.testing.assert_allclose(joined._scale, scale, rtol=1e-4)
    assert (joined._scale != scale).any()  # told by float32 scores, not summed again
    again = _Joiner(scorer, np.arange(OLD_ITEMS), known)  # no listed item is what it was
    again._set_scale(users, lists)
    np.testing.assert_array_equal(again._scale, scale)


def test_a_new_item_enters_the_lists_of_users_with_the_same_history() -> None:
    earlier, _ = earlier_fit("ensemble")
    model, _ = go_on("ensemble", earlier)
    known = as_interactions(shop()[0])
    before = earlier.recommend(np.arange(OLD_USERS), 10)
    stale = np.zeros(USERS, bool)
    stale[model.refitted.users] = True
    (ids, _), counts = update_lists(
        model.scorer, model.refitted.items, before, stale, known, lambda rows: model.recommend(rows, 10)
    )
    same = np.setdiff1d(np.arange(OLD_USERS), model.refitted.users)
    assert (ids[same] >= OLD_ITEMS).any() and counts.same > 0.9
    assert overlap(ids, model.recommend(np.arange(USERS), 10)[0]) > 0.9


def test_without_a_validation_item_new_items_keep_the_offset_of_the_earlier_fit() -> None:
    train, valid, vectors = shop()
    earlier, known = earlier_fit("ensemble")[0], train.tolil()
    known[:, OLD_ITEMS:] = 0
    model = Ensemble(earlier.config, context=FitContext(earlier=earlier))
    model.fit(known.tocsr(), item_features=vectors, valid=valid * 0, seed=1)
    assert model.refitted is not None and model.shown == ITEMS - OLD_ITEMS
    assert model.placer.placement.offset == earlier.placer.placement.offset


def test_the_lists_are_nearly_those_of_a_fit_from_nothing() -> None:
    train, valid = map(as_interactions, shop()[:2])
    model, _ = go_on("ensemble", earlier_fit("ensemble")[0])
    whole, _ = go_on("ensemble", None)
    users = np.arange(USERS)
    assert overlap(model.recommend(users, 10)[0], whole.recommend(users, 10)[0]) > 0.7
    refitted, scratch = (validation_ndcg(each, train, valid) for each in (model, whole))
    assert refitted > 0.95 * scratch


def test_other_settings_fit_from_nothing() -> None:
    earlier, _ = earlier_fit("ensemble")
    for settings in ({"factors": 9}, {"semantic_support": 19}):
        assert "search weights" in go_on("ensemble", earlier, **settings)[1]
    assert "search weights" in go_on("ensemble", IALS())[1]


def test_factors_go_on_from_earlier_ones() -> None:
    earlier, _ = earlier_fit("ials")
    model, labels = go_on("ials", earlier)
    assert len(labels) == 4  # the start and three iterations, of forty
    whole, _ = go_on("ials", None)
    users = np.arange(USERS)
    assert np.corrcoef(model.scores(users).ravel(), whole.scores(users).ravel())[0, 1] > 0.95


def test_a_fit_that_reads_order_goes_on_where_there_is_one_and_keeps_its_half_lives() -> None:
    train, valid, vectors = shop()
    times = np.concatenate([np.arange(n) for n in np.diff(train.indptr)])
    seen = Histories(train.indptr.astype(np.int64), train.indices.astype(np.int32), times, ITEMS, "train")
    config = KINDS["ensemble"].config.model_copy(update={"half_lives": (3.0,)})
    earlier = Ensemble(config, context=FitContext(histories=seen))
    earlier.fit(train, item_features=vectors, valid=valid, seed=1)
    assert earlier.first_settings.half_life == earlier.content_half_life == 3
    again = Ensemble(config, context=FitContext(histories=seen, earlier=earlier))
    again.fit(train, item_features=vectors, valid=valid, seed=1)
    assert again.refitted is not None and again.first_settings == earlier.first_settings
    np.testing.assert_allclose(again.ridge.scores([0, 5]), earlier.ridge.scores([0, 5]), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="a half-life needs times or places"):
        Ensemble(config, context=FitContext(earlier=earlier)).fit(train, item_features=vectors, valid=valid)

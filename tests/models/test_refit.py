"""A fit that goes on from an earlier one: its choices stand, its lists are nearly those of a fit from nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mllmrec.dataset import Histories
from mllmrec.errors import InputError
from mllmrec.models import IALS, Ensemble, FitContext
from mllmrec.models.ensemble import FACTOR_STRENGTHS, RIDGE_STRENGTHS
from mllmrec.models.fitting import as_interactions
from mllmrec.models.validation import validation_ndcg
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
    assert again.went_on and again.first_settings == earlier.first_settings
    np.testing.assert_allclose(again.ridge.scores([0, 5]), earlier.ridge.scores([0, 5]), rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match="a half-life needs times or places"):
        Ensemble(config, context=FitContext(earlier=earlier)).fit(train, item_features=vectors, valid=valid)

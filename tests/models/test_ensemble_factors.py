"""The width of the ensemble's factors: chosen by validation or given, and kept by files and refits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from mllmrec.models import Ensemble, FitContext, ensemble_factors
from mllmrec.models.content import LeaveOneOutRegression
from mllmrec.models.ensemble_factors import NARROW, WIDE, tries_wide
from mllmrec.models.fitted_ensemble import EnsembleConfig
from mllmrec.models.fitting import as_interactions
from mllmrec.models.validation import Validation
from tests.blocks.in_process import blocks_in
from tests.models.test_new_users import GROUPS, ITEMS, USERS, shop

KNOWN = slice(USERS - 8), slice(ITEMS - 3)


@pytest.fixture
def widths(monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Widths for a shop of six tastes: two columns are too few, and so small a shop tries eight."""
    for name, value in (("NARROW", 2), ("WIDE", GROUPS + 2), ("_LEAST_RANK", 1)):
        monkeypatch.setattr(ensemble_factors, name, value)
    return 2, GROUPS + 2


def fit(factors: int = 0, **context: object) -> tuple[Ensemble, list[str]]:
    """Return a fit of all but the last users and items, and the labels of its progress."""
    train, valid, vectors = shop()
    labels: list[str] = []
    context = {"progress": lambda label, done, total: labels.append(label), **context}
    left_out = ("ridge", "graph filter")
    settings = EnsembleConfig(factors=factors, cooccurrence_support=20, semantic_support=20, left_out=left_out)
    model = Ensemble(settings, context=FitContext(**context))
    return model.fit(train[KNOWN], item_features=vectors[KNOWN[1]], valid=valid[KNOWN], seed=1), labels


def test_wide_factors_are_tried_where_data_is_neither_small_nor_large() -> None:
    assert tries_wide(35_598, 18_357) and tries_wide(19_445, 7_050)
    assert not tries_wide(600, 388) and not tries_wide(662, 1_805) and not tries_wide(8_317, 4_344)
    assert not tries_wide(200_000, 100_000)
    assert tries_wide(20 * WIDE, 20 * WIDE) and not tries_wide(10**4, 20 * WIDE - 1)
    assert tries_wide(60_000, 40_000) and not tries_wide(60_001, 40_000)


def test_validation_chooses_the_width_and_progress_and_summary_say_it(widths: tuple[int, int]) -> None:
    narrow, wide = widths
    model, labels = fit()
    assert model.widths["factors"] == wide and f"factors of width {wide}" in model.summary
    fits = dict.fromkeys(label for label in labels if label.startswith("fit ") and "factors" in label)
    assert list(fits) == [f"fit {r} factors {n} of 4" for n, r in enumerate((narrow, narrow, wide, wide), 1)]


def test_no_gain_keeps_the_narrow_factors(widths: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble_factors, "WIDE", 1)
    train, valid, vectors = (as_interactions(part) if sp.issparse(part) else part for part in shop())
    labels: list[str] = []
    _, factors = ensemble_factors.choose_factors(
        LeaveOneOutRegression(vectors),
        0,
        Validation(train, valid, seed=1),
        FitContext(progress=lambda label, done, total: labels.append(label)),
    )
    assert factors.items.shape[1] == widths[0] and "fit 1 factors 4 of 4" in labels


@pytest.mark.parametrize("factors", [2, GROUPS + 2])
def test_a_given_width_stands_and_equals_the_one_that_is_chosen(factors: int, widths: tuple[int, int]) -> None:
    model, labels = fit(factors)
    assert model.widths["factors"] == factors and not any("of 4" in label for label in labels)
    if factors == widths[1]:
        chosen, _ = fit()
        assert chosen.factor_settings == model.factor_settings
        np.testing.assert_array_equal(chosen.scores([0, 9]), model.scores([0, 9]))


def test_the_default_is_narrow_on_a_small_shop() -> None:
    model, labels = fit()
    assert model.widths["factors"] == NARROW and not any("of 4" in label for label in labels)


def test_the_chosen_width_is_read_back_and_kept_by_a_fit_that_goes_on(widths: tuple[int, int], tmp_path: Path) -> None:
    model, _ = fit()
    model.save(tmp_path)
    read, (train, valid, vectors) = Ensemble.load(tmp_path), shop()
    assert read.widths == model.widths and read.summary == model.summary
    again = Ensemble(read.config, context=FitContext(earlier=read)).fit(
        train, item_features=vectors, valid=valid, seed=1
    )
    assert again.refitted is not None and again.widths == model.widths
    assert again.rest.items.shape == (ITEMS, model.rest.items.shape[1]) and np.isfinite(again.rest.items).all()


def test_blocks_choose_the_same_width(widths: tuple[int, int], tmp_path: Path) -> None:
    here, there = fit()[0], fit(blocks=blocks_in(tmp_path))[0]
    assert here.widths == there.widths and here.weights == there.weights
    np.testing.assert_allclose(there.rest.users, here.rest.users, atol=1e-4)  # sums of float32 in other orders
    np.testing.assert_allclose(there.rest.items, here.rest.items, atol=1e-4)

"""The ensemble of rivals, and the default ensemble with parts left out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mllmrec.config import TrainConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError
from mllmrec.features.encode import mean_of_owned
from mllmrec.models import Ensemble, FitContext
from mllmrec.models.registry import kinds
from mllmrec.models.rival_ensemble import LINEAR, NETWORKS, POPULARITY, ModelPart, RivalEnsemble
from mllmrec.models.validation import validation_ndcg

QUICK = FitContext(TrainConfig(dim=8, epochs=2, batch_size=256))


def fit_rivals(dataset: Dataset, vectors: np.ndarray, networks: bool = False) -> RivalEnsemble:
    return RivalEnsemble(networks=networks, context=QUICK).fit(
        dataset.train, item_features=vectors, valid=dataset.matrix("valid"), seed=5
    )


def test_rivals_try_as_many_settings_as_the_default(dataset: Dataset) -> None:
    tried = {**LINEAR, **NETWORKS}
    assert sum(len(settings) for settings in tried.values() if settings != ({},)) + len(NETWORKS) == 9
    assert set(tried) <= set(kinds())


def test_rivals_are_a_weighted_sum_over_their_spread(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    fitted, users = fit_rivals(dataset, vectors), np.arange(dataset.n_users)
    first = next(iter(fitted.weights))
    assert fitted.weights[first] == 1 and set(fitted.weights) == {*LINEAR, POPULARITY}
    tables = {kind: model.scores(users).astype(np.float64) for kind, model in fitted.models.items()}
    tables[POPULARITY] = np.tile(
        np.log1p(np.bincount(dataset.train.indices, minlength=dataset.n_items)), (len(users), 1)
    )
    expected = sum(fitted.weights[name] * table / table.std(axis=1, keepdims=True) for name, table in tables.items())
    np.testing.assert_allclose(fitted.scores(users), expected, atol=1e-4)
    fitted.save(tmp_path)
    assert RivalEnsemble.load(tmp_path).scores(users).tobytes() == fitted.scores(users).tobytes()


def test_rivals_together_reach_what_the_best_of_them_reaches_on_validation(
    dataset: Dataset, vectors: np.ndarray
) -> None:
    fitted, held = fit_rivals(dataset, vectors, networks=True), dataset.matrix("valid")
    alone = [validation_ndcg(model, dataset.train, held) for model in fitted.models.values()]
    assert validation_ndcg(fitted, dataset.train, held) >= max(alone)


def test_a_part_scores_the_entries_that_it_is_asked_for(dataset: Dataset, vectors: np.ndarray) -> None:
    part, users = ModelPart(fit_rivals(dataset, vectors).models["ease"]), np.array([3, 0, 7])
    items = dataset.train.take_rows(users)
    expected = part.scores(users)[items.rows(), items.indices]
    np.testing.assert_array_equal(part.scores_of(users, items), expected)
    np.testing.assert_allclose(part.scores(users).std(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize(
    "part", ["ridge", "item-kNN", "projection", "factors", "graph filter", "content", "popularity"]
)
def test_a_part_that_is_left_out_weighs_nothing(dataset: Dataset, vectors: np.ndarray, part: str) -> None:
    model = Ensemble(left_out=[part], factors=8, new_items=0)
    fitted = model.fit(
        dataset.train,
        item_features=vectors,
        user_features=mean_of_owned(vectors, dataset.train),
        valid=dataset.matrix("valid"),
        seed=5,
    )
    assert not fitted.weights.get(part) and part not in fitted.widths
    assert fitted.first_settings is not None
    if part == "projection":
        assert {table for table, _, _ in fitted.first_settings.ridges} <= {0}
    if part == "ridge":
        assert fitted.first_settings.ridges == () and fitted.weights["item-kNN"] == 1
    scores = fitted.scores(np.arange(dataset.n_users))
    placed = fitted.fold_in(dataset.train).scores(np.arange(dataset.n_users))
    assert np.corrcoef(placed.ravel(), scores.ravel())[0, 1] > 0.98  # users are placed without the part as well


def test_one_first_part_must_stay() -> None:
    with pytest.raises(ConfigError, match="ridge and item-kNN cannot both be left out"):
        Ensemble(left_out=["item-kNN", "ridge"])
    assert "left_out" not in Ensemble().config.identity()  # a fit of an earlier version stands
    assert Ensemble(left_out=["content"]).config.identity()["left_out"] == ("content",)

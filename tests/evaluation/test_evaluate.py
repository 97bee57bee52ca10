"""The protocol: who is ranked against what, and baselines against their formulas."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from mllmrec_kernels import CSR

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.dataset.splits import resplit
from mllmrec.evaluation import evaluate
from mllmrec.evaluation.evaluate import Evaluation, evaluate_models
from mllmrec.evaluation.groups import SplitTask, rank_tasks
from mllmrec.models import ItemKNN
from mllmrec.models.baselines import baselines, popularity
from mllmrec.models.scoring import VectorScorer, ranks_by_block
from mllmrec.runs.checks import check_evaluation


class Dense:
    """A model by a whole U x I array, for tests only."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self._scores[users].copy()


def dense_recall(dataset: Dataset, scores: np.ndarray, k: int, *, mask_validation: bool) -> float:
    """Recall@k by sorting every row, ties to the lower item."""
    train, valid, test = (dataset.matrix(split).to_scipy().toarray() > 0 for split in ("train", "valid", "test"))
    masked = np.where(train | (valid & mask_validation), -np.inf, scores)
    best = np.argsort(-masked, axis=1, kind="stable")[:, :k]
    hits = np.take_along_axis(test, best, axis=1).sum(1)
    judged = (test.sum(1) > 0) & (train.sum(1) > 0)
    return float((hits[judged] / test.sum(1)[judged]).mean())


@pytest.mark.parametrize("mask_validation", [False, True])
def test_the_table_equals_full_sorting(dataset: Dataset, vectors: np.ndarray, mask_validation: bool) -> None:
    users = np.random.default_rng(1).standard_normal((dataset.n_users, 16)).astype(np.float32)
    config = EvaluateConfig(cutoffs=(3, 10), mask_validation=mask_validation)
    made = evaluate_models({"m": VectorScorer(users, vectors)}, dataset, config)
    for k in (3, 10):
        expected = dense_recall(dataset, users @ vectors.T, k, mask_validation=mask_validation)
        assert made.means["test"]["m"][f"recall@{k}"] == pytest.approx(expected)


def test_users_without_training_items_are_not_judged(dataset: Dataset, vectors: np.ndarray) -> None:
    untrained = (pl.col("user") < 5) & (pl.col("split") == 0)
    fewer = replace(dataset, interactions=dataset.interactions.filter(~untrained))
    users = np.ones((dataset.n_users, 16), np.float32)
    made = evaluate_models({"m": VectorScorer(users, vectors)}, fewer, EvaluateConfig())
    assert made.users["test"] == dataset.n_users - 5
    assert not set(made.per_user["id"]) & set(dataset.users[:5])


def test_nobody_to_judge_is_nan_and_null_and_said_once(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    none = replace(dataset, interactions=dataset.interactions.filter(pl.col("split") < 2))
    users = np.ones((dataset.n_users, 16), np.float32)
    made = evaluate_models({"m": VectorScorer(users, vectors)}, none, EvaluateConfig())
    assert made.users["test"] == 0 and all(math.isnan(value) for value in made.means["test"]["m"].values())
    assert made.unjudged.startswith("nobody can be judged on the test split")
    made.save(lambda name: tmp_path / name)
    notes = json.loads((tmp_path / "metrics.json").read_text())
    assert set(notes["metrics"]["test"]["m"].values()) == {None} and None not in notes["metrics"]["valid"]["m"].values()
    again = Evaluation.load(lambda name: tmp_path / name)
    assert math.isnan(again.means["test"]["m"]["recall@20"]) and again.means["valid"] == made.means["valid"]


@pytest.mark.parametrize(("splits", "rows"), [((0, 2), 80), ((0,), 0)])
def test_tables_of_a_split_without_users_keep_their_types(
    dataset: Dataset, vectors: np.ndarray, tmp_path: Path, splits: tuple[int, ...], rows: int
) -> None:
    fewer = replace(dataset, interactions=dataset.interactions.filter(pl.col("split").is_in(splits)))
    made = evaluate_models(baselines(vectors, fewer.train), fewer, EvaluateConfig())
    made.save(lambda name: tmp_path / name)
    again = Evaluation.load(lambda name: tmp_path / name)
    check_evaluation(again, fewer)
    assert again.per_user.equals(made.per_user) and again.per_user.schema == made.per_user.schema
    assert again.rows_of("popularity").height == rows and again.rows_of("popularity", "valid").is_empty()


def test_item_knn_is_the_sum_of_cosines(dataset: Dataset) -> None:
    dense = dataset.train.to_scipy().toarray().astype(np.float64)
    shared, degree = dense.T @ dense, dense.sum(0)
    cosine = shared / np.sqrt(np.maximum(degree[:, None] * degree[None, :], 1))
    model = ItemKNN(n_neighbors=0, weighting="cosine").fit(dataset.train)
    np.testing.assert_allclose(model.scores(np.arange(3, 9)), (dense @ cosine)[3:9], rtol=1e-5)


def test_equally_popular_items_go_by_index(dataset: Dataset) -> None:
    counts = np.bincount(dataset.histories().items, minlength=dataset.n_items).astype(np.float32)
    scores = np.tile(counts, (dataset.n_users, 1))
    heldout = dataset.matrix("test")
    expected = ranks_by_block(Dense(scores), dataset.train, heldout)
    np.testing.assert_array_equal(popularity(dataset.train).ranks(dataset.train, heldout), expected)


@pytest.mark.parametrize(("mask_validation", "passes"), [(False, 1), (True, 2)])
def test_splits_that_leave_out_the_same_items_are_ranked_in_one_pass(
    dataset: Dataset, vectors: np.ndarray, mask_validation: bool, passes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    users = np.random.default_rng(1).standard_normal((dataset.n_users, 16)).astype(np.float32)
    config, calls, ranks_of = EvaluateConfig(mask_validation=mask_validation), [], VectorScorer.ranks

    def ranks(self: VectorScorer, *matrices: CSR, **options: Any) -> np.ndarray:
        calls.append(matrices)
        return ranks_of(self, *matrices, **options)

    monkeypatch.setattr(VectorScorer, "ranks", ranks)
    model, tasks = VectorScorer(users, vectors), [SplitTask.of(dataset, split, config) for split in ("valid", "test")]
    found = rank_tasks(model, tasks, [None, None])
    assert len(calls) == passes
    for task, own in zip(tasks, found, strict=True):
        assert own.tolist() == ranks_of(model, task.exclude, task.heldout).tolist() and len(own)


def test_of_many_users_ranks_are_counted_to_the_farthest_and_metrics_stay(
    dataset: Dataset, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, config = baselines(vectors, dataset.train), EvaluateConfig(cutoffs=(2, 5))
    exact = evaluate_models(models, dataset, config)
    monkeypatch.setattr(evaluate, "EXACT_USERS", exact.users["test"] - 1)
    monkeypatch.setattr(evaluate, "FARTHEST", 4)  # the largest cutoff is farther
    made = evaluate_models(models, dataset, config)
    assert made.means == exact.means and made.per_user.equals(exact.per_user)
    assert (exact.farthest, made.farthest) == (0, 5) and "ranks counted to 5" in made.summary
    for name in models:
        np.testing.assert_array_equal(made.heldout[name], np.minimum(exact.heldout[name], 5))
        assert exact.heldout[name].max() > 5
    made.save(lambda name: tmp_path / name)
    assert Evaluation.load(lambda name: tmp_path / name).farthest == 5


def test_a_result_comes_back_from_disk(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    made = evaluate_models(baselines(vectors, dataset.train), dataset, EvaluateConfig(), leaky=True)
    made.save(lambda name: tmp_path / name)
    again = Evaluation.load(lambda name: tmp_path / name)
    assert again.means == made.means and again.leaky and again.per_user.equals(made.per_user)


def test_a_model_lets_go_of_what_it_derived_before_the_next_one_ranks(dataset: Dataset, vectors: np.ndarray) -> None:
    calls: list[str] = []

    class Counted(ItemKNN):
        def ranks(self, *matrices: CSR, **options: Any) -> np.ndarray:
            calls.append("ranks")
            return super().ranks(*matrices, **options)

        def among(self, items: np.ndarray) -> Any:
            calls.append("among")
            return super().among(items)

        def release(self) -> None:
            calls.append("release")
            super().release()

    split = resplit(dataset, "cold-items", 4, 0.2)
    models = {name: Counted(n_neighbors=0, weighting="cosine").fit(split.train) for name in ("one", "other")}
    made = evaluate_models(models, split, EvaluateConfig())
    assert calls == ["ranks", "among", "among", "release"] * 2
    assert made.rows_of("one").drop("model").equals(made.rows_of("other").drop("model"))


def test_baselines_on_real_data_are_the_published_ones(real, tmp_path: Path) -> None:
    made = prepare(real("amazon-scientific"), tmp_path / "d", PrepareOptions(split_column="split_random"))
    every_neighbor = ItemKNN(n_neighbors=0, weighting="cosine").fit(made.train)
    models = {"popularity": popularity(made.train), "item-kNN": every_neighbor}
    test = evaluate_models(models, made, EvaluateConfig()).means["test"]
    found = {name: tuple(round(m[key], 3) for key in ("recall@10", "recall@20", "ndcg@20")) for name, m in test.items()}
    assert found == {"popularity": (0.038, 0.058, 0.026), "item-kNN": (0.115, 0.141, 0.090)}

"""Groups of items and users: right values by full sorting, whatever the model scores by."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from mllmrec_cli.stages import print_results
from mllmrec_kernels import CSR

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.splits import resplit
from mllmrec.evaluation.evaluate import Evaluation, evaluate_models
from mllmrec.evaluation.groups import AMONG_COLD, COLD, GROUPS, NEW, WARM, Ranker, SplitTask
from mllmrec.evaluation.new_users import AsShown
from mllmrec.foundation.lazy_table import LazyTable
from mllmrec.models import EASE, ItemKNN
from mllmrec.models.baselines import popularity
from mllmrec.models.scoring import ScoresAmong, VectorScorer
from mllmrec.models.weight_scorers import StandardizedScorer, WeightsScorer

K = 10


@pytest.fixture
def cold(dataset: Dataset) -> Dataset:
    """A split with hidden items, in which five users have no training interaction."""
    split = resplit(dataset, "cold-items", 4, 0.2)
    return replace(split, interactions=split.interactions.filter((pl.col("user") >= 5) | (pl.col("split") > 0)))


def expected(dataset: Dataset, scores: np.ndarray, *, mask_validation: bool) -> dict[str, tuple[int, float, float]]:
    """Group -> users, Recall@K and NDCG@K on the test split, by sorting whole rows."""
    train, valid, test = (dataset.matrix(split).to_scipy().toarray() > 0 for split in ("train", "valid", "test"))
    cold, known = train.sum(0) == 0, train.sum(1) > 0
    gain = 1 / np.log2(np.arange(2, K + 2))
    rules = {
        WARM: (test & ~cold & known[:, None], np.ones_like(cold)),
        COLD: (test & cold & known[:, None], np.ones_like(cold)),
        AMONG_COLD: (test & cold & known[:, None], cold),
        NEW: (test & ~known[:, None], np.ones_like(cold)),
    }
    found = {}
    for group, (held, shown) in rules.items():
        values = []
        for user in np.flatnonzero(held.any(axis=1)):
            out = train[user] | (valid[user] & mask_validation) | ~shown
            best = np.argsort(-np.where(out, -np.inf, scores[user]), kind="stable")[:K]
            hits = held[user][best] & ~out[best]
            m = held[user].sum()
            values.append((hits.sum() / m, (gain[: len(hits)] * hits).sum() / gain[: min(m, K)].sum()))
        recall, ndcg = np.mean(values, axis=0)
        found[group] = (len(values), recall, ndcg)
    return found


def rankers(dataset: Dataset, vectors: np.ndarray) -> dict[str, tuple[Ranker, np.ndarray]]:
    """A ranker of each way to score, and its scores."""
    users = np.random.default_rng(1).standard_normal((dataset.n_users, 16)).astype(np.float32)
    weights = sp.random(dataset.n_items, dataset.n_items, 0.3, format="csr", dtype=np.float32, rng=2)
    everybody, by_vectors = np.arange(dataset.n_users), VectorScorer(users, vectors)
    sparse = WeightsScorer(dataset.train, CSR.from_scipy(weights))
    both = StandardizedScorer(sparse, by_vectors)
    knn = ItemKNN(n_neighbors=0, weighting="cosine").fit(dataset.train)
    dense = EASE(content_weight=20.0).fit(dataset.train, item_features=vectors)
    return {name: (model, model.scores(everybody)) for name, model in (
        ("vectors", by_vectors), ("sparse", sparse), ("both", both), ("knn", knn), ("dense", dense),
    )}  # fmt: skip


@pytest.mark.parametrize("mask_validation", [False, True])
@pytest.mark.parametrize("name", ["vectors", "sparse", "both", "knn", "dense"])
def test_groups_equal_full_sorting(cold: Dataset, vectors: np.ndarray, name: str, mask_validation: bool) -> None:
    model, scores = rankers(cold, vectors)[name]
    made = evaluate_models({"m": model}, cold, EvaluateConfig(cutoffs=(K,), mask_validation=mask_validation))
    scores[np.diff(cold.train.indptr) == 0] = np.bincount(cold.train.indices, minlength=cold.n_items)
    groups = made.groups
    assert groups.apart and made.users["test"] == made.per_user.filter(split="test").height
    for group, (users, recall, ndcg) in expected(cold, scores, mask_validation=mask_validation).items():
        assert groups.users["test"][group] == users > 0, group
        means = groups.means["test"][group]["m"]
        assert (means[f"recall@{K}"], means[f"ndcg@{K}"]) == pytest.approx((recall, ndcg)), group
        rows = groups.per_user.filter(split="test", group=group)
        assert len(rows) == users and rows[f"recall@{K}"].mean() == pytest.approx(recall)


def test_new_users_have_the_ranks_of_popularity_whatever_the_model(cold: Dataset, vectors: np.ndarray) -> None:
    knn, _ = rankers(cold, vectors)["knn"]  # it scores all items alike for a user without any
    task = SplitTask.of(cold, "test", EvaluateConfig())
    own = knn.ranks(task.exclude, task.heldout)
    shown = AsShown(knn, cold.train).ranks(task.exclude, task.heldout)
    popular = popularity(cold.train).ranks(task.exclude, task.heldout)
    np.testing.assert_array_equal(shown, np.where(task.known, own, popular))
    assert (shown != own).any() and (shown != popular).any()


def test_ranks_among_some_items_need_no_kernel(cold: Dataset, vectors: np.ndarray) -> None:
    model, _ = rankers(cold, vectors)["both"]
    task = SplitTask.of(cold, "test", EvaluateConfig())
    held = cold.matrix("test").to_scipy()[:, task.cold_items]
    none = CSR.from_scipy(sp.csr_array(held.shape, dtype=np.float32), binary=True)
    by_kernel = model.among(task.cold_items).ranks(none, CSR.from_scipy(held, binary=True))
    by_block = ScoresAmong(model, task.cold_items).ranks(none, CSR.from_scipy(held, binary=True))  # type: ignore[arg-type]
    np.testing.assert_array_equal(by_kernel, by_block)


def test_nobody_in_a_group_is_nan_and_null_and_never_zero(
    dataset: Dataset, vectors: np.ndarray, tmp_path: Path
) -> None:
    warm = dataset.interactions.filter(pl.col("item").is_in(np.unique(dataset.train.indices).tolist()))
    users = np.ones((dataset.n_users, 16), np.float32)
    models = {"m": VectorScorer(users, vectors)}
    made = evaluate_models(models, replace(dataset, interactions=warm), EvaluateConfig())
    test = made.groups.means["test"]
    assert not made.groups.apart and made.groups.per_user.is_empty()
    assert test[WARM]["m"] == made.means["test"]["m"]
    assert all(math.isnan(value) for group in (COLD, AMONG_COLD, NEW) for value in test[group]["m"].values())
    made.save(lambda name: tmp_path / name)
    notes = json.loads((tmp_path / "metrics.json").read_text())["groups"]
    assert set(notes["metrics"]["test"][COLD]["m"].values()) == {None} and notes["users"]["test"][COLD] == 0
    again = Evaluation.load(lambda name: tmp_path / name)
    assert again.groups.users == made.groups.users and math.isnan(again.groups.means["test"][NEW]["m"]["ndcg@20"])


def test_groups_come_back_from_disk_and_earlier_artefacts_have_none(
    cold: Dataset, vectors: np.ndarray, tmp_path: Path
) -> None:
    made = evaluate_models({"m": rankers(cold, vectors)["vectors"][0]}, cold, EvaluateConfig())
    assert made.save(lambda name: tmp_path / name)[-1] == "groups.parquet"
    again = Evaluation.load(lambda name: tmp_path / name)
    assert again.groups.means == made.groups.means and again.groups.per_user.equals(made.groups.per_user)
    assert set(again.groups.heldout["valid"]) == set(GROUPS)
    notes = json.loads((tmp_path / "metrics.json").read_text())
    del notes["groups"]
    (tmp_path / "metrics.json").write_text(json.dumps(notes))
    (tmp_path / "groups.parquet").unlink()
    earlier = Evaluation.load(lambda name: tmp_path / name)
    assert earlier.means == made.means and not earlier.groups.means and not earlier.groups.apart


def test_files_and_the_printed_tables_need_no_whole_table(
    cold: Dataset, vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = evaluate_models({name: model for name, (model, _) in rankers(cold, vectors).items()}, cold, EvaluateConfig())
    tables = {"per_user": made.per_user, "heldout": made.heldout, "groups": made.groups.per_user}
    made.release()
    monkeypatch.setattr(LazyTable, "rows", property(lambda _: pytest.fail("a whole table was looked at")))
    made.save(lambda name: tmp_path / name)
    print_results(Evaluation.load(lambda name: tmp_path / name))
    for name, table in tables.items():
        assert table.height > 0 and pl.read_parquet(tmp_path / f"{name}.parquet").equals(table), name

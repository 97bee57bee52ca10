"""Test rows reach nothing before the evaluation: exchanged among users, every fitted byte stays the same."""

from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from bench.exchanged_rows import digests, exchange_test_rows
from mllmrec.config import EvaluateConfig, GraphConfig, TrainConfig
from mllmrec.dataset import Dataset
from mllmrec.evaluation.evaluate import evaluate_models
from mllmrec.features.encode import Features
from mllmrec.graph.item_graph import build_graph
from mllmrec.models import registry
from mllmrec.models.base import Recommender
from mllmrec.models.fitting import fit_model
from mllmrec.models.registry import read_settings

QUICK = TrainConfig(dim=8, epochs=2, batch_size=256)


def fit(dataset: Dataset, vectors: np.ndarray, kind: str) -> Recommender:
    """Fit as a trial of a comparison does."""
    seen = dataset.histories()
    features = Features.of_items(vectors, seen)
    graph = build_graph(vectors, seen, GraphConfig())
    return fit_model(features, graph, seen, dataset.matrix("valid"), read_settings({"kind": kind}), QUICK, seed=1)


@pytest.mark.parametrize("kind", registry.kinds())
def test_every_fitted_byte_stays_the_same_when_test_rows_are_exchanged(
    dataset: Dataset, vectors: np.ndarray, kind: str
) -> None:
    if kind == "sansa" and not find_spec("sansa"):
        pytest.skip("sansa is not installed")
    other = exchange_test_rows(dataset)
    assert not np.array_equal(dataset.matrix("test").indices, other.matrix("test").indices)
    first, second = fit(dataset, vectors, kind), fit(other, vectors, kind)
    files = digests(first)
    assert files and files == digests(second)
    users = np.arange(dataset.n_users)
    np.testing.assert_array_equal(first.scores(users), second.scores(users))


def test_exchanged_test_rows_are_no_better_ranked_than_by_chance(dataset: Dataset, vectors: np.ndarray) -> None:
    model = fit(dataset, vectors, "ease")
    ndcg = []
    for part in (dataset, exchange_test_rows(dataset)):
        ranked = evaluate_models({"ease": model}, part, EvaluateConfig(cutoffs=(20,)))
        ndcg.append(ranked.means["test"]["ease"]["ndcg@20"])
    assert ndcg[1] < 0.75 * ndcg[0]

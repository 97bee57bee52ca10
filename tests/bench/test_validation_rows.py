"""Fits on training and validation rows: settings are chosen before, and no validation item is ranked."""

from __future__ import annotations

import numpy as np

from bench.validation_rows import choose, fit, judge, measure, with_validation
from mllmrec.dataset import Dataset
from mllmrec.models.fitted_ensemble import FittedEnsemble


def test_validation_rows_join_the_training_rows_and_test_rows_stay(dataset: Dataset) -> None:
    both = with_validation(dataset)
    assert both.train.nnz == dataset.train.nnz + dataset.matrix("valid").nnz
    assert both.matrix("valid").nnz == 0
    np.testing.assert_array_equal(both.matrix("test").indices, dataset.matrix("test").indices)


def test_a_fit_that_has_read_validation_items_does_not_rank_them(dataset: Dataset, vectors: np.ndarray) -> None:
    config, model = choose(dataset, vectors, "item-knn")
    again = fit(with_validation(dataset), vectors, config)
    counts = np.diff(with_validation(dataset).train.indptr)
    assert (np.diff(again.user_items.indptr) == counts).all() and model.user_items.nnz < again.user_items.nnz
    held, seen = dataset.matrix("test"), with_validation(dataset).train.to_scipy()
    user = int(np.flatnonzero(np.diff(held.indptr))[0])
    scores = np.where(seen[[user]].toarray()[0] > 0, -np.inf, again.scores([user])[0])
    ranks = [int((scores > scores[item]).sum()) for item in held.indices[held.indptr[user] : held.indptr[user + 1]]]
    recall = np.mean([rank < 20 for rank in ranks])
    assert judge(dataset, again, "test")["recall@20"][0] == recall


def test_the_default_keeps_its_choices_and_is_set_against_itself_on_the_same_rows(
    dataset: Dataset, vectors: np.ndarray
) -> None:
    rows = measure(dataset, vectors, ["item-knn"])
    titles = "ensemble", "item-kNN, weighted"
    assert [row[:2] for row in rows] == [(title, on) for title in titles for on in ("training", "both")]
    assert [bool(row[4]) for row in rows] == [False, False, True, True]
    for row, base in zip(rows[2:], rows[:2], strict=True):
        assert abs(float(row[4].split()[0]) - (float(row[3]) - float(base[3]))) < 2e-4
    config, model = choose(dataset, vectors, "ensemble")
    again = fit(with_validation(dataset), vectors, config, model)
    assert isinstance(model, FittedEnsemble) and isinstance(again, FittedEnsemble)
    assert again.refitted is not None and again.weights == model.weights

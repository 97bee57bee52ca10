"""First parts of the ensemble: sums of item-item weights, and half-lives."""

from __future__ import annotations

import json

import numba
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from threadpoolctl import threadpool_limits

from mllmrec.dataset import Dataset, Histories
from mllmrec.foundation.progress import silent
from mllmrec.models import Ensemble
from mllmrec.models.ensemble import EnsembleConfig
from mllmrec.models.ensemble_firsts import (
    KNN,
    RIDGE,
    TRANSITIONS,
    FirstSettings,
    first_parts,
    other_weights,
)
from mllmrec.models.recency import aged_rows
from mllmrec.models.transitions import transition_weights
from mllmrec.models.validation import Validation, validation_ndcg


def dense(matrix: CSR) -> np.ndarray:
    return matrix.to_scipy().toarray().astype(np.float64)


def test_first_parts_are_ridges_sums_of_them_and_item_knn(dataset: Dataset) -> None:
    R, generator = dataset.train, np.random.default_rng(2)
    tables = [generator.random((dataset.n_items, dataset.n_items)) for _ in range(3)]
    one, other, neighbors = (CSR.from_scipy(sp.csr_array(table)) for table in tables)
    ridges = {(0, 20.0, 50.0): one, (1, 40.0, 200.0): other}
    validation = Validation(R, dataset.matrix("valid"))
    firsts = first_parts(ridges, {KNN: neighbors}, {0.0: R}, validation, silent)
    both, three, second, knn = firsts
    assert [part.settings.shares for part in (second, both, knn)] == [{RIDGE: 1}, {RIDGE: 1}, {KNN: 1}]
    scales = [c / (dense(R) @ table).std(1).mean() for c, table in zip((1, 1, 0.3), tables, strict=True)]
    np.testing.assert_allclose(three.settings.scales, scales, rtol=1e-4)
    assert three.settings == FirstSettings(tuple(ridges), {RIDGE: 1, KNN: 0.3}, scales=three.settings.scales)
    assert (second.weights, knn.weights) == (other, neighbors)
    a, b, c = (table / (dense(R) @ table).std(1).mean() for table in tables)
    np.testing.assert_allclose(dense(both.weights), a + b, rtol=1e-4)
    np.testing.assert_allclose(dense(three.weights), a + b + 0.3 * c, rtol=1e-4)
    assert all(part.settings.half_life == 0 and part.rows is R for part in firsts)
    assert FirstSettings.of_json(json.loads(json.dumps(three.settings.as_json()))) == three.settings


def test_a_first_part_has_the_half_life_that_validation_chooses() -> None:
    """The held-out item follows from the newest item alone, and a random one from each older."""
    n, generator = 40, np.random.default_rng(4)
    owned = np.array([generator.permutation(n)[:6] for _ in range(60)])
    follows, W = (np.arange(n) + 1) % n, np.zeros((n, n))
    W[np.arange(n), follows] = 1
    seen = Histories(np.arange(61) * 6, owned.ravel().astype(np.int32), np.tile(np.arange(6), 60), n, "train")
    new = np.array([follows[row[-1]] not in row for row in owned])
    valid = CSR.from_pairs(np.flatnonzero(new), follows[owned[new, -1]], (60, n))
    R = seen.user_items()
    others = other_weights((KNN, TRANSITIONS), R, seen)
    ridges = {(0, 20.0, 50.0): CSR.from_scipy(sp.csr_array(W))}
    rows, validation = aged_rows(R, seen, (0.0, 1.0)), Validation(R, valid)
    part, _, half, whole, *_ = first_parts(ridges, others, rows, validation, silent)
    assert part.settings.half_life == 1 and part.settings.reads_order
    assert validation_ndcg(part.scorer, R, valid) == 1
    assert [first.settings.shares[TRANSITIONS] for first in (half, whole)] == [0.5, 1]
    T = dense(transition_weights(seen.user_items(), seen))
    expected = W / (dense(R) @ W).std(1).mean() + T / (dense(R) @ T).std(1).mean()
    np.testing.assert_allclose(dense(whole.weights), expected, rtol=1e-4, atol=1e-6)


def test_the_number_of_threads_changes_no_bit_of_a_fit(dataset: Dataset, vectors: np.ndarray) -> None:
    before, fitted = numba.get_num_threads(), []
    for threads in (1, before):
        numba.set_num_threads(threads)
        with threadpool_limits(threads):
            model = Ensemble(EnsembleConfig(factors=8, cooccurrence_support=3, semantic_support=3))
            fitted.append(model.fit(dataset.train, item_features=vectors, valid=dataset.matrix("valid"), seed=5))
    one, other = fitted
    assert one.weights == other.weights and one.first_settings == other.first_settings
    assert one.rest.users.tobytes() == other.rest.users.tobytes()
    assert one.rest.items.tobytes() == other.rest.items.tobytes()
    assert one.ridge.sums.matrix.data.tobytes() == other.ridge.sums.matrix.data.tobytes()

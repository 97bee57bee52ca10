"""The ensemble's parts against dense algebra, the search of its weights, and what it may not see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels import CSR

from mllmrec.config import TrainConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import TrainingError
from mllmrec.evaluation import metrics
from mllmrec.features.encode import mean_of_items, mean_of_owned
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph import neighbors as nearest
from mllmrec.models import IALS, Ensemble, FitContext, gpu_parts, leading_vectors
from mllmrec.models import ensemble_weights as search
from mllmrec.models.ensemble import EnsembleConfig
from mllmrec.models.ensemble_weights import GRID, choose_weights, standardize
from mllmrec.models.gfcf import graph_filter, narrow
from mllmrec.models.scoring import VectorScorer, ranks_by_block, top_by_user
from mllmrec.models.validation import Validation, validation_ndcg
from mllmrec.models.weight_scorers import WeightsScorer

FIRSTS = ("ridge", "item-kNN", "transitions")  # item-item weights; all others are tables of vectors
SMALL = EnsembleConfig(factors=8, cooccurrence_support=3, semantic_support=3)


def dense(R: CSR) -> np.ndarray:
    return R.to_scipy().toarray().astype(np.float64)


def fit(dataset: Dataset, vectors: np.ndarray, users: np.ndarray | None = None, **context: object) -> Ensemble:
    users = mean_of_owned(vectors, dataset.train) if users is None else users
    return Ensemble(SMALL, context=FitContext(**context)).fit(
        dataset.train, item_features=vectors, user_features=users, valid=dataset.matrix("valid"), seed=5
    )


@pytest.mark.parametrize("unobserved", [0.0, 2.0])
def test_items_solve_the_normal_equations_of_ials(dataset: Dataset, unobserved: float) -> None:
    """The last half-sweep solves each item given the users; written out densely in float64."""
    fitted = IALS(factors=5, unobserved_weight=unobserved, regularization=0.1, iterations=10).fit(dataset.train, seed=1)
    R, P = dense(dataset.train), fitted.users.astype(np.float64)
    share = unobserved * R.mean()
    for item in np.flatnonzero(R.sum(0)):
        audience = P[R[:, item] > 0]
        shrink = 0.1 * (len(audience) + share * len(R))
        system = audience.T @ audience + share * P.T @ P + shrink * np.eye(5)
        # float32 systems whose condition is below 1e3 here
        np.testing.assert_allclose(fitted.items[item], np.linalg.solve(system, audience.sum(0)), rtol=1e-3, atol=1e-4)


def test_factors_of_equal_tastes_recommend_the_taste_and_are_read_back(tmp_path: Path) -> None:
    """A checkerboard: even users buy even items. A held-out even item must come before every odd one."""
    users, items = np.nonzero(np.add.outer(np.arange(12), np.arange(10)) % 2 == 0)
    kept = (users != 0) | (items != 4)
    checkers = CSR.from_pairs(users[kept], items[kept], (12, 10))
    fitted = IALS(factors=4, regularization=0.01, iterations=10).fit(checkers)
    assert fitted.scores([0])[0, 4] > fitted.scores([0])[0, 1::2].max()
    assert fitted.recommend([0], 1)[0].tolist() == [[4]]
    fitted.save(tmp_path)
    again = IALS.load(tmp_path)
    assert again.users.tobytes() == fitted.users.tobytes() and again.config == fitted.config


def test_the_graph_filter_keeps_the_leading_singular_vectors(dataset: Dataset) -> None:
    R = dense(dataset.train)
    users, items = np.maximum(R.sum(1), 1), np.maximum(R.sum(0), 1)
    _, _, basis = np.linalg.svd(R / np.sqrt(np.outer(users, items)))
    for rank, filtered in ((5, graph_filter(dataset.train, 5)), (2, narrow(graph_filter(dataset.train, 5), 2))):
        V = basis[:rank].T
        expected = R @ np.diag(items**-0.5) @ V @ V.T @ np.diag(items**0.5)
        np.testing.assert_allclose(filtered.users @ filtered.items.T, expected, atol=1e-4)
    one = CSR.from_pairs(np.array([0]), np.array([0]), (1, 1))
    assert graph_filter(one, 5).items.tolist() == [[0]]


def test_standardised_scores_have_a_spread_of_one_and_equal_scores_become_zero() -> None:
    generator = np.random.default_rng(2)
    users, items = (generator.standard_normal((n, 6)).astype(np.float32) for n in (9, 40))
    users[3] = 0
    scores = standardize(VectorScorer(users, items)).scores(np.arange(9))
    np.testing.assert_allclose(np.delete(scores.std(1), 3), 1, rtol=1e-4)
    assert not scores[3].any()
    same = VectorScorer(users, np.tile(items[:1], (40, 1)))
    assert not standardize(same).scores(np.arange(9)).any()


class Fixed:
    """A part of given scores."""

    def __init__(self, scores: np.ndarray) -> None:
        self._scores = scores.astype(np.float32)

    def scores(self, users: np.ndarray) -> np.ndarray:
        return self._scores[users].copy()

    def top(self, users: np.ndarray, k: int, exclude: CSR) -> tuple[np.ndarray, np.ndarray]:
        return top_by_user(self, users, k, exclude)

    def scores_of(self, users: np.ndarray, items: CSR) -> np.ndarray:
        return self.scores(users)[items.rows(), items.indices]


class Ranked(Fixed):
    """The same, to be judged by full ranking."""

    def ranks(self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent) -> np.ndarray:
        return ranks_by_block(self, exclude, heldout)


def test_the_search_finds_what_helps_and_leaves_out_what_does_not(dataset: Dataset) -> None:
    train, valid = dataset.train, dataset.matrix("valid")
    generator = np.random.default_rng(7)
    noise, knows = generator.standard_normal(train.shape), 1.5 * dense(valid)
    ranking, *parts = [Fixed(part) for part in (noise, np.zeros(train.shape), knows, -knows)]
    which, (constant, helps, harms) = choose_weights([ranking], parts, Validation(train, valid))
    assert which == constant == harms == 0 and helps >= GRID[-1]


def test_of_two_first_parts_the_better_mixture_stays(dataset: Dataset) -> None:
    """Alone, the first is better; but the part beside it mends the second alone."""
    train, valid = dataset.train, dataset.matrix("valid")
    knows = dense(valid)
    noise = 9 * np.random.default_rng(7).standard_normal(train.shape)
    good, bad, mends = Fixed(knows + noise / 20), Fixed(knows - noise), Fixed(noise / GRID[-1])
    assert choose_weights([bad, good], [], Validation(train, valid))[0] == 1
    assert choose_weights([good, bad], [mends], Validation(train, valid))[0] == 1


def test_short_lists_rank_as_the_whole_catalogue_does_where_it_is_short(dataset: Dataset) -> None:
    """Items on several lists, seen items and users without held-out items count as they do in a full ranking."""
    train, valid = dataset.train, dataset.matrix("valid")
    generator = np.random.default_rng(11)
    tables = [generator.standard_normal(train.shape).astype(np.float32) for _ in range(3)]
    lists = search._short_lists([Fixed(table) for table in tables], Validation(train, valid))
    mixed = tables[0] + np.float32(0.5) * (tables[1] + tables[2])
    mixed[dense(train) > 0] = -np.inf
    wanted = metrics.per_user(ranks_by_block(Fixed(mixed), train, valid), valid.indptr, (20,))["ndcg@20"]
    judged = (np.diff(valid.indptr) > 0) & (np.diff(train.indptr) > 0)
    (reached,) = lists.ndcg([1, 9, 0.5], 1, [0.5])
    assert reached == pytest.approx(wanted[judged].mean())


def test_an_item_on_no_list_changes_nothing_near_the_top(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of the best 20 of one part alone: whoever ranks among its best 20 is on them."""
    train, valid = dataset.train, dataset.matrix("valid")
    scores = np.random.default_rng(12).standard_normal(train.shape).astype(np.float32)
    monkeypatch.setattr(search, "_LISTED", search.CUTOFF)
    lists = search._short_lists([Fixed(scores)], Validation(train, valid))
    assert lists.scores.shape[2] < train.n_columns
    assert lists.ndcg([1.0], 0, [1.0]) == pytest.approx([validation_ndcg(Ranked(scores), train, valid)])


def test_of_more_users_than_the_lists_hold_some_are_searched_on(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    train, valid = dataset.train, dataset.matrix("valid")
    known = metrics.users_with_heldout(train, valid)
    width = min(search._LISTED, train.n_columns) + int(np.diff(valid.indptr).max())
    monkeypatch.setattr(search, "_LIST_BYTES", 4 * width * 6)
    lists = search._short_lists([Fixed(np.zeros(train.shape))], Validation(train, valid))
    assert lists.scores.shape[1] == 6
    np.testing.assert_array_equal(np.diff(lists.indptr)[[0, -1]], np.diff(valid.indptr)[known[[0, -1]]])


def test_only_listed_users_are_scored(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    train, valid = dataset.train, dataset.matrix("valid")
    part, scored = Fixed(np.zeros(train.shape)), []

    def scores_of(users: np.ndarray, items: CSR) -> np.ndarray:
        scored.append(users.tolist())
        return Fixed.scores_of(part, users, items)

    part.scores_of = scores_of  # type: ignore[method-assign]
    search._short_lists([part], Validation(train, valid))
    known = metrics.users_with_heldout(train, valid).tolist()
    assert scored == [known]


def test_equal_scores_are_no_hits(dataset: Dataset) -> None:
    """Beside a part that ranks nothing, one that truly ranks is taken."""
    train, valid = dataset.train, dataset.matrix("valid")
    nothing = Fixed(np.zeros(train.shape))
    assert choose_weights([nothing], [Fixed(dense(valid))], Validation(train, valid)) == (0, (1,))


def test_an_ensemble_is_the_weighted_sum_of_its_parts_on_one_scale(
    dataset: Dataset, vectors: np.ndarray, tmp_path: Path
) -> None:
    users = np.random.default_rng(3).standard_normal((dataset.n_users, 16)).astype(np.float32)
    fitted, everybody = fit(dataset, vectors, users), np.arange(dataset.n_users)
    names = [name for name in fitted.weights if name not in ("item-kNN", "transitions")]
    assert names == ["ridge", "factors", "graph filter", "content", "profile", "popularity"]
    R, means = dense(dataset.train), mean_of_items(vectors, dataset.histories())
    ridge = fitted.ridge.scores(everybody)
    rest = fitted.scores(everybody) - ridge / ridge.std(1, keepdims=True)
    np.testing.assert_allclose(rest, fitted.rest.scores(everybody), atol=1e-4)
    tables = {"content": means @ vectors.T, "profile": users @ vectors.T}
    tables["popularity"] = np.tile(np.log1p(R.sum(0)), (dataset.n_users, 1))
    widths = {"factors": 8, "content": 16, "profile": 16, "popularity": 1}
    used = {
        name: weight
        for name, weight in fitted.weights.items()
        if weight and name not in ("ridge", "item-kNN", "transitions")
    }
    widths["graph filter"] = fitted.rest.users.shape[1] - sum(widths.get(name, 0) for name in used)  # one of three
    width = 0
    for name, weight in used.items():
        columns = slice(width, width + widths[name])
        part = fitted.rest.users[:, columns] @ fitted.rest.items[:, columns].T
        np.testing.assert_allclose(part.std(1), weight, rtol=1e-3)
        if name in tables:
            wanted = tables[name] / tables[name].std(1, keepdims=True)
            np.testing.assert_allclose(part, weight * wanted, atol=1e-3)
        width += widths[name]
    fitted.save(tmp_path)
    again = Ensemble.load(tmp_path)
    assert again.summary == fitted.summary
    np.testing.assert_array_equal(again.scores(np.arange(9)), fitted.scores(np.arange(9)))


def test_an_ensemble_reaches_what_its_ridge_reaches_on_validation(dataset: Dataset, vectors: np.ndarray) -> None:
    """Weights of zero are among the tried; and the mean of a user's items is not counted twice."""
    fitted = fit(dataset, vectors)
    assert "profile" not in fitted.weights and any(fitted.weights[name] for name in ("factors", "graph filter"))
    train, valid = dataset.train, dataset.matrix("valid")
    assert validation_ndcg(fitted, train, valid) > validation_ndcg(fitted.ridge, train, valid)


def test_a_catalogue_without_texts_is_ranked_by_interactions(dataset: Dataset, vectors: np.ndarray) -> None:
    fitted, valid = fit(dataset, np.zeros_like(vectors)), dataset.matrix("valid")
    without = Ensemble(SMALL).fit(dataset.train, valid=valid, seed=5)
    everybody = np.arange(dataset.n_users)
    assert np.isfinite(fitted.scores(everybody)).all()
    assert fitted.weights["content"] == 0
    assert validation_ndcg(fitted, dataset.train, valid) > 0
    np.testing.assert_array_equal(without.scores(everybody), fitted.scores(everybody))


def test_one_user_is_enough() -> None:
    R, held = (CSR.from_pairs(np.array([0]), np.array([item]), (1, 3)) for item in (0, 2))
    fitted = Ensemble(SMALL).fit(R, item_features=np.eye(3, 4, dtype=np.float32), valid=held)
    assert np.isfinite(fitted.scores([0])).all()


def test_a_user_without_a_history_has_no_preference_and_no_nan(dataset: Dataset, vectors: np.ndarray) -> None:
    fitted = fit(dataset, vectors)
    nobody = CSR.from_pairs(np.array([], int), np.array([], int), (1, dataset.n_items))
    ridge = WeightsScorer(nobody, fitted.ridge.weights)
    rest = VectorScorer(np.zeros_like(fitted.rest.users[:1]), fitted.rest.items)
    assert not replace(fitted.scorer, weights=ridge, rest=rest).scores(np.array([0])).any()


def test_an_ensemble_refuses_to_choose_by_nothing(dataset: Dataset, vectors: np.ndarray) -> None:
    empty = CSR.from_pairs(np.array([], int), np.array([], int), dataset.train.shape)
    users = np.flatnonzero(np.diff(dataset.train.indptr))
    train = dataset.train.to_scipy().tolil()
    train[users[0]] = 0
    stranger = CSR.from_pairs(users[:1], np.array([0]), dataset.train.shape)
    with pytest.raises(TrainingError, match="no user has both a training and a validation interaction"):
        Ensemble(SMALL).fit(train.tocsr(), item_features=vectors, valid=stranger)
    for valid in (empty, None):
        with pytest.raises(TrainingError, match=r"validation split is empty.*\(model\.kind=ridge needs none\)"):
            Ensemble(SMALL).fit(dataset.train, item_features=vectors, valid=valid)


def test_a_fit_tells_its_progress(dataset: Dataset, vectors: np.ndarray) -> None:
    """Every part, and each ends at its total."""
    told: dict[str, tuple[int, int | None]] = {}
    fit(dataset, vectors, progress=lambda label, done, total: told.update({label: (done, total)}))
    assert all(done == total for done, total in told.values())
    assert {
        "fit 8 factors 1 of 2",
        "fit ridges on 2 tables",
        "search neighbors",
        "search weights",
        "list items",
    } <= set(told)
    assert any(label.startswith("validate ridges") for label in told)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_fits_the_same_ensemble(dataset: Dataset, vectors: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ridges are rounded once to float32 from float64, so a unit in the last place at most; ranks have the bits."""
    monkeypatch.setattr(nearest, "_PAYS", 0)
    monkeypatch.setattr(gpu_parts, "PAYS", 0)
    fitted = [fit(dataset, vectors, train=TrainConfig(device=name)) for name in ("cuda", "cpu")]
    users, items = dataset.train.shape
    one, other = (model.scores(np.arange(users)) for model in fitted)
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())
    assert one.shape == (users, items)


def test_leading_vectors_in_blocks_are_those_of_a_dense_decomposition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading_vectors, "_BLOCK", 4)
    monkeypatch.setattr(leading_vectors, "_BASIS", 2)  # many restarts
    monkeypatch.setattr(leading_vectors, "_GAIN", 1e-13)
    generator = np.random.default_rng(3)
    dense_matrix = np.where(generator.random((300, 120)) < 0.1, generator.random((300, 120)), 0)
    found, values = leading_vectors.leading_vectors(sp.csr_array(dense_matrix), 6)
    _, singular, vectors = np.linalg.svd(dense_matrix)
    np.testing.assert_allclose(values, singular[:6] ** 2, rtol=1e-10)
    np.testing.assert_allclose(found.T @ found, vectors[:6].T @ vectors[:6], atol=1e-5)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-12)


def test_leading_vectors_of_a_matrix_of_lower_rank_than_wanted_stay_orthonormal() -> None:
    generator = np.random.default_rng(4)
    low = generator.standard_normal((90, 3)) @ generator.standard_normal((3, 200))
    found, values = leading_vectors.leading_vectors(sp.csr_array(low), 5)
    np.testing.assert_allclose(values[:3], np.linalg.svd(low)[1][:3] ** 2, rtol=1e-10)
    assert np.abs(values[3:]).max() < 1e-9 * values[0]
    np.testing.assert_allclose(found @ found.T, np.eye(5), atol=1e-10)


def test_leading_vectors_of_close_eigenvalues_stay_orthonormal_over_many_restarts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A product lies to nine tenths in the basis: projected once, a block would carry ten times the basis' rounding."""
    monkeypatch.setattr(leading_vectors, "_BLOCK", 4)
    monkeypatch.setattr(leading_vectors, "_BASIS", 4)
    monkeypatch.setattr(leading_vectors, "_GAIN", 1e-12)
    eigenvalues = np.linspace(0.8, 1.2, 3000)
    found, values = leading_vectors.leading_vectors(sp.csr_array(sp.diags_array(eigenvalues**0.5)), 6)
    np.testing.assert_allclose(found @ found.T, np.eye(6), atol=1e-10)
    assert values.max() <= 1.2 * (1 + 1e-12)
    np.testing.assert_allclose(values, eigenvalues[:-7:-1], rtol=1e-4)

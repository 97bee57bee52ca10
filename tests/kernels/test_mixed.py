"""Mixed scores: every backend equals the reference, which equals a full sort."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.mixed import MixedScores, cpu, rank_mixed, row_spread, score_mixed, sum_pairs, topk_mixed
from mllmrec_kernels.rank import cpu as rank_cpu
from mllmrec_kernels.topk import cpu as topk_cpu
from numba import get_num_threads, set_num_threads

from tests.kernels.mixed_cases import MIXED_CASES, MixedCase

each_case = pytest.mark.parametrize("case", MIXED_CASES, ids=lambda case: case.name)
named = {case.name: case for case in MIXED_CASES}


@each_case
@pytest.mark.parametrize("by_int8", [True, False])
def test_ranks_equal_the_reference(case: MixedCase, by_int8: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not by_int8:
        monkeypatch.setattr(rank_cpu, "supported", lambda: False)
    scores, (exclude, heldout) = case.scores(), case.pairs()
    ranks = rank_mixed(scores, exclude, heldout)
    assert ranks.dtype == np.int32
    np.testing.assert_array_equal(ranks, rank_mixed(scores, exclude, heldout, backend="reference"))


@each_case
@pytest.mark.parametrize("limit", [0, 1, 10, 10_000])
def test_ranks_below_a_limit_are_exact(case: MixedCase, limit: int) -> None:
    scores, (exclude, heldout) = case.scores(), case.pairs()
    ranks = rank_mixed(scores, exclude, heldout, limit=limit)
    expected = rank_mixed(scores, exclude, heldout, backend="reference")
    np.testing.assert_array_equal(np.minimum(ranks, limit), np.minimum(expected, limit))


@each_case
@pytest.mark.parametrize("excluding", [True, False])
@pytest.mark.parametrize("by_int8", [True, False])
def test_lists_equal_the_reference(
    case: MixedCase, excluding: bool, by_int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk_cpu, "FEW_PAIRS", 0)
    monkeypatch.setattr(cpu, "AXES_PAY", 0)
    if not by_int8:
        monkeypatch.setattr(topk_cpu, "supported", lambda: False)
    scores, exclude = case.scores(), case.pairs()[0] if excluding else None
    ids, values = topk_mixed(scores, case.k, exclude=exclude)
    assert (ids.dtype, values.dtype) == (np.int32, np.float32)
    expected = topk_mixed(scores, case.k, exclude=exclude, backend="reference")
    np.testing.assert_array_equal(ids, expected[0])
    np.testing.assert_array_equal(values, expected[1])


@each_case
def test_scores_equal_the_reference(case: MixedCase) -> None:
    scores, pairs = case.scores(), case.pairs()[1]
    np.testing.assert_array_equal(score_mixed(scores, pairs), score_mixed(scores, pairs, backend="reference"))


@each_case
def test_spread_equals_the_reference(case: MixedCase) -> None:
    scores = case.scores()
    got = row_spread(scores.user_items, scores.item_weights)
    np.testing.assert_array_equal(got, row_spread(scores.user_items, scores.item_weights, backend="reference"))


@pytest.mark.parametrize("max_bytes", [20_000, 2**20, 2**28])
@pytest.mark.parametrize("name", ["several_tiles", "integer_many", "sparse_alone", "dense"])
def test_memory_and_threads_change_nothing(name: str, max_bytes: int) -> None:
    case = named[name]
    scores, (exclude, heldout) = case.scores(), case.pairs()
    expected = rank_mixed(scores, exclude, heldout, backend="reference")
    lists = topk_mixed(scores, case.k, exclude=exclude, backend="reference")
    threads = get_num_threads()
    try:
        for n in (1, threads):
            set_num_threads(n)
            np.testing.assert_array_equal(rank_mixed(scores, exclude, heldout, max_bytes=max_bytes), expected)
            ids, values = topk_mixed(scores, case.k, exclude=exclude, max_bytes=max_bytes)
            np.testing.assert_array_equal(ids, lists[0])
            np.testing.assert_array_equal(values, lists[1])
    finally:
        set_num_threads(threads)


@pytest.mark.parametrize("users", [1, 3])
@pytest.mark.parametrize("name", ["several_tiles", "integer_many", "sparse_alone", "dense"])
def test_memory_that_serves_many_pieces_leaks_nothing(name: str, users: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "USERS", users)
    monkeypatch.setattr(cpu, "_FIRST_ROOM", 1)
    case = named[name]
    scores, (exclude, heldout) = case.scores(), case.pairs()
    assert len(heldout.indptr) > 2 * users + 1
    expected = rank_mixed(scores, exclude, heldout, backend="reference")
    np.testing.assert_array_equal(rank_mixed(scores, exclude, heldout), expected)
    for got, right in zip(
        topk_mixed(scores, case.k, exclude=exclude),
        topk_mixed(scores, case.k, exclude=exclude, backend="reference"),
        strict=True,
    ):
        np.testing.assert_array_equal(got, right)
    np.testing.assert_array_equal(score_mixed(scores, heldout), score_mixed(scores, heldout, backend="reference"))


@each_case
def test_the_reference_is_scipy_and_a_sort(case: MixedCase) -> None:
    """Scores to rounding, by scipy's product; ranks are the places in a full list."""
    scores, (exclude, heldout) = case.scores(), case.pairs()
    R, W = as_csr("R", scores.user_items).to_scipy(), scores.item_weights
    x = R @ (W.to_scipy() if isinstance(W, CSR) else W)
    dense = (x.toarray() if sp.issparse(x) else x).astype(np.float64)
    spread = row_spread(scores.user_items, scores.item_weights, backend="reference")
    np.testing.assert_allclose(spread, dense.std(axis=1) if case.items else spread, rtol=1e-5, atol=1e-6)
    if scores.scale is not None:
        dense *= np.asarray(scores.scale, np.float64)[:, None]
    products = np.zeros_like(dense)
    if scores.user_vectors is not None and scores.item_vectors is not None:
        products = scores.user_vectors.astype(np.float64) @ scores.item_vectors.astype(np.float64).T
    got = score_mixed(scores, heldout, backend="reference")
    at = heldout.rows(), heldout.indices
    size = np.abs(dense[at]) + np.abs(products[at])
    assert (np.abs(got - (dense + products)[at]) <= 1e-5 * size + 1e-6 * np.abs(dense).max(initial=0) + 1e-37).all()
    ids, _ = topk_mixed(scores, max(1, case.items), exclude=exclude, backend="reference")
    places = [int(np.flatnonzero(ids[u] == h)[0]) for u in range(case.users) for h in heldout.row(u)]
    np.testing.assert_array_equal(rank_mixed(scores, exclude, heldout, backend="reference"), places)


def test_a_user_without_items_is_ranked_by_the_inner_product() -> None:
    """Checked by hand: item 2 ties with item 0, which has the lower id."""
    nothing = CSR.from_pairs(np.zeros(0, int), np.zeros(0, int), (1, 3))
    weights = CSR.from_pairs(np.array([0]), np.array([1]), (3, 3))
    vectors = np.ones((1, 1), np.float32), np.array([[1], [2], [1]], np.float32)
    heldout = CSR.from_pairs(np.zeros(3, int), np.arange(3), (1, 3))
    owner = CSR.from_pairs(np.zeros(1, int), np.zeros(1, int), (1, 3))
    empty = MixedScores(nothing, weights, None, *vectors)
    assert rank_mixed(empty, nothing, heldout).tolist() == [1, 0, 2]
    assert topk_mixed(MixedScores(owner, weights, np.array([-9.0]), *vectors), 2)[0].tolist() == [[0, 2]]
    assert score_mixed(MixedScores(owner, weights, np.array([-9.0]), *vectors), heldout).tolist() == [1, -7, 1]


def test_tensors_in_tensors_out_and_scipy_is_taken() -> None:
    case = named["odd"]
    scores, (exclude, heldout) = case.scores(), case.pairs()
    R, W = (as_csr("", matrix).to_scipy() for matrix in (scores.user_items, scores.item_weights))
    users, items = (torch.from_numpy(vectors) for vectors in (scores.user_vectors, scores.item_vectors))
    tensors = MixedScores(R, W, scores.scale, users, items)
    ranks, (ids, values) = rank_mixed(tensors, exclude, heldout), topk_mixed(tensors, 3)
    assert all(isinstance(result, torch.Tensor) for result in (ranks, ids, values, score_mixed(tensors, heldout)))
    np.testing.assert_array_equal(ranks.numpy(), rank_mixed(scores, exclude, heldout))


def test_some_users_score_as_they_do_among_all() -> None:
    case = named["odd"]
    scores, (exclude, _), some = case.scores(), case.pairs(), np.array([7, 0, 2])
    ids, values = topk_mixed(scores, 5, exclude=exclude)
    got = topk_mixed(scores.take(some), 5, exclude=exclude.take_rows(some))
    np.testing.assert_array_equal(got[0], ids[some])
    np.testing.assert_array_equal(got[1], values[some])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_vectors": None}, "must both be given, or neither"),
        ({"user_vectors": np.ones((4, 9))}, "user_vectors must have 13 rows, as the sparse part has; got 4"),
        ({"item_weights": np.ones((3, 57))}, "item_weights must have 57 rows, the columns of user_items; got 3"),
        ({"item_weights": np.full((57, 57), np.nan)}, "item_weights must be finite"),
        ({"scale": np.ones(2)}, r"scale must have shape \(13,\); got \(2,\)"),
        ({"scale": np.full(13, np.inf)}, "scale must be finite; 13 values are NaN or infinite"),
        ({"scale": np.full(13, 1e38)}, "beyond float32"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    scores, (exclude, heldout) = named["odd"].scores(), named["odd"].pairs()
    with pytest.raises(KernelInputError, match=message):
        rank_mixed(replace(scores, **change), exclude, heldout)  # type: ignore[arg-type]
    with pytest.raises(KernelInputError, match="held-out items are also excluded"):
        rank_mixed(scores, heldout, heldout)


class Poisoned:
    """NumPy, whose `empty` holds NaN, or an absurd integer; compiled code, which reads other names, keeps its own."""

    def __getattr__(self, name: str) -> object:
        return getattr(np, name)

    def empty(self, *args: Any) -> np.ndarray:
        array = np.empty(*args)
        array.fill(np.nan if array.dtype.kind == "f" else np.iinfo(array.dtype).max // 2)
        return array


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is allocated for a result and not written shows up."""
    monkeypatch.setattr(cpu, "np", Poisoned())


@each_case
@pytest.mark.parametrize("by_int8", [True, False])
def test_lists_above_a_floor_are_the_start_of_the_lists(
    case: MixedCase, by_int8: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topk_cpu, "FEW_PAIRS", 0)
    monkeypatch.setattr(cpu, "AXES_PAY", 0)
    if not by_int8:
        monkeypatch.setattr(topk_cpu, "supported", lambda: False)
    scores, exclude = case.scores(), case.pairs()[0]
    ids, values = topk_mixed(scores, case.k, exclude=exclude)
    floor = values[:, min(2, case.k - 1)].copy()  # a score that is listed
    floor[::4] = np.inf
    floor[1::4] = -np.inf
    for backend in ("auto", "reference"):
        found = topk_mixed(scores, case.k, exclude=exclude, floor=floor, backend=backend)
        below = values < floor[:, None]
        np.testing.assert_array_equal(found[0], np.where(below, -1, ids))
        np.testing.assert_array_equal(found[1], np.where(below, -np.inf, values))


def test_a_floor_has_a_number_for_each_user() -> None:
    scores = MIXED_CASES[0].scores()
    with pytest.raises(KernelInputError, match=r"floor must be 13 numbers; got shape \(2,\)"):
        topk_mixed(scores, 3, floor=np.zeros(2, np.float32))


@each_case
def test_sums_of_pairs_have_the_bits_of_the_sparse_parts(case: MixedCase) -> None:
    scores, (exclude, heldout) = case.scores(), case.pairs()
    R, W = as_csr("R", scores.user_items), scores.item_weights
    if not isinstance(W, CSR):
        W = CSR.from_scipy(sp.csr_array(W))
    for pairs in (exclude, heldout):
        np.testing.assert_array_equal(sum_pairs(R, W, pairs), score_mixed(MixedScores(R, W), pairs))
    with pytest.raises(KernelInputError, match="do not fit"):
        sum_pairs(R, W, CSR(np.zeros(R.n_rows + 2, np.int64), np.zeros(0, np.int32), None, W.n_columns))

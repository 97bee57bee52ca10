"""Items that are encoded once: the bits of calls that encode them anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from mllmrec_kernels import (
    CSR,
    KernelInputError,
    MixedIndex,
    MixedItems,
    MixedScores,
    rank_mixed,
    row_spread,
    score_mixed,
    topk_mixed,
)
from mllmrec_kernels.exact import plan
from mllmrec_kernels.exact.problem import TopKProblem
from numpy.typing import NDArray

from tests.kernels.cases import split_pairs

USERS, ITEMS = 200, 1_003  # items in several panels
Arrays = NDArray[np.float32]


def draw(d: int, *, tied: bool, seed: int = 0) -> tuple[CSR, CSR, Arrays, Arrays]:
    """R with users without items, W, and vectors; ties where weights and vectors are whole numbers."""
    rng = np.random.default_rng(seed + d)
    R = CSR.from_scipy(sp.csr_array(rng.random((USERS, ITEMS)) < 0.003), binary=True)
    W = sp.random_array((ITEMS, ITEMS), density=0.02, rng=rng, data_sampler=lambda size: rng.normal(size=size)).tocsr()
    vectors = rng.standard_normal((USERS, d)), rng.standard_normal((ITEMS, d))
    if tied:
        W.data, vectors = np.rint(W.data), tuple(map(np.rint, vectors))
    users, items = (np.ascontiguousarray(table, np.float32) for table in vectors)
    return R, CSR.from_scipy(W.astype(np.float32)), users, items


def in_blocks(users: int, n: int) -> list[NDArray[np.int64]]:
    """Return rows of users in n blocks."""
    return np.array_split(np.arange(users), n)


def rotated(problem: TopKProblem) -> plan.RotationPlan:
    """Return a plan on the axes of a sample of items; half of the axes are multiplied for every pair."""
    sample, m = plan._draw_sample(problem), problem.items.shape[1] // 2
    return plan._scaled(plan._axes(plan._principal_axes(sample.axis_rows), m), m, sample, itself=False)


PLANS: dict[str, Callable[[TopKProblem], plan.RotationPlan]] = {
    "one byte": lambda problem: plan.unrotated_plan(problem, two_bytes=False),
    "two bytes": lambda problem: plan.unrotated_plan(problem, two_bytes=True),
    "rotated": rotated,
}


def search_by(kind: str, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let lists be searched by one kind of plan, however few they are; return the ks that plans were made for."""
    made = list[int]()

    def make_plan(problem: TopKProblem, ends: Arrays, n_queries: int) -> plan.RotationPlan:
        assert len(ends) == len(problem.queries) <= n_queries
        made.append(problem.k)
        return PLANS[kind](problem)

    monkeypatch.setattr("mllmrec_kernels.topk.cpu.FEW_PAIRS", 0)
    monkeypatch.setattr("mllmrec_kernels.topk.cpu.make_plan", make_plan)
    return made


@pytest.mark.parametrize(
    ("d", "kind"), [(0, "one byte"), (5, "two bytes"), (64, "one byte"), (64, "two bytes"), (70, "rotated")]
)
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("standardize", [False, True])
def test_blocks_of_users_give_what_one_call_gives(
    d: int, kind: str, tied: bool, standardize: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    search_by(kind, monkeypatch)
    R, W, users, vectors = draw(d, tied=tied)
    exclude, heldout = split_pairs(np.random.default_rng(1), (USERS, ITEMS))
    spread = row_spread(R, W)
    scale = np.divide(1, spread, out=np.zeros(USERS), where=spread > 0).astype(np.float32) if standardize else None
    whole = MixedScores(R, W, scale, *((users, vectors) if d else (None, None)))
    items = MixedItems(W, vectors if d else None)
    limits, ks = (None, 20, 3), (7, 1, ITEMS + 2, 7)
    ranks, lists, scored = [], [], []
    for rows in in_blocks(USERS, 3):
        block = MixedScores(R.take_rows(rows), items, None, users[rows] if d else None, standardize=standardize)
        known, held = exclude.take_rows(rows), heldout.take_rows(rows)
        ranks.append([rank_mixed(block, known, held, limit=limit) for limit in limits])
        lists.append([topk_mixed(block, k, exclude=known) for k in ks])
        scored.append(score_mixed(block, held))
    for n, limit in enumerate(limits):
        expected = rank_mixed(whole, exclude, heldout, backend="reference")
        found = np.concatenate([of_block[n] for of_block in ranks])
        cut = ITEMS if limit is None else limit
        np.testing.assert_array_equal(np.minimum(found, cut), np.minimum(expected, cut))
    for n, k in enumerate(ks):
        expected = topk_mixed(whole, k, exclude=exclude, backend="reference")
        for side in (0, 1):
            found = np.concatenate([of_block[n][side] for of_block in lists])
            np.testing.assert_array_equal(found, expected[side])
    np.testing.assert_array_equal(np.concatenate(scored), score_mixed(whole, heldout, backend="reference"))


@pytest.mark.parametrize(("d", "kind"), [(64, "one byte"), (64, "rotated"), (64, "two bytes"), (516, "two bytes")])
def test_users_of_other_sizes_than_the_first_are_listed_exactly(
    d: int, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scales of codes follow the first block of users; the second has coordinates that these would clip."""
    made = search_by(kind, monkeypatch)
    R, W, users, vectors = draw(d, tied=False)
    first, second = in_blocks(60, 2)
    users[second] = np.where(np.eye(len(second), d) > 0, 1e4, 0)  # of norm 1, one coordinate is all of it
    vectors[::7] = 3  # long, and equal
    items = MixedItems(W, vectors)
    for rows in (first, second):
        block = MixedScores(R.take_rows(rows), items, None, users[rows])
        expected = topk_mixed(replace(block, item_weights=W, item_vectors=vectors), 10, backend="reference")
        for found, wanted in zip(topk_mixed(block, 10), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert made == [10]


def test_nothing_is_encoded_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    made = search_by("rotated", monkeypatch)
    R, W, users, vectors = draw(64, tied=False)
    exclude, heldout = split_pairs(np.random.default_rng(1), (USERS, ITEMS))
    items, kept = MixedItems(W, vectors), []
    for rows in in_blocks(USERS, 2):
        block = MixedScores(R.take_rows(rows), items, None, users[rows])
        rank_mixed(block, exclude.take_rows(rows), heldout.take_rows(rows), limit=20)
        topk_mixed(block, 5)
        kept.append((items.coded(0).codes, items.kept.lists.columns, items.kept.blocks[False, True]))
    assert made == [5]
    assert kept[0][1] is not None
    assert all(one is other for one, other in zip(*kept, strict=True))


def test_one_index_serves_one_user_and_many() -> None:
    R, W, users, vectors = draw(64, tied=True)
    items = MixedItems(W, vectors)
    index, ids = MixedIndex(items), topk_mixed(MixedScores(R, items, None, users), 9, exclude=R)[0]
    assert index.items is items
    for u in (0, 17):
        np.testing.assert_array_equal(index.topk(R.row(u), 9, user_vector=users[u])[0], ids[u])


@pytest.mark.parametrize("verb", ["rank", "topk", "score"])
def test_a_spread_that_is_almost_zero_is_refused(verb: str) -> None:
    """All sums are equal but for one in the last bits: divided by their spread they leave float32."""
    W = np.full((1, 4), 1e-39, np.float32)
    W[0, 0] = 1.1e-39
    R = CSR.from_pairs(np.zeros(1, int), np.zeros(1, int), (1, 1))
    held = CSR.from_pairs(np.zeros(1, int), np.array([2]), (1, 4))
    nothing = CSR.from_pairs(np.zeros(0, int), np.zeros(0, int), (1, 4))
    scores = MixedScores(R, MixedItems(W), standardize=True)
    with pytest.raises(KernelInputError, match="scale must be finite"):
        {
            "rank": lambda: rank_mixed(scores, nothing, held),
            "topk": lambda: topk_mixed(scores, 2),
            "score": lambda: score_mixed(scores, held),
        }[verb]()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"item_vectors": np.ones((ITEMS, 5))}, "item_vectors must be None beside MixedItems"),
        ({"user_vectors": None}, "user_vectors must be given, for the MixedItems have vectors"),
        ({"user_vectors": np.ones((4, 5))}, f"user_vectors must have {USERS} rows"),
        ({"user_vectors": np.ones((USERS, 6))}, "user_vectors must have"),
        ({"scale": np.ones(USERS), "standardize": True}, "standardized scores take no scale"),
        ({"user_items": sp.csr_array((USERS, 4))}, f"item_weights must have 4 rows, .* got {ITEMS}"),
    ],
)
def test_refusals(change: dict[str, object], message: str) -> None:
    R, W, users, vectors = draw(5, tied=False)
    scores = MixedScores(R, MixedItems(W, vectors), None, users)
    with pytest.raises(KernelInputError, match=message):
        topk_mixed(replace(scores, **change), 3)  # type: ignore[arg-type]
    with pytest.raises(KernelInputError, match="item_vectors must have 1003 rows"):
        MixedItems(W, vectors[1:])

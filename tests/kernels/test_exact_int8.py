"""The int8 path of topk: every plan gives the reference's lists, on every case, whatever it would choose itself."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from mllmrec_kernels.exact import plan as plans
from mllmrec_kernels.exact import quantized, thresholds
from mllmrec_kernels.exact.int8_tile import supported
from mllmrec_kernels.exact.kept import KeptItems
from mllmrec_kernels.exact.plan import RotationPlan
from mllmrec_kernels.exact.problem import Heaps, TopKProblem, cosine_problem, dot_problem
from mllmrec_kernels.topk import candidate_buffer, cpu, topk_cosine, topk_dot
from mllmrec_kernels.topk.rounds import circle, shifts

from tests.kernels.cases import VECTOR_CASES, VectorCase, clustered, gaussian, random_pairs

pytestmark = pytest.mark.skipif(not supported(), reason="this processor has no AVX-512 VNNI: the float32 path runs")

each_case = pytest.mark.parametrize("case", VECTOR_CASES, ids=lambda case: case.name)


def forced(m_of_d: int | None, *, fine: bool = False):
    """make_plan with a prefix of d / m_of_d principal axes, or on the rows' own axes; and how often it was asked."""
    calls = []

    def make_plan(problem: TopKProblem, ends: np.ndarray | None = None, n_queries: int | None = None) -> RotationPlan:
        calls.append(problem)
        itself, d = problem.queries is problem.items, problem.items.shape[1]
        sample = plans._draw_sample(problem)
        if m_of_d is None:
            return plans._scaled(None, d, sample, itself=itself, two_bytes=fine)
        m = max(1, d // m_of_d)
        return plans._scaled(plans._axes(plans._principal_axes(sample.right), m), m, sample, itself=itself)

    return make_plan, calls


def same(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@each_case
@pytest.mark.parametrize(
    ("m_of_d", "fine"),
    [(None, False), (None, True), (1, False), (3, False)],
    ids=["own axes", "fine", "all axes", "a third"],
)
def test_every_plan_gives_the_reference(
    case: VectorCase, m_of_d: int | None, fine: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_plan, calls = forced(m_of_d, fine=fine)
    monkeypatch.setattr(cpu, "make_plan", make_plan)
    monkeypatch.setattr(cpu, "FEW_PAIRS", 0)
    x, q, k, cut = case.items(), case.queries(), case.k, {"threshold": case.threshold}
    excluded = random_pairs(case.rng(), (len(q), len(x)), 0.3)
    same(topk_cosine(x, k, **cut), topk_cosine(x, k, backend="reference", **cut))
    same(topk_cosine(x, k, queries=q, **cut), topk_cosine(x, k, queries=q, backend="reference", **cut))
    same(topk_dot(q, x, k, exclude=excluded), topk_dot(q, x, k, exclude=excluded, backend="reference"))
    assert len(calls) == sum(len(x) > 0 and rows > 0 for rows in (len(x), len(q), len(q)))


def test_blocks_that_are_quantized_again_and_again_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = clustered(np.random.default_rng(0), 1_500, 24)
    make_plan, _ = forced(2)
    monkeypatch.setattr(cpu, "make_plan", make_plan)
    whole = topk_cosine(x, 9)
    per_row = quantized.row_bytes(make_plan(cosine_problem(x, x, 9, None, exclude_self=True)), 24)
    tight = quantized.chunk_bytes(24) + 4 * len(x) + 2 * per_row * quantized.PANEL
    queried = topk_cosine(x, 9, queries=x)
    same(topk_cosine(x, 9, max_bytes=tight), whole)
    same(topk_cosine(x, 9, queries=x, max_bytes=tight + 4 * len(x)), queried)
    same(whole, topk_cosine(x, 9, backend="reference"))


def test_items_in_blocks_fill_the_candidate_buffers_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two panels of queries, three blocks of items, excluded items in each, a query without direction."""
    rng = np.random.default_rng(2)
    items, queries = gaussian(rng, 1_300, 64), np.concatenate([gaussian(rng, 500, 64), np.zeros((1, 64), np.float32)])
    excluded = random_pairs(rng, (len(queries), len(items)), 0.1)
    make_plan, _ = forced(None, fine=True)
    monkeypatch.setattr(cpu, "make_plan", make_plan)
    monkeypatch.setattr(cpu, "FEW_PAIRS", 0)
    calls: list[int] = []
    fill = candidate_buffer.fill

    def counted(right: quantized.QuantizedRows, *rest: Any) -> None:
        calls.append(len(right.ids))
        fill(right, *rest)

    monkeypatch.setattr(candidate_buffer, "fill", counted)
    plan = make_plan(dot_problem(queries, items, 9, excluded))
    tight = quantized.chunk_bytes(64) + candidate_buffer.working_bytes(9, plan, 64) + 4 * (len(items) + len(queries))
    tight += 2 * quantized.PANEL * quantized.row_bytes(plan, 64, layouts=1)
    wanted = topk_dot(queries, items, 9, exclude=excluded, backend="reference")
    same(topk_dot(queries, items, 9, exclude=excluded, max_bytes=tight), wanted)
    assert calls == [480, 480, 480]
    same(topk_dot(queries, items, 9, exclude=excluded), wanted)
    assert calls[3:] == [1_440]


@pytest.mark.parametrize("recipe", [gaussian, clustered])
def test_bounds_hold_for_every_pair(recipe) -> None:  # type: ignore[no-untyped-def]
    """The inequality of exact_int8.py itself: no pair's product exceeds what its tile sum and margin allow."""
    x = recipe(np.random.default_rng(3), 960, 40)
    problem = cosine_problem(x, x, 5, None, exclude_self=True)
    plan = forced(3)[0](problem)
    side = quantized.quantize(
        quantized.allocate(960, 40, plan), x, problem.item_scale, problem.item_weights,
        np.arange(960, dtype=np.int32), plan, plan.right_scale,
    )  # fmt: skip
    bounds = thresholds.bounds_between(side, side, plan)
    left = side.row_codes.reshape(960, plan.stride).astype(np.int64)
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    bound = (left @ left.T) * bounds.step + (bounds.max_norm * side.head_rounding + bounds.max_rounding + bounds.error)[
        :, None
    ]
    assert (unit @ unit.T <= bound).all()
    assert (bound - unit @ unit.T).mean() < 1  # and is no empty promise


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("k", [3, 40])
def test_more_ties_than_a_buffer_holds(k: int, fine: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole buffers of equal sums, of sums a rounding apart, and of sums that rise to the last column."""
    rng = np.random.default_rng(5)
    few = np.repeat(gaussian(rng, 8, 32), 200, axis=0)
    near = gaussian(rng, 1, 32) + 1e-5 * gaussian(rng, 500, 32)
    rising = np.linspace(0.1, 9, 600, dtype=np.float32)[:, None] * gaussian(rng, 1, 32)
    items = np.concatenate([few, near, rising])
    queries = np.concatenate([gaussian(rng, 500, 32), rising[-3:], near[:2], np.zeros((2, 32), np.float32)])
    excluded = random_pairs(rng, (len(queries), len(items)), 0.1)
    make_plan, _ = forced(None, fine=fine)
    monkeypatch.setattr(cpu, "make_plan", make_plan)
    same(
        topk_dot(queries, items, k, exclude=excluded),
        topk_dot(queries, items, k, exclude=excluded, backend="reference"),
    )
    cut = {"queries": queries, "threshold": 0.2}
    same(topk_cosine(items, k, **cut), topk_cosine(items, k, **cut, backend="reference"))


def test_every_pair_of_panels_meets_once() -> None:
    for players in (1, 2, 3, 6, 7):
        rounds = circle(players)
        met = [tuple(sorted(pair)) for pairs in rounds for pair in pairs.tolist()]
        assert sorted(met) == [(i, j) for i in range(players) for j in range(i, players)]
        assert all(len(set(pairs.ravel().tolist())) == pairs.size for pairs in rounds[1:])
    for left, right in ((1, 4), (4, 1), (3, 5), (5, 3)):
        rounds = shifts(left, right)
        met = sorted(tuple(pair) for pairs in rounds for pair in pairs.tolist())
        assert met == [(i, j) for i in range(left) for j in range(right)]
        assert all(len(set(pairs[:, 1].tolist())) == len(pairs) for pairs in rounds)


def test_nearly_equal_rows_fall_back_to_float32() -> None:
    x = gaussian(np.random.default_rng(0), 1, 64) + 1e-4 * gaussian(np.random.default_rng(1), 1_200, 64)
    problem = cosine_problem(x, x, 10, None, exclude_self=True)
    assert plans.make_plan(problem) is None
    heaps = Heaps(np.full((1200, 10), -1, np.int32), np.full((1200, 10), -np.inf, np.float32), np.zeros(1200, np.int64))
    assert not cpu._fill_by_int8(problem, heaps, os.cpu_count() or 1, KeptItems(), len(x))

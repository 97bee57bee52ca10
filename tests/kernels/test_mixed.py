"""Mixed scores: every backend equals the reference, which equals a full sort."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.mixed import MixedScores, cpu, rank_mixed, row_spread, score_mixed, topk_mixed
from mllmrec_kernels.topk import cpu as topk_cpu
from mllmrec_kernels.rank import cpu as rank_cpu
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

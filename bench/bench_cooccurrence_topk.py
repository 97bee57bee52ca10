"""cooccurrence_topk beside scipy, sparse_dot_topn and implicit."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mllmrec_bench.interactions import interactions
from mllmrec_bench.peers import Case, cooccurrence_topk
from mllmrec_bench.timing import usable_cores
from mllmrec_kernels import CSR

from tests.kernels.sparse_cases import INTERACTIONS, Interactions

SHARED = [case for case in INTERACTIONS if case.name in ("odd", "larger")]


def test_generated(compare: Callable[[Case], None], sized: Callable[[int], int]) -> None:
    matrix = interactions(sized(200_000), sized(50_000), sized(3_900_000))
    compare(cooccurrence_topk(matrix, 10, threads=usable_cores(), data="generated"))


def test_amazon_baby(compare: Callable[[Case], None], amazon_baby: CSR) -> None:
    compare(cooccurrence_topk(amazon_baby, 10, threads=usable_cores(), data="amazon-baby"))


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_shared_cases(compare: Callable[[Case], None], case: Interactions) -> None:
    compare(cooccurrence_topk(case.make(), case.k, threads=usable_cores(), data=f"case {case.name}"))

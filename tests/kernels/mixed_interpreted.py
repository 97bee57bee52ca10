"""The Triton backend of the mixed verbs in Triton's interpreter; test_triton.py runs this file."""

from __future__ import annotations

from dataclasses import replace

import pytest
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.mixed import gpu_rows
from mllmrec_kernels.rank import gpu as rank
from mllmrec_kernels.topk import gpu as topk
from mllmrec_kernels.topk import gpu_block

from tests.kernels import triton_checks
from tests.kernels.mixed_cases import MIXED_CASES, MixedCase
from tests.kernels.mixed_checks import check_kept_items, check_triton

SMALL = [
    replace(case, users=min(case.users, 5), items=min(case.items, 70), d=min(case.d, 40), k=min(case.k, 75))
    for case in MIXED_CASES
]
named = {case.name: case for case in SMALL}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_checks.poison(monkeypatch)
    for module, values in (
        (topk, {"CAPACITY": 16, "PER_NEIGHBOR": 1}),
        (gpu_block, {"ROWS": 32, "COLUMNS": 16, "SAMPLED": 32, "GROUP": 1, "STRIDE": 4, "SCAN": 37, "ENTRIES": 2**12,
                     "IN_REGISTERS": 0}),
        (gpu_score, {"ENCODED": 64, "SCORED": 2**11}),
        (rank, {**dict.fromkeys(("NARROW", "MIDDLE", "WIDE"), rank.Tile(32, 16, 4, 2)), "PROGRAMS": 3, "CAPACITY": 8,
                "SHARE": dict.fromkeys((False, True), 2**30), "LISTED": 128}),
        (gpu_rows, {"ENTRIES": 16, "LISTED": 16}),
    ):  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_equals_the_reference(case: MixedCase) -> None:
    check_triton(case, "cpu")


@pytest.mark.parametrize("max_bytes", [6_000, 2**15])
@pytest.mark.parametrize("name", ["odd", "sparse_alone", "valued"])
def test_memory_changes_nothing(name: str, max_bytes: int) -> None:
    check_triton(named[name], "cpu", max_bytes)


@pytest.mark.parametrize("name", ["odd", "dense", "sparse_alone", "valued"])
def test_items_that_are_kept(name: str) -> None:
    check_kept_items(named[name], "cpu")

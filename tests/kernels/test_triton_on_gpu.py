"""The whole table of cases on a CUDA device; skipped where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels import propagate, sample_negatives, topk_cosine
from mllmrec_kernels.base import backend

from tests.kernels import triton_checks
from tests.kernels.cases import VECTOR_CASES, VectorCase, gaussian
from tests.kernels.mixed_cases import MIXED_CASES, MixedCase
from tests.kernels.mixed_checks import check_kept_items, check_triton
from tests.kernels.sparse_cases import GRAPHS, INTERACTIONS, Graph, Interactions, ids, random_graph

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not (torch.cuda.is_available() and backend.available()["triton"]), reason="no CUDA device"),
]
each_case = pytest.mark.parametrize("case", VECTOR_CASES, ids=lambda case: case.name)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_checks.poison(monkeypatch)


@each_case
@pytest.mark.parametrize("include_self", [False, True])
def test_cosine(case: VectorCase, include_self: bool) -> None:
    triton_checks.check_cosine(case, "cuda", include_self=include_self)


@each_case
def test_cosine_of_queries(case: VectorCase) -> None:
    triton_checks.check_queries(case, "cuda")


@each_case
@pytest.mark.parametrize("share", [0.0, 0.3])
def test_dot(case: VectorCase, share: float) -> None:
    triton_checks.check_dot(case, "cuda", share=share)


@each_case
def test_rank(case: VectorCase) -> None:
    triton_checks.check_rank(case, "cuda")


@each_case
def test_short_lists_change_nothing(case: VectorCase, monkeypatch: pytest.MonkeyPatch) -> None:
    from mllmrec_kernels.rank import gpu as rank
    from mllmrec_kernels.topk import gpu, gpu_block, gpu_self

    for name, value in {"MANY": 0, "CAPACITY_MANY": 1, "LEAST_CAPACITY_MANY": 64}.items():
        monkeypatch.setattr(gpu_self, name, value)
    triton_checks.check_cosine(case, "cuda")
    monkeypatch.setattr(gpu_self, "WIDEST", 0)
    for name, value in {"CAPACITY": 16, "PER_NEIGHBOR": 1}.items():
        monkeypatch.setattr(gpu, name, value)
    for name, value in {"STRIDE": 4, "SCAN": 100, "REFRESHED": 0}.items():
        monkeypatch.setattr(gpu_block, name, value)
    monkeypatch.setattr(rank, "CAPACITY", 8)
    triton_checks.check_cosine(case, "cuda")
    triton_checks.check_dot(case, "cuda", share=0.3)
    triton_checks.check_rank(case, "cuda")


@pytest.mark.parametrize("max_bytes", [20_000, 2**20, None])
def test_memory_changes_nothing(max_bytes: int | None) -> None:
    case = next(case for case in VECTOR_CASES if case.name == "several_tiles")
    triton_checks.check_cosine(case, "cuda", max_bytes=max_bytes)
    triton_checks.check_rank(case, "cuda", max_bytes=max_bytes)


def test_twenty_thousand_rows_equal_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past what the reference can hold: the Numba backend, itself held to the reference, decides."""
    x = VectorCase("large", 20_011, 384, 10, recipe="clustered").items()
    from mllmrec_kernels.topk import gpu_block, gpu_self

    monkeypatch.setattr(gpu_block, "REFRESHED", 10_000)
    for threshold in (None, 0.7):
        wanted = topk_cosine(x, 10, threshold=threshold, backend="numba")
        for many, widest in ((2**16, 768), (0, 768), (0, 0)):  # int8 in one step, in several, and float16
            monkeypatch.setattr(gpu_self, "MANY", many)
            monkeypatch.setattr(gpu_self, "WIDEST", widest)
            triton_checks.assert_same(topk_cosine(torch.from_numpy(x).cuda(), 10, threshold=threshold), wanted)


@pytest.mark.parametrize("case", GRAPHS, ids=ids(GRAPHS))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("layers", "combine"), [(0, "sum"), (1, "last"), (2, "sum"), (3, "mean")])
def test_propagate(case: Graph, dtype: type, layers: int, combine: str) -> None:
    triton_checks.check_propagate(case, "cuda", dtype, layers, combine)


def test_propagate_is_differentiable_and_compiles() -> None:
    graph = random_graph(11, 3)
    x = torch.randn(11, 4, dtype=torch.float64, device="cuda", requires_grad=True)

    def run(x: torch.Tensor) -> torch.Tensor:
        return propagate(graph, x, layers=2, combine="mean")

    assert torch.autograd.gradcheck(run, (x,))
    assert torch.autograd.gradgradcheck(run, (x,))
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(x), run(x))


@pytest.mark.parametrize("case", INTERACTIONS, ids=ids(INTERACTIONS))
@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_sample(case: Interactions, dtype: type) -> None:
    triton_checks.check_sample(case, "cuda", 5_000, dtype)


@pytest.mark.parametrize("case", MIXED_CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("max_bytes", [2**20, None])
def test_mixed(case: MixedCase, max_bytes: int | None) -> None:
    check_triton(case, "cuda", max_bytes)


@pytest.mark.parametrize("case", MIXED_CASES, ids=lambda case: case.name)
def test_mixed_items_that_are_kept(case: MixedCase) -> None:
    check_kept_items(case, "cuda")


def test_auto_goes_where_the_data_lives() -> None:
    x = torch.from_numpy(gaussian(np.random.default_rng(3), 300, 12)).cuda()
    ids, scores = topk_cosine(x, 4)
    assert ids.is_cuda
    assert scores.is_cuda
    users = torch.zeros(5, dtype=torch.int64, device="cuda")
    generator = torch.Generator("cuda").manual_seed(3)
    assert sample_negatives(INTERACTIONS[-1].make(), users, generator=generator).is_cuda

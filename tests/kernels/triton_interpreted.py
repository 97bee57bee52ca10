"""The Triton kernels in Triton's interpreter, on the shared cases made small; test_triton.py runs this file.

Blocks, lists and the sample are small as well, so that a few dozen rows pass every path: several blocks, lists that
overflow, rows that are scanned, bands of a self graph.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from mllmrec_kernels import propagate, rank_heldout, sample_negatives, topk_cosine
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.exact import gpu_int8, gpu_score
from mllmrec_kernels.rank import gpu as rank
from mllmrec_kernels.rank import gpu_terms
from mllmrec_kernels.topk import gpu, gpu_block, gpu_self

from tests.kernels import triton_checks
from tests.kernels.cases import VECTOR_CASES, VectorCase, gaussian, split_pairs
from tests.kernels.sparse_cases import GRAPHS, INTERACTIONS, Graph, Interactions, ids, random_graph

# Of the recipes with a k beyond n two will do: the list is the whole row, and every row is alike.
SMALL = [
    replace(case, n=min(case.n, 40), q=min(case.q, 4), d=min(case.d, 70))
    for case in VECTOR_CASES
    if not case.name.endswith("_320") or case.name in ("duplicates_320", "zeros_among_320")
]
each_case = pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
named = {case.name: case for case in SMALL}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    triton_checks.poison(monkeypatch)
    for module, values in (
        (gpu, {"CAPACITY": 16, "PER_NEIGHBOR": 1}),
        (gpu_block, {"ROWS": 32, "COLUMNS": 16, "SAMPLED": 32, "GROUP": 1, "STRIDE": 4, "SCAN": 37, "ENTRIES": 2**12,
                     "IN_REGISTERS": 0, "REFRESHED": 0}),
        (gpu_self, {"ROWS": 32, "COLUMNS": 16, "SAMPLED": 32, "UNIT": 32, "MANY": 48, "CAPACITY": 1,
                    "CAPACITY_MANY": 1, "LEAST_CAPACITY": 32, "LEAST_CAPACITY_MANY": 64, "LENGTH": 32,
                    "LENGTH_MANY": 32, "LIMIT": 2**12}),
        (gpu_int8, {"ENCODED": 32}),
        (gpu_score, {"ENCODED": 64, "SCORED": 2**11}),
        (rank, {**dict.fromkeys(("NARROW", "MIDDLE", "WIDE"), rank.Tile(32, 16, 4, 2)), "PROGRAMS": 3, "CAPACITY": 8,
                "SHARE": dict.fromkeys((False, True), 2**30), "LISTED": 128}),
    ):  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)


@pytest.fixture
def by_float16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_self, "WIDEST", 0)


@each_case
def test_cosine(case: VectorCase) -> None:
    triton_checks.check_cosine(case, "cpu")


@each_case
@pytest.mark.usefixtures("by_float16")
def test_cosine_by_float16(case: VectorCase) -> None:
    triton_checks.check_cosine(case, "cpu")


@pytest.mark.parametrize("name", ["one_row", "odd", "zeros_among_320", "duplicates_320"])
def test_a_row_may_list_itself(name: str) -> None:
    triton_checks.check_cosine(named[name], "cpu", include_self=True)


@pytest.mark.parametrize(
    ("name", "value"), [("LIMIT", 5), ("LEAST_CAPACITY", 8), ("LEAST_CAPACITY_MANY", 8), ("CROWDED", 0.0)]
)
@pytest.mark.parametrize("n", [40, 50])
def test_what_int8_leaves_is_solved(monkeypatch: pytest.MonkeyPatch, name: str, value: float, n: int) -> None:
    """A full queue, full lists of some rows, and lists that will be full."""
    monkeypatch.setattr(gpu_self, name, value)
    monkeypatch.setattr(gpu, "FEW_LEFT", 1)
    triton_checks.check_cosine(replace(named["clusters"], n=n, k=3), "cpu")


@pytest.mark.parametrize("d", [1, 64, 129, 300])
def test_losses_bound_the_int8_product(d: int) -> None:
    """Even rows, spikes that the largest integer cuts, equal rows, and a row without a score."""
    rng = np.random.default_rng(d)
    x = gaussian(rng, 50, d)
    x[:5] *= rng.integers(0, 2, (5, d)) * 1e3 + 1e-3
    x[5] = x[6]
    x[7:10] = np.eye(3, d)
    x[10] = 0
    tensor = torch.from_numpy(x)
    scale = gpu_score.inverse(gpu_score.norms(tensor))
    rows = gpu_int8.encode(tensor, scale, 32)
    unit = tensor.double() * scale[:, None]
    q, loss = rows.q[:50].double(), rows.loss[:50].double()
    assert int(rows.loss[10]) == -gpu_int8.DEAD.value
    assert (rows.loss[50:] == -gpu_int8.DEAD.value).all()
    assert not rows.q[50:].any()
    live = loss > 0
    assert int(rows.largest) == int(loss.max())
    wrong = (q @ q.T - unit @ unit.T / rows.step**2).abs()[live][:, live]
    assert (wrong <= loss[live][:, None] + loss[live][None, :]).all()


@pytest.mark.parametrize("name", ["odd", "zeros_among_7", "clusters_cut", "wide_norms_7", "no_queries"])
def test_cosine_of_queries(name: str) -> None:
    triton_checks.check_queries(named[name], "cpu")


@each_case
def test_dot(case: VectorCase) -> None:
    triton_checks.check_dot(case, "cpu", share=0.3)


@pytest.mark.parametrize("share", [0.0, 0.95])
def test_dot_with_few_and_many_excluded(share: float) -> None:
    triton_checks.check_dot(named["clusters"], "cpu", share=share)


@pytest.mark.parametrize("max_bytes", [6_000, 2**15, 2**26])
def test_memory_changes_nothing(max_bytes: int) -> None:
    case = replace(named["clusters"], k=3)
    triton_checks.check_cosine(case, "cpu", max_bytes=max_bytes, include_self=True)
    triton_checks.check_rank(case, "cpu", max_bytes=max_bytes)


@pytest.mark.parametrize("failures", [1, 3])
@pytest.mark.usefixtures("by_float16")
def test_out_of_memory_halves_the_block(monkeypatch: pytest.MonkeyPatch, failures: int) -> None:
    """Row 13 of the list of faults: a smaller tile, the same graph, bit for bit."""
    plans, run = [], gpu._run

    def fails_first(sides: object, k: int, plan: gpu.Plan, *out: torch.Tensor) -> None:
        plans.append(plan.rows)
        if len(plans) <= failures:
            out[0].fill_(7)  # what a run leaves behind when it fails half-way
            raise torch.OutOfMemoryError("CUDA out of memory")
        run(sides, k, plan, *out)

    monkeypatch.setattr(gpu, "_run", fails_first)
    triton_checks.check_cosine(replace(named["duplicates_7"], k=3), "cpu")
    assert plans == [40 >> turn for turn in range(failures + 1)]


def test_rank_halves_its_block_too(monkeypatch: pytest.MonkeyPatch) -> None:
    seen, counts = [], rank._Work.counts

    def fails_first(work: rank._Work) -> torch.Tensor:
        seen.append(work.rows)
        if len(seen) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return counts(work)

    monkeypatch.setattr(rank._Work, "counts", fails_first)
    triton_checks.check_rank(named["odd"], "cpu")
    assert seen == [seen[0], seen[0] // 2]


def test_one_program_sorts_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_block, "IN_REGISTERS", 64)
    keys = torch.randint(-(2**62), 2**62, (3, 80), generator=torch.manual_seed(0))
    keys[1, 5:] = gpu_block.EMPTY
    wanted = keys[:, :64].sort(dim=1, descending=True).values
    assert torch.equal(gpu_block._sorted(keys.clone(), 64), wanted)


def test_scores_of_the_device_are_scores() -> None:
    """Every length of the tail, bit for bit."""
    from mllmrec_kernels.exact.score import dot_reference, norms

    for d in (1, 7, 8, 9, 35):
        x = gaussian(np.random.default_rng(d), 6, d) * np.float32(1e3)
        left, right = np.divmod(np.arange(36, dtype=np.int32), np.int32(6))
        tensor = torch.from_numpy(x)
        got = gpu_score.dots(tensor, tensor, torch.from_numpy(left), torch.from_numpy(right))
        np.testing.assert_array_equal(got.numpy().reshape(6, 6), dot_reference(x, x))
        np.testing.assert_array_equal(gpu_score.norms(tensor).numpy(), norms(x))


@each_case
def test_rank(case: VectorCase) -> None:
    triton_checks.check_rank(case, "cpu")


@pytest.mark.parametrize("d", [5, 64, 100, 200])
def test_terms_are_within_their_bound(d: int) -> None:
    """Of two terms up to 128 columns, of one beyond; the product in float64, so without what tensor cores cut."""
    rng = np.random.default_rng(d)
    x, y = torch.from_numpy(gaussian(rng, 20, d)), torch.from_numpy(gaussian(rng, 50, d))
    ids, scales = torch.arange(20, dtype=torch.int32), [1 / side.double().norm(dim=1) for side in (x, y)]
    items = gpu_terms.Items(y, scales[1].min().reshape(1), 16, 16)
    users = gpu_terms.encode(x, ids, scales[0])
    parts = [items.at(part) for part in range(len(items.starts))]
    first, second = (torch.cat([getattr(part, name) for part in parts]).double() for name in ("first", "second"))
    assert first[50:].isnan().all()
    wanted = torch.zeros(20, len(first), dtype=torch.float64)
    wanted[:, :50] = (x.double() * scales[0][:, None]) @ (y.double() * scales[1].min()).T
    product = users.first.double() @ first.T
    if gpu_terms.has_two(d):
        product += users.first.double() @ second.T + users.second.double() @ first.T
    error = items.error(users, torch.ones(20, dtype=torch.float64)) - (d + 16) * 2.0**-21
    off = ((product - wanted).abs() / error[:, None])[:, :50]
    assert off.max() <= 1
    assert error.max() < (1e-6 if gpu_terms.has_two(d) else 1e-3)


def test_no_distance_proves_too_much() -> None:
    """At the ends of the band, one float32 number after the other, for scores far beyond a product as well."""
    error = torch.tensor([4e-5, 1e-3, 0.2], dtype=torch.float64).repeat(400)
    scores = torch.from_numpy(np.random.default_rng(0).normal(size=1200) * np.repeat([0.1, 1.0, 1e3], 400)).float()
    middle = scores.double()
    slope, offset, decided = rank._distance(scores, torch.ones_like(middle), error)
    assert decided.all()
    for side in (-1, 1):
        at = (middle + side * error).float()
        for _ in range(4):
            gap = (slope.double() * at.double() + offset.double()).float()
            assert not ((gap > 1) & (at.double() <= middle + error)).any()
            assert not ((gap < -1) & (at.double() >= middle - error)).any()
            at = torch.nextafter(at, at.new_tensor(-torch.inf * side))
    nothing = rank._distance(torch.ones(1), torch.zeros(1).double(), torch.full((1,), torch.inf).double())
    assert not nothing[2].any()


@pytest.mark.parametrize("case", GRAPHS[:8], ids=ids(GRAPHS[:8]))
@pytest.mark.parametrize(("dtype", "layers", "combine"), [(np.float32, 2, "sum"), (np.float64, 3, "mean")])
def test_propagate(case: Graph, dtype: type, layers: int, combine: str) -> None:
    triton_checks.check_propagate(case, "cpu", dtype, layers, combine)


@pytest.mark.parametrize(("layers", "combine"), [(0, "mean"), (1, "sum"), (2, "last")])
def test_propagate_combines(layers: int, combine: str) -> None:
    triton_checks.check_propagate(Graph("wide", lambda: random_graph(9, 11), 131), "cpu", np.float32, layers, combine)


def test_propagate_goes_back_through_the_transpose() -> None:
    graph = random_graph(7, 3)
    x = torch.randn(7, 2, dtype=torch.float64, generator=torch.manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: propagate(graph, x, layers=2, combine="mean", backend="triton"), (x,))


@pytest.mark.parametrize("case", INTERACTIONS, ids=ids(INTERACTIONS))
def test_sample(case: Interactions) -> None:
    triton_checks.check_sample(case, "cpu", 300)
    triton_checks.check_sample(case, "cpu", 3, np.int32)


def test_numpy_in_numpy_out() -> None:
    x = gaussian(np.random.default_rng(3), 20, 12)
    results = [
        *topk_cosine(x, 2, backend="triton"),
        rank_heldout(x, x, *split_pairs(np.random.default_rng(4), (20, 20)), backend="triton"),
        propagate(random_graph(20, 2), x, layers=1, backend="triton"),
        sample_negatives(INTERACTIONS[4].make(), np.zeros(3, np.int64), generator=torch.Generator(), backend="triton"),
    ]
    assert all(isinstance(result, np.ndarray) for result in results)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: topk_cosine(x, 1, queries=x[:, :2], backend="triton"), r"queries must have shape \(rows, 4\); got"),
        (lambda x: topk_cosine(x.int(), 1, backend="triton"), "features must be floating; got int32"),
        (lambda x: topk_cosine(x / 0, 1, backend="triton"), r"9 rows hold NaN or infinity: 0, 1, 2, \.\.\."),
        (lambda x: topk_cosine(x, 1, max_bytes=8, backend="triton"), "max_bytes=8 holds no list at d=4, k=1; give at"),
        (lambda x: topk_cosine(x, 1, max_bytes=0, backend="triton"), "max_bytes must be an integer of at least 1"),
        (lambda x: sample_negatives(INTERACTIONS[4].make(), torch.tensor([0, 5]), generator=torch.Generator(),
                                    backend="triton"), r"users must lie in \[0, 1\); got \[0, 5\]"),
    ],
)  # fmt: skip
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        call(torch.ones(9, 4))  # type: ignore[operator]

"""topk_cosine and topk_dot: every backend equals the reference, which equals brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import BackendUnavailableError, KernelInputError
from mllmrec_kernels.exact.score import LANES, dot, dot_reference
from mllmrec_kernels.topk import topk_cosine, topk_dot
from numba import get_num_threads, set_num_threads

from tests.kernels.cases import VECTOR_CASES, VectorCase, gaussian, random_pairs

CPU = ("numba",)
# A float64 sum of d products is off by d * 2^-53 relative to |x||y|, then the score is rounded to float32.
FLOAT32_STEP = 2.0**-23

each_case = pytest.mark.parametrize("case", VECTOR_CASES, ids=lambda case: case.name)
each_backend = pytest.mark.parametrize("backend", CPU)


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a kernel allocates and does not write shows up as NaN, or as an absurd integer."""
    empty = np.empty

    def poisoned(*args: object, **kwargs: object) -> np.ndarray:
        out = empty(*args, **kwargs)
        out.fill(np.nan if out.dtype.kind == "f" else np.iinfo(out.dtype).max // 2)
        return out

    monkeypatch.setattr(np, "empty", poisoned)


def assert_same(got: tuple[np.ndarray, np.ndarray], wanted: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])
    assert got[0].dtype == np.int32
    assert got[1].dtype == np.float32


@each_case
@each_backend
def test_cosine_equals_reference(case: VectorCase, backend: str) -> None:
    x, k, threshold = case.items(), case.k, case.threshold
    for include_self in (False, True):
        asked = {"threshold": threshold, "include_self": include_self}
        assert_same(topk_cosine(x, k, backend=backend, **asked), topk_cosine(x, k, backend="reference", **asked))


@each_case
@each_backend
def test_cosine_of_queries_equals_reference(case: VectorCase, backend: str) -> None:
    asked = {"queries": case.queries(), "threshold": case.threshold}
    x, k = case.items(), case.k
    assert_same(topk_cosine(x, k, backend=backend, **asked), topk_cosine(x, k, backend="reference", **asked))


@each_case
@each_backend
def test_dot_equals_reference(case: VectorCase, backend: str) -> None:
    q, x, k = case.queries(), case.items(), case.k
    for exclude in (None, random_pairs(case.rng(), (len(q), len(x)), 0.3)):
        got = topk_dot(q, x, k, exclude=exclude, backend=backend)
        assert_same(got, topk_dot(q, x, k, exclude=exclude, backend="reference"))


@each_case
def test_reference_equals_brute_force(case: VectorCase) -> None:
    """The reference against NumPy in float64, entry by entry, where a tie could not explain a difference."""
    q, x, k = case.queries(), case.items(), case.k
    ids, scores = topk_dot(q, x, k, backend="reference")
    full = q.astype(np.float64) @ x.astype(np.float64).T
    sizes = np.linalg.norm(q.astype(np.float64), axis=1) * np.linalg.norm(x.astype(np.float64), axis=1).max(initial=0.0)
    assert (ids >= 0).sum() == len(q) * min(k, len(x))
    for row, row_ids, row_scores, size in zip(full, ids, scores, sizes, strict=True):
        kept = row_ids[row_ids >= 0]
        tolerance = FLOAT32_STEP * size + 2.0**-149
        np.testing.assert_allclose(row_scores[: len(kept)], row[kept], rtol=0, atol=tolerance)
        np.testing.assert_allclose(row[kept], np.sort(row)[::-1][: len(kept)], rtol=0, atol=2 * tolerance)
        assert len(set(kept.tolist())) == len(kept)


@pytest.mark.parametrize("d", [1, LANES - 1, LANES, LANES + 1, 4 * LANES + 3, 384])
def test_dot_is_one_number_everywhere(d: int) -> None:
    rng = np.random.default_rng(d)
    x, y = gaussian(rng, 40, d) * 1e3, gaussian(rng, 30, d)
    compiled = np.array([[dot(a, b) for b in y] for a in x])
    np.testing.assert_array_equal(compiled, dot_reference(x, y))


@each_backend
def test_equal_rows_come_in_id_order(backend: str) -> None:
    """Rows equal to row 0 sit at the edges of BLAS tiles, where its kernels round differently."""
    x = gaussian(np.random.default_rng(1), 517, 67)
    equal = np.array([0, 1, 15, 16, 17, 63, 64, 127, 255, 256, 500, 515, 516])
    x[equal] = x[0]
    ids, scores = topk_cosine(x, len(equal), backend=backend, include_self=True)
    np.testing.assert_array_equal(ids[equal], np.tile(equal, (len(equal), 1)))
    np.testing.assert_array_equal(scores[equal], 1.0)
    ids, _ = topk_dot(x[:1], x, len(equal), backend=backend)
    np.testing.assert_array_equal(ids[0], equal)


@each_backend
def test_a_duplicate_of_oneself_stays(backend: str) -> None:
    x = gaussian(np.random.default_rng(2), 6, 8)
    x[5] = x[2]
    ids, scores = topk_cosine(x, 1, backend=backend)
    assert (ids[5, 0], ids[2, 0]) == (2, 5)
    assert scores[5, 0] == scores[2, 0] == 1.0


@each_backend
@pytest.mark.parametrize("max_bytes", [20_000, 2**20, 2**26])
def test_memory_and_threads_change_nothing(backend: str, max_bytes: int) -> None:
    case = next(case for case in VECTOR_CASES if case.name == "several_tiles")
    x = case.items()
    wanted = topk_cosine(x, 10, backend="reference")
    threads = get_num_threads()
    try:
        for n in (1, threads):
            set_num_threads(n)
            assert_same(topk_cosine(x, 10, backend=backend, max_bytes=max_bytes), wanted)
    finally:
        set_num_threads(threads)


@each_backend
def test_tensors_in_tensors_out(backend: str) -> None:
    x = gaussian(np.random.default_rng(3), 30, 12)
    ids, scores = topk_cosine(torch.from_numpy(x).requires_grad_(), 4, backend=backend)
    assert isinstance(ids, torch.Tensor)
    assert (ids.dtype, scores.dtype) == (torch.int32, torch.float32)
    assert_same((ids.numpy(), scores.numpy()), topk_cosine(x, 4, backend="reference"))
    ids, _ = topk_dot(torch.from_numpy(x), torch.from_numpy(x), 4, backend=backend)
    assert isinstance(ids, torch.Tensor)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_floats_are_converted(dtype: type) -> None:
    x = gaussian(np.random.default_rng(4), 30, 12).astype(dtype)
    assert_same(topk_cosine(x[::-1], 4), topk_cosine(x[::-1].astype(np.float32), 4))


def test_input_is_left_alone() -> None:
    x = gaussian(np.random.default_rng(5), 30, 12)
    before = x.copy()
    topk_cosine(x, 4)
    topk_dot(x, x, 4)
    np.testing.assert_array_equal(x, before)


def _with(x: np.ndarray, rows: list[int], value: float) -> np.ndarray:
    x[rows, 1] = value
    return x


ONES = np.ones((9, 4), dtype=np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topk_cosine(ONES[0], 1), r"features must have shape \(rows, d\); got \(4,\)"),
        (lambda: topk_cosine(ONES[:, :0], 1), r"features must have shape"),
        (lambda: topk_cosine(ONES, 1, queries=ONES[:, :2]), r"queries must have shape \(rows, 4\); got"),
        (lambda: topk_cosine(ONES.astype(int), 1), "features must be floating; got int64"),
        (lambda: topk_cosine(ONES, 0), "k must be an integer of at least 1; got 0"),
        (lambda: topk_cosine(ONES, 2.0), "k must be an integer"),  # type: ignore[arg-type]
        (lambda: topk_cosine(ONES, 1, threshold=float("nan")), "threshold must be a number"),
        (lambda: topk_cosine(ONES, 1, backend="faiss"), "backend 'faiss' is not one of"),
        (lambda: topk_cosine(ONES, 1, max_bytes=8), "max_bytes=8 holds no tile at d=4; give at least"),
        (
            lambda: topk_cosine(_with(ONES.copy(), [2, 3, 5, 7], np.nan), 1),
            r"features must be finite; 4 rows hold NaN or infinity: 2, 3, 5, \.\.\.",
        ),
        (
            lambda: topk_dot(_with(ONES.copy(), [8], np.inf), ONES, 1),
            "queries must be finite; 1 rows hold NaN or infinity: 8$",
        ),
        (lambda: topk_dot(ONES, _with(ONES.astype(float), [8], 1e39), 1), "items must be finite"),
        (lambda: topk_dot(ONES * 1e30, ONES * 1e30, 1), "inner products reach 4e.60, beyond float32"),
        (
            lambda: topk_dot(ONES, ONES, 1, exclude=random_pairs(np.random.default_rng(0), (9, 8), 0.5)),
            r"exclude must have shape \(9, 9\); got \(9, 8\)",
        ),
        (lambda: topk_dot(ONES, ONES, 1, exclude=ONES),
         r"exclude must be a scipy sparse matrix, .* or a mllmrec_kernels CSR; got a dense ndarray of shape \(9, 4\)"),
    ],
)  # fmt: skip
def test_refusals(call: object, message: str) -> None:
    with pytest.raises(KernelInputError, match=message):
        call()  # type: ignore[operator]


def test_a_backend_that_is_not_there_is_named() -> None:
    with pytest.raises(BackendUnavailableError, match="triton"):
        topk_cosine(ONES, 1, backend="triton")


def test_excluding_everything_leaves_padding() -> None:
    everything = CSR.from_pairs(*np.nonzero(np.ones((9, 9))), (9, 9))
    ids, scores = topk_dot(ONES, ONES, 2, exclude=everything)
    assert (ids == -1).all()
    assert np.isneginf(scores).all()

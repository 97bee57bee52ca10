"""als_factors against its float64 reference, and against what a least squares solution must be."""

from __future__ import annotations

from functools import partial

import mllmrec_kernels as kernels
import numba
import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR, KernelError, KernelInputError, als_factors
from mllmrec_kernels.als import gpu

from tests.kernels import triton_checks

# (rows, columns, pairs, rank): one of each, none at all, odd ranks, rows of four and of many entries
CASES = [(1, 1, 1, 1), (5, 7, 0, 3), (40, 9, 160, 4), (60, 23, 300, 17), (30, 200, 2500, 64)]


def case(n_rows: int, n_columns: int, pairs: int, rank: int) -> tuple[CSR, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(rank)
    users, items = generator.integers(n_rows, size=pairs), generator.integers(n_columns, size=pairs)
    R = CSR.from_pairs(users, items, (n_rows, n_columns))
    Q = (generator.standard_normal((n_columns, rank)) / rank**0.5).astype(np.float32)
    return R, Q, 0.05 * (1 + np.diff(R.indptr))


each_backend = pytest.mark.parametrize("backend", ["numba", "torch"])


@each_backend
@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("unobserved", [0.0, 0.1])
def test_it_is_the_reference(sizes: tuple[int, ...], unobserved: float, backend: str) -> None:
    R, Q, regularization = case(*sizes)
    got, wanted = (
        als_factors(R, Q, unobserved_weight=unobserved, regularization=regularization, backend=name)
        for name in (backend, "reference")
    )
    assert got.dtype == np.float32
    # Condition at most 1 + trace / regularization, some 1e2 here, times float32's 6e-8 and a few terms.
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert not got[np.diff(R.indptr) == 0].any()


@each_backend
@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("unobserved", [0.0, 0.1])
def test_with_a_prior_it_is_the_reference(sizes: tuple[int, ...], unobserved: float, backend: str) -> None:
    R, Q, regularization = case(*sizes)
    prior = np.random.default_rng(9).standard_normal((R.n_rows, Q.shape[1])).astype(np.float32)
    kept = prior.copy()
    got, wanted = (
        als_factors(R, Q, unobserved_weight=unobserved, regularization=regularization, prior=prior, backend=name)
        for name in (backend, "reference")
    )
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)
    assert prior.tobytes() == kept.tobytes()
    if not unobserved:  # who has no entries is where the prior says
        nobody = np.diff(R.indptr) == 0
        np.testing.assert_allclose(got[nobody], prior[nobody], rtol=1e-6)


@pytest.mark.parametrize("spread", [0.0, 0.5])
def test_the_factors_are_a_minimum(spread: float) -> None:
    R, Q, regularization = case(60, 23, 300, 17)
    prior = (spread * np.random.default_rng(1).standard_normal((60, 17))).astype(np.float32)
    a, P = 0.1, als_factors(R, Q, unobserved_weight=0.1, regularization=regularization, prior=prior)
    dense = R.to_scipy().toarray().astype(np.float64)

    def loss(u: int, p: np.ndarray) -> float:
        scores = Q.astype(np.float64) @ p
        away = ((p - prior[u]) ** 2).sum()
        return float((dense[u] * (1 - scores) ** 2).sum() + a * (scores**2).sum() + regularization[u] * away)

    generator = np.random.default_rng(0)
    for u in range(60):
        nudges = 1e-2 * generator.standard_normal((10, 17))
        best = loss(u, P[u].astype(np.float64))
        assert all(best < loss(u, P[u] + nudge) for nudge in nudges)


def test_the_number_of_threads_changes_no_bit() -> None:
    R, Q, regularization = case(60, 23, 300, 17)
    many = als_factors(R, Q, unobserved_weight=0.1, regularization=regularization).tobytes()
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert als_factors(R, Q, unobserved_weight=0.1, regularization=regularization).tobytes() == many
    finally:
        numba.set_num_threads(before)


@each_backend
def test_what_it_refuses(backend: str) -> None:
    R, Q, regularization = case(60, 23, 300, 17)
    als_factors = partial(kernels.als_factors, backend=backend)
    with pytest.raises(KernelInputError, match=r"factors must be float32 of shape \(23, r\)"):
        als_factors(R, Q[:-1], unobserved_weight=0.1, regularization=regularization)
    with pytest.raises(KernelInputError, match="factors must be finite"):
        als_factors(R, Q * np.float32(np.nan), unobserved_weight=0.1, regularization=regularization)
    with pytest.raises(KernelInputError, match="unobserved_weight must be at least 0; got -1"):
        als_factors(R, Q, unobserved_weight=-1, regularization=regularization)
    with pytest.raises(KernelInputError, match="regularization must be above 0; the lowest is 0.0"):
        als_factors(R, Q, unobserved_weight=0.1, regularization=0 * regularization)
    with pytest.raises(KernelInputError, match=r"prior must be float32 of shape \(60, 17\); got float32 \(59, 17\)"):
        als_factors(R, Q, unobserved_weight=0.1, regularization=regularization, prior=np.zeros((59, 17), np.float32))
    with pytest.raises(KernelInputError, match="prior must be finite"):
        als_factors(
            R, Q, unobserved_weight=0.1, regularization=regularization, prior=np.full((60, 17), np.inf, np.float32)
        )


@each_backend
def test_a_system_that_float32_cannot_solve_is_named(backend: str) -> None:
    R = CSR.from_pairs(np.array([1, 1]), np.array([0, 1]), (2, 2))
    alike = np.full((2, 4), 2, np.float32)  # 16 * 2^100 + 1 is 16 * 2^100: the second pivot is exactly 0
    with pytest.raises(KernelError, match=r"row 1 cannot be solved in float32: its regularization 7.*e-31"):
        als_factors(R, alike, unobserved_weight=0, regularization=np.full(2, 2.0**-100), backend=backend)


@pytest.mark.parametrize("n", [3, 16, 17, 18, 90, 2000])
@each_backend
def test_rows_of_fewer_and_of_more_entries_than_factors_are_the_reference(n: int, backend: str) -> None:
    generator = np.random.default_rng(n)
    Q = (generator.standard_normal((2 * n, 17)) / 4).astype(np.float32)
    R = CSR.from_pairs(np.zeros(n, np.int64), np.arange(n) * 2, (1, 2 * n))
    prior = generator.standard_normal((1, 17)).astype(np.float32)
    options = {"unobserved_weight": 0.01, "regularization": np.full(1, 0.1 * n), "prior": prior}
    got, wanted = (als_factors(R, Q, backend=name, **options) for name in (backend, "reference"))
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


def test_a_gram_matrix_that_the_caller_has_is_taken_and_checked() -> None:
    R = CSR.from_pairs(np.array([0, 0, 1]), np.array([0, 2, 1]), (2, 3))
    Q = np.arange(6, dtype=np.float32).reshape(3, 2) / 4
    options = {"unobserved_weight": 0.5, "regularization": np.ones(2)}
    want = als_factors(R, Q, **options)
    assert np.array_equal(als_factors(R, Q, gram=Q.T @ Q, **options), want)
    assert not np.array_equal(als_factors(R, Q, gram=2 * Q.T @ Q, **options), want)
    with pytest.raises(KernelInputError, match=r"gram must be finite float32 of shape \(2, 2\); got float32 \(3, 3\)"):
        als_factors(R, Q, gram=np.eye(3, dtype=np.float32), **options)


@pytest.mark.parametrize("budget", [1, 3_000, 100_000])
def test_batches_of_torch_are_the_reference(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUDGET", budget)
    monkeypatch.setattr(gpu, "SPAN", 8)
    triton_checks.poison(monkeypatch)
    check_torch("cpu")


def check_torch(device: str) -> None:
    """Rows of 0 to 60 entries, some longer than the factors are wide, with and without a prior."""
    generator = np.random.default_rng(4)
    lengths = generator.integers(0, 60, 150)
    columns = np.concatenate([generator.choice(200, n, replace=False) for n in lengths])
    R = CSR.from_pairs(np.repeat(np.arange(150), lengths), columns, (150, 200))
    Q = (generator.standard_normal((200, 17)) / 4).astype(np.float32)
    prior = generator.standard_normal((150, 17)).astype(np.float32)
    shrink = 0.05 * (1 + lengths)
    for mean in (None, prior):
        options = {"unobserved_weight": 0.1, "regularization": shrink}
        tensors = (None if mean is None else torch.from_numpy(mean).to(device)), torch.from_numpy(Q).to(device)
        got = als_factors(R, tensors[1], prior=tensors[0], backend="torch", **options)
        assert got.device.type == device
        wanted = als_factors(R, Q, prior=mean, backend="reference", **options)
        np.testing.assert_allclose(got.cpu().numpy(), wanted, rtol=1e-3, atol=1e-5)
        assert mean is not None or not got[torch.from_numpy(lengths == 0)].any()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("budget", [3_000, gpu.BUDGET])
def test_on_a_gpu(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "BUDGET", budget)
    triton_checks.poison(monkeypatch)
    check_torch("cuda")

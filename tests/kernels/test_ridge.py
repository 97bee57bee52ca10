"""ridge_weights against its float64 reference, and against what a ridge regression must be."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from mllmrec_kernels import CSR, KernelInputError, ridge_weights

# (users, items, interactions, width, neighbours asked for): one item, odd sizes, none at all, all to all
CASES = [(1, 1, 1, 1, 0), (7, 5, 0, 3, 4), (60, 23, 300, 17, 5), (41, 40, 500, 8, 39), (300, 80, 3000, 48, 30)]


def case(users: int, items: int, pairs: int, width: int, k: int) -> tuple[CSR, np.ndarray, CSR]:
    generator = np.random.default_rng(items)
    R = CSR.from_pairs(generator.integers(users, size=pairs), generator.integers(items, size=pairs), (users, items))
    V = generator.standard_normal((items, width)).astype(np.float32)
    near = [generator.permutation(np.delete(np.arange(items), j))[: k - j % 3] for j in range(items)]
    rows = np.repeat(np.arange(items), [len(row) for row in near])
    return R, V, CSR.from_pairs(rows, np.concatenate([*near, []]).astype(int), (items, items))


def solve(R: CSR, V: np.ndarray, S: CSR, backend: str = "auto", w: float = 20.0, lam: float = 50.0) -> CSR:
    return ridge_weights(R, V, S, content_weight=w, regularisation=lam, backend=backend)


@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("w", [0.0, 20.0])
def test_it_is_the_reference(sizes: tuple[int, ...], w: float) -> None:
    R, V, S = case(*sizes)
    lam = 5.0
    got, wanted = (solve(R, V, S, backend, w, lam) for backend in ("numba", "reference"))
    # Both solve in float64: off by the condition of the systems (under trace(G) / lambda < 1e4 here) times
    # its 1e-16, far below the last float32 step of a weight.
    np.testing.assert_allclose(got.data, wanted.data, rtol=2**-23, atol=1e-9)
    assert np.array_equal(got.indices, S.indices) and np.array_equal(got.indptr, S.indptr)


def test_the_weights_are_a_minimum_of_the_regression() -> None:
    R, V, S = case(60, 23, 300, 17, 6)
    w, lam = 3.0, 2.0
    weights = solve(R, V, S, w=w, lam=lam)
    dense, V = R.to_scipy().toarray().astype(np.float64), V.astype(np.float64)

    def loss(j: int, b: np.ndarray) -> float:
        near = S.row(j)
        misfit = ((dense[:, j] - dense[:, near] @ b) ** 2).sum() + w * ((V[j] - V[near].T @ b) ** 2).sum()
        return float(misfit + lam * (b**2).sum())

    generator = np.random.default_rng(0)
    for j in range(23):
        b = weights.data[S.indptr[j] : S.indptr[j + 1]].astype(np.float64)
        nudges = 1e-2 * generator.standard_normal((20, len(b)))
        assert all(loss(j, b) < loss(j, b + nudge) for nudge in nudges)


def test_the_number_of_threads_changes_no_bit() -> None:
    R, V, S = case(300, 80, 3000, 48, 30)
    many = solve(R, V, S).data.tobytes()
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        assert solve(R, V, S).data.tobytes() == many
    finally:
        numba.set_num_threads(before)


def test_what_it_refuses() -> None:
    R, V, S = case(60, 23, 300, 17, 5)
    with pytest.raises(KernelInputError, match=r"item 3 supports itself"):
        solve(R, V, CSR.from_pairs(np.array([3]), np.array([3]), (23, 23)))
    with pytest.raises(KernelInputError, match=r"regularisation must be above 0; got 0"):
        solve(R, V, S, lam=0)
    with pytest.raises(KernelInputError, match=r"content_weight must be at least 0; got nan"):
        solve(R, V, S, w=float("nan"))
    with pytest.raises(KernelInputError, match=r"vectors must be float32 of shape \(23, d\)"):
        solve(R, V[:-1], S)
    with pytest.raises(KernelInputError, match=r"vectors must be finite; row 4 is not"):
        solve(R, np.where(np.arange(23)[:, None] == 4, np.float32(np.inf), V), S)

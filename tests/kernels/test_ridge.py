"""ridge_weights against its float64 reference, and against what a ridge regression must be."""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch
from mllmrec_kernels import CSR, KernelError, KernelInputError, RidgeSystems, ridge_path, ridge_weights
from mllmrec_kernels.ridge import gpu

from tests.kernels import triton_checks

BACKENDS = ["numba", "torch"]
each_backend = pytest.mark.parametrize("backend", BACKENDS)
# (users, items, interactions, width, neighbours asked for): one item, odd sizes, none at all, all to all
CASES = [(1, 1, 1, 1, 0), (7, 5, 0, 3, 4), (60, 23, 300, 17, 5), (41, 40, 500, 8, 39), (300, 80, 3000, 48, 30)]


def case(users: int, items: int, pairs: int, width: int, k: int) -> tuple[CSR, np.ndarray, CSR]:
    generator = np.random.default_rng(items)
    R = CSR.from_pairs(generator.integers(users, size=pairs), generator.integers(items, size=pairs), (users, items))
    V = generator.standard_normal((items, width)).astype(np.float32)
    near = [generator.permutation(np.delete(np.arange(items), j))[: k - j % 3] for j in range(items)]
    rows = np.repeat(np.arange(items), [len(row) for row in near])
    return R, V, CSR.from_pairs(rows, np.concatenate([*near, []]).astype(int), (items, items))


def solve(
    R: CSR, V: np.ndarray | torch.Tensor, S: CSR, backend: str = "auto", w: float = 20.0, lam: float = 50.0
) -> CSR:
    return ridge_weights(R, V, S, content_weight=w, regularization=lam, backend=backend)


def ragged() -> tuple[CSR, np.ndarray, CSR]:
    """Rows of none to nine neighbours; item 0 is everybody's, items 1 and 2 are alike in all they have, 3 nobody's."""
    R, V, S = case(90, 31, 500, 12, 12)
    users, items = R.rows(), R.indices
    kept = ~np.isin(items, [0, 2, 3])
    twins = users[items == 1]
    users = np.concatenate([users[kept], np.arange(90), twins])
    items = np.concatenate([items[kept], np.zeros(90, np.int32), np.full(len(twins), 2)])
    V[2] = V[1]
    rows = S.rows()
    short = np.arange(S.nnz) - S.indptr[rows] < rows % 10
    return CSR.from_pairs(users, items, R.shape), V, CSR.from_pairs(rows[short], S.indices[short], S.shape)


def assert_close(got: CSR, wanted: CSR) -> None:
    """Both solve in float64: off by the condition of the systems (under trace(G) / lambda < 1e4 here) times its 1e-16.

    That is far below the last float32 step of a weight.
    """
    assert isinstance(got.data, np.ndarray) and got.data.dtype == np.float32
    np.testing.assert_allclose(got.data, wanted.data, rtol=2**-23, atol=1e-9)
    assert np.array_equal(got.indices, wanted.indices) and np.array_equal(got.indptr, wanted.indptr)


@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("w", [0.0, 20.0])
@each_backend
def test_it_is_the_reference(sizes: tuple[int, ...], w: float, backend: str) -> None:
    R, V, S = case(*sizes)
    assert_close(solve(R, V, S, backend, w, 5.0), solve(R, V, S, "reference", w, 5.0))


@each_backend
def test_ragged_and_empty_rows(backend: str) -> None:
    R, V, S = ragged()
    assert {0, 9} <= set(np.diff(S.indptr))
    assert_close(solve(R, V, S, backend, lam=5.0), solve(R, V, S, "reference", lam=5.0))


# One row and one user at a time; a row, its users in parts; a few rows; all but the widest together.
@pytest.mark.parametrize("budget", [1, 3_000, 30_000, 300_000])
def test_batches_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    R, V, S = ragged()
    wanted = solve(R, V, S, "reference", lam=5.0)
    monkeypatch.setattr(gpu, "BUDGET", budget)
    assert len(list(gpu._batches(R, S, V.shape[1], budget))) > 1
    triton_checks.poison(monkeypatch)
    assert_close(solve(R, V, S, "torch", lam=5.0), wanted)


@pytest.mark.parametrize("backend", [*BACKENDS, "reference", "auto"])
def test_tensors_are_taken_too(backend: str) -> None:
    R, V, S = case(60, 23, 300, 17, 5)
    got = solve(R, torch.from_numpy(V).requires_grad_(), S, backend)
    assert got.data.tobytes() == solve(R, V, S, backend).data.tobytes()
    assert solve(R, np.asfortranarray(V), S, backend).data.tobytes() == got.data.tobytes()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("budget", [100_000, gpu.GPU_BUDGET])  # fewer bytes take a minute of launches
def test_on_a_gpu(backend: str, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "GPU_BUDGET", budget)
    triton_checks.poison(monkeypatch)
    for R, V, S in (ragged(), *(case(*sizes) for sizes in CASES)):
        for w in (0.0, 20.0):
            got = solve(R, torch.from_numpy(V).cuda(), S, backend, w, 5.0)
            assert_close(got, solve(R, V, S, "reference", w, 5.0))


@each_backend
def test_several_tables_are_each_alone(backend: str) -> None:
    """Users are counted once for all; the second table is wider."""
    R, V, S = case(60, 23, 300, 17, 5)
    tables = (V, np.concatenate([V, V[::-1]], axis=1))
    strengths = [(20.0, 5.0), (3.0, 2.0)]
    together = RidgeSystems(R, tables, S, backend=backend)
    for start, stop in ((0, 23), (4, 11)):
        made = together.solve(strengths, start, stop)
        for one, table in zip(made, tables, strict=True):
            alone = RidgeSystems(R, (table,), S, backend=backend).solve(strengths, start, stop)[0]
            assert one.tobytes() == alone.tobytes()


@each_backend
def test_the_weights_are_a_minimum_of_the_regression(backend: str) -> None:
    R, V, S = case(60, 23, 300, 17, 6)
    w, lam = 3.0, 2.0
    weights = solve(R, V, S, backend, w, lam)
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


@each_backend
def test_a_path_is_its_strengths_one_by_one(backend: str) -> None:
    R, V, S = case(60, 23, 300, 17, 5)
    strengths = [(20.0, 50.0), (0.0, 5.0), (1.0, 2.0)]
    path = ridge_path(R, V, S, strengths, backend=backend)
    assert [made.data.tobytes() for made in path] == [solve(R, V, S, backend, *one).data.tobytes() for one in strengths]


def test_products_in_float32_move_weights_by_little() -> None:
    R, V, S = case(300, 80, 3000, 48, 30)
    V /= np.linalg.norm(V, axis=1, keepdims=True)
    double, single = (RidgeSystems(R, [V], S, single=one).solve([(20.0, 5.0)])[0, 0] for one in (False, True))
    assert double.tobytes() != single.tobytes()
    np.testing.assert_allclose(single, double, atol=2e-6 * np.abs(double).max())


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
    with pytest.raises(KernelInputError, match=r"regularization must be above 0; got 0"):
        solve(R, V, S, lam=0)
    with pytest.raises(KernelInputError, match=r"content_weight must be at least 0; got nan"):
        solve(R, V, S, w=float("nan"))
    with pytest.raises(KernelInputError, match=r"vectors must be float32 of shape \(23, d\)"):
        solve(R, V[:-1], S)
    with pytest.raises(KernelInputError, match=r"vectors must be finite; row 4 is not"):
        solve(R, np.where(np.arange(23)[:, None] == 4, np.float32(np.inf), V), S)
    for rows in (torch.from_numpy(V).double(), torch.from_numpy(V)[0]):
        with pytest.raises(KernelInputError, match=r"vectors must be float32 of shape \(23, d\); got float"):
            solve(R, rows, S, backend="torch")
    with pytest.raises(KernelInputError, match=r"vectors must be finite; row 0 is not"):
        solve(R, torch.from_numpy(V) / 0, S, backend="torch")


@each_backend
def test_a_system_beyond_float64_is_named(backend: str) -> None:
    """Three equal items at a weight that leaves nothing of lambda: no pivot remains after the first."""
    S = CSR.from_pairs(np.array([1, 1]), np.array([0, 2]), (3, 3))
    R = CSR.from_pairs(np.array([0]), np.array([0]), (1, 3))
    with pytest.raises(KernelError, match=r"the system of item 1 cannot be solved in float64: regularization 0.001"):
        solve(R, np.ones((3, 1), np.float32), S, backend, w=2.0**66, lam=1e-3)


@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
def test_interactions_by_item_give_the_same_weights(backend: str) -> None:
    R, V, S = case(60, 23, 300, 17, 5)
    strengths = [(20.0, 50.0), (0.0, 1.0)]
    by_user = ridge_path(R, V, S, strengths, backend=backend)
    by_item = ridge_path(R.transpose(), V, S, strengths, by_item=True, backend=backend)
    assert all(np.array_equal(one.values(), other.values()) for one, other in zip(by_user, by_item, strict=True))


@each_backend
def test_several_tables_solved_in_pieces_are_each_table_alone(backend: str) -> None:
    R, V, S = case(60, 23, 300, 17, 5)
    tables, strengths = [V, V[:, ::-1].copy()], [(20.0, 50.0), (0.0, 3.0)]
    systems = RidgeSystems(R, tables, S, backend=backend)
    pieces = [systems.solve(strengths, start, min(start + 7, 23)) for start in range(0, 23, 7)]
    alone = [[path.values() for path in ridge_path(R, table, S, strengths, backend=backend)] for table in tables]
    together = np.concatenate(pieces, axis=2)
    if backend == "numba":
        assert np.array_equal(together, np.array(alone))
    np.testing.assert_allclose(together, np.array(alone), rtol=2**-23, atol=1e-9)

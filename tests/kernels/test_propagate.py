from __future__ import annotations

import numba
import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.propagate import COMBINES, HOWS, cpu, narrow, normalize, propagate

from tests.kernels.sparse_cases import GRAPHS, Graph, from_rows, ids, random_graph

BACKENDS = ["numba", "torch"]
CASES = pytest.mark.parametrize("case", GRAPHS, ids=ids(GRAPHS))


def tolerance(graph: CSR, layers: int, dtype: type) -> float:
    """Rounding of the longest sum, once a layer: (longest row + 2) units, relative to the largest value."""
    longest = int(np.diff(graph.indptr).max(initial=0))
    return float((longest + 2) * max(layers, 1) * np.finfo(dtype).eps)


def assert_close(got: np.ndarray, wanted: np.ndarray, rounding: float) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=0, atol=rounding * float(np.abs(wanted).max(initial=0)))


@CASES
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("backend", ["reference", "numba"])
def test_normalise_equals_the_dense_formula(case: Graph, how: str, backend: str):
    graph = case.make()
    A = graph.to_scipy().toarray().astype(np.float64)
    sums = A.sum(axis=1)
    inverse = np.where(sums > 0, 1 / np.where(sums > 0, sums, 1), 0)
    left, right = (inverse, np.ones_like(inverse)) if how == "row" else (np.sqrt(inverse), np.sqrt(inverse))
    got = normalize(graph, how=how, backend=backend)
    assert got.data is not None
    assert got.data.dtype == np.float32
    np.testing.assert_array_equal(got.indices, graph.indices)
    np.testing.assert_allclose(got.to_scipy().toarray(), left[:, None] * A * right, rtol=1.2e-7)


@CASES
@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_reference(case: Graph, combine: str, layers: int, dtype: type, backend: str):
    graph, features = case.make(), case.features(dtype)
    wanted = propagate(graph, features, layers=layers, combine=combine, backend="reference")
    got = propagate(graph, features, layers=layers, combine=combine, backend=backend)
    assert_close(got, wanted, tolerance(graph, layers, dtype))
    assert not np.shares_memory(got, features)


def test_the_method_of_the_paper_on_a_graph_checked_by_hand():
    # Row sums 2, 1, 0: Â = [[1/2, 1/sqrt 2, 0], [1/sqrt 2, 0, 0], [0, 0, 0]].
    graph = normalize(from_rows([[0, 1], [0], []], 3))
    got = propagate(graph, np.array([[2.0], [4.0], [8.0]], np.float32), layers=1)
    np.testing.assert_allclose(got[:, 0], [2 + 1 + 4 / 2**0.5, 4 + 2 / 2**0.5, 8], rtol=3e-7)


def test_threads_change_no_bit():
    graph, features = random_graph(300, 20), GRAPHS[-1].features()
    threads = numba.get_num_threads()
    wanted = propagate(graph, features, layers=2)
    numba.set_num_threads(1)
    try:
        np.testing.assert_array_equal(propagate(graph, features, layers=2), wanted)
    finally:
        numba.set_num_threads(threads)


def test_features_need_not_be_contiguous():
    graph, wide = random_graph(31, 4), np.random.default_rng(0).standard_normal((31, 10)).astype(np.float32)
    wanted = propagate(graph, wide[:, ::2].copy(), layers=2)
    np.testing.assert_array_equal(propagate(graph, wide[:, ::2], layers=2), wanted)
    np.testing.assert_array_equal(propagate(graph, np.asfortranarray(wide[:, ::2]), layers=2), wanted)


def test_every_entry_of_the_output_is_written(monkeypatch: pytest.MonkeyPatch):
    graph, features = random_graph(31, 4), np.ones((31, 5), np.float32)
    wanted = propagate(graph, features, layers=2, backend="reference")
    monkeypatch.setattr(cpu.np, "empty_like", lambda array: np.full_like(array, np.nan))
    assert_close(propagate(graph, features, layers=2), wanted, tolerance(graph, 2, np.float32))


@CASES
@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("backend", ["numba", "torch", "reference"])
def test_torch_in_torch_out(case: Graph, combine: str, backend: str):
    graph, features = case.make(), case.features()
    got = propagate(graph, torch.from_numpy(features), layers=2, combine=combine, backend=backend)
    assert isinstance(got, torch.Tensor)
    wanted = propagate(graph, features, layers=2, combine=combine, backend=backend)
    np.testing.assert_array_equal(got.numpy(), wanted)


@pytest.mark.parametrize("combine", COMBINES)
@pytest.mark.parametrize("layers", [0, 1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_equal_finite_differences(combine: str, layers: int, backend: str):
    graph = random_graph(11, 3)
    features = torch.randn(11, 4, dtype=torch.float64, generator=torch.manual_seed(0), requires_grad=True)

    def run(x: torch.Tensor) -> torch.Tensor:
        return propagate(graph, x, layers=layers, combine=combine, backend=backend)

    assert torch.autograd.gradcheck(run, (features,))
    assert torch.autograd.gradgradcheck(run, (features,))


def test_backward_goes_through_the_transpose():
    graph = normalize(random_graph(53, 5))
    features = torch.randn(53, 8, generator=torch.manual_seed(0), requires_grad=True)
    upstream = torch.randn(53, 8, generator=torch.manual_seed(1))
    propagate(graph, features, layers=2).backward(upstream)
    wanted = propagate(graph.transpose(), upstream.numpy(), layers=2, backend="reference")
    assert features.grad is not None
    assert_close(features.grad.numpy(), wanted, tolerance(graph.transpose(), 2, np.float32))


def test_the_custom_op_keeps_torchs_rules():
    graph = random_graph(11, 3)
    tensors = (
        torch.from_numpy(graph.indptr),
        torch.from_numpy(graph.indices),
        torch.from_numpy(graph.values()),
    )
    features = torch.randn(11, 4, dtype=torch.float64, generator=torch.manual_seed(0), requires_grad=True)
    propagate(graph, features, layers=1)  # registers the op
    torch.library.opcheck(torch.ops.mllmrec.propagate.default, (*tensors, features, 2, "mean", "auto", False))


def test_compile_sees_through_it():
    weight = torch.randn(8, 3, generator=torch.manual_seed(0))

    def model(graph: CSR, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(propagate(graph, x * 2, layers=2) @ weight).sum()

    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for seed in (0, 1):  # a second graph of the same shape must not meet the first one's entries
        graph = normalize(random_graph(53, 5, seed=seed))
        eager = torch.randn(53, 8, generator=torch.manual_seed(2), requires_grad=True)
        traced = eager.detach().clone().requires_grad_()
        model(graph, eager).backward()
        compiled(graph, traced).backward()
        torch.testing.assert_close(traced.grad, eager.grad)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": -1}, "layers must not be negative; got -1"),
        ({"combine": "max"}, "combine 'max' is not one of sum, mean, last"),
        ({"features": np.zeros((2, 3), np.float32)}, r"features must have shape \(3, d\); got \(2, 3\)"),
        ({"features": np.zeros(3, np.float32)}, r"features must have shape \(3, d\); got \(3,\)"),
        ({"features": np.zeros((3, 2), np.int64)}, "features must be float32 or float64; got int64"),
        ({"features": torch.zeros(3, 2, dtype=torch.bfloat16)}, "or float64; got torch.bfloat16"),
        ({"graph": from_rows([[0]], 2)}, r"graph must be square; got \(1, 2\)"),
        ({"backend": "magic"}, "backend 'magic' is not one of auto"),
    ],
)
def test_refusals_name_the_argument(options, message):
    arguments = {"graph": from_rows([[0], [1], []], 3), "features": np.zeros((3, 2), np.float32), "layers": 1}
    arguments |= options
    with pytest.raises(KernelInputError, match=message):
        propagate(arguments.pop("graph"), arguments.pop("features"), **arguments)


@pytest.mark.parametrize("width", [1, 16, 19])
def test_products_with_a_narrow_table_have_the_bits_of_scipy(width: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(narrow, "_ROWS", 32)
    generator = np.random.default_rng(width)
    filled = sp.random_array((260, 90), density=0.05, format="csr", rng=generator)
    matrix = sp.vstack([sp.csr_array((40, 90)), filled], format="csr")
    table = np.asfortranarray(generator.standard_normal((90, width)))
    product = narrow.multiply_narrow(matrix.indptr, matrix.indices, matrix.data, table)
    np.testing.assert_array_equal(product, matrix @ np.ascontiguousarray(table))
    np.testing.assert_allclose(product, matrix.toarray() @ table)
    assert not product[:40].any() and product[40:].any()


def test_a_matrix_without_entries_gives_zeros():
    empty = sp.csr_array((4, 3))
    product = narrow.multiply_narrow(empty.indptr, empty.indices, empty.data, np.ones((3, 2)))
    np.testing.assert_array_equal(product, np.zeros((4, 2)))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1.0])
def test_normalise_refuses_entries_without_a_root(wrong: float):
    graph = CSR(np.array([0, 1, 2]), np.array([0, 1], np.int32), np.array([1, wrong], np.float32), 2)
    with pytest.raises(KernelInputError, match=f"finite and not negative; row 1 holds {wrong}"):
        normalize(graph)
    with pytest.raises(KernelInputError, match="how 'column' is not one of"):
        normalize(from_rows([[0]], 1), how="column")

"""mlp against its float64 reference, forward and backward, and the parts that threads take."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import torch
from mllmrec_kernels import KernelInputError, mlp
from mllmrec_kernels.base.parallel import chunks, equal_parts, parallel_for
from mllmrec_kernels.mlp import cpu, reference, torch_op
from numba import get_num_threads, set_num_threads

SLOPE = 0.01
# (table, rows, d_e, hidden, d): one of each, odd sizes, several chunks, rows that come again
CASES = [(1, 1, 1, 1, 1), (7, 5, 3, 4, 2), (50, 200, 33, 17, 9), (300, 301, 65, 40, 31)]


def case(n: int, rows: int, *widths: int) -> tuple[list[np.ndarray], np.ndarray]:
    """(table, W1, b1, W2, b2) and the rows."""
    generator = np.random.default_rng(n)
    e, hidden, d = widths
    shapes = [(n, e), (hidden, e), (hidden,), (d, hidden), (d,)]
    arrays = [generator.standard_normal(shape).astype(np.float32) / np.sqrt(shape[-1]) for shape in shapes]
    return [array.astype(np.float32) for array in arrays], generator.integers(n, size=rows)


def differentiated(function: Any, arrays: list[np.ndarray], rows: np.ndarray | None) -> list[np.ndarray]:
    table, *weights = map(torch.from_numpy, arrays)
    weights = [weight.clone().requires_grad_() for weight in weights]
    made = function(table, None if rows is None else torch.from_numpy(rows), *weights)
    gradient = np.random.default_rng(3).standard_normal(made.shape).astype(np.float32)
    made.backward(torch.from_numpy(gradient))
    return [made.detach().numpy(), *(weight.grad.numpy() for weight in weights)]


def wanted(arrays: list[np.ndarray], rows: np.ndarray | None) -> tuple[np.ndarray, ...]:
    table, *weights = arrays
    asked = table if rows is None else table[rows]
    gradient = np.random.default_rng(3).standard_normal((len(asked), len(weights[3]))).astype(np.float32)
    return reference.mlp(asked, *weights, gradient, SLOPE)


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Any:
    """One thread, and two where there are."""
    before = get_num_threads()
    set_num_threads(min(request.param, before))
    yield request.param
    set_num_threads(before)


@pytest.mark.parametrize("sizes", CASES)
@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("way", ["mlp", "operations"])
def test_it_is_the_reference(sizes: tuple[int, ...], whole: bool, way: str, threads: int, monkeypatch) -> None:
    """Sums of at most 301 float32 products of size 1: off by 301 2^-24 of that, below 1e-4."""
    monkeypatch.setattr(cpu, "CHUNK", 60)
    monkeypatch.setattr(cpu, "LEAST", 3)
    function = mlp if way == "mlp" else lambda *given: torch_op.by_operations(*given, SLOPE)
    arrays, rows = case(*sizes)
    got = differentiated(function, arrays, None if whole else rows)
    for ours, theirs in zip(got, wanted(arrays, None if whole else rows), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


class PoisonedNumPy:
    """NumPy whose `empty` is NaN."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def empty(self, shape: Any, dtype: Any) -> np.ndarray:
        return np.full(shape, np.nan, dtype)


def test_nothing_is_left_unwritten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "np", PoisonedNumPy())
    arrays, rows = case(50, 200, 33, 17, 9)
    assert all(np.isfinite(found).all() for found in differentiated(mlp, arrays, rows))
    with torch.no_grad():
        assert mlp(*map(torch.from_numpy, (arrays[0], rows, *arrays[1:]))).isfinite().all()


def test_the_same_call_gives_the_same_bits(threads: int) -> None:
    arrays, rows = case(300, 301, 65, 40, 31)
    first, second = (differentiated(mlp, arrays, rows) for _ in range(2))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


def test_no_rows_give_no_gradient() -> None:
    arrays, rows = case(7, 5, 3, 4, 2)
    made, *gradients = differentiated(mlp, arrays, rows[:0])
    assert made.shape == (0, 2) and not any(gradient.any() for gradient in gradients)


def test_where_the_hidden_layer_is_zero_the_slope_holds_as_in_torch() -> None:
    arrays = [np.ones((1, 2), np.float32), np.zeros((3, 2), np.float32), np.zeros(3, np.float32),
              np.ones((2, 3), np.float32), np.zeros(2, np.float32)]  # fmt: skip
    ours = differentiated(mlp, arrays, None)
    theirs = differentiated(lambda *given: torch_op.by_operations(*given, SLOPE), arrays, None)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_what_is_not_a_number_shows() -> None:
    arrays, rows = case(7, 5, 3, 4, 2)
    arrays[0][rows[0]] = np.nan
    made, by_weight, *_ = differentiated(mlp, arrays, rows)
    assert np.isnan(made[0]).all() and np.isnan(by_weight).any()


def test_other_floats_and_compiled_code_take_torchs_way() -> None:
    arrays, rows = case(50, 200, 33, 17, 9)
    theirs = wanted(arrays, rows)
    doubled = differentiated(mlp, [array.astype(np.float64) for array in arrays], rows)
    np.testing.assert_allclose(doubled[0], theirs[0], rtol=1e-12, atol=1e-12)
    with torch.autocast("cpu", torch.bfloat16):
        low = differentiated(lambda *given: mlp(*given).float(), arrays, rows)
    assert np.abs(low[0] - theirs[0]).max() > 1e-4
    np.testing.assert_allclose(low[0], theirs[0], atol=0.1)
    compiled = differentiated(torch.compile(mlp, fullgraph=True, backend="aot_eager"), arrays, rows)
    np.testing.assert_allclose(compiled[0], theirs[0], rtol=1e-4, atol=1e-4)


def test_what_it_refuses() -> None:
    arrays, rows = case(7, 5, 3, 4, 2)
    table, *weights = map(torch.from_numpy, arrays)
    asked = torch.from_numpy(rows)
    with pytest.raises(KernelInputError, match=r"\[d\] of one dtype; got \(7, 2\), \(4, 3\)"):
        mlp(table[:, :2], asked, *weights)
    with pytest.raises(KernelInputError, match=r"of one dtype; got .* torch.float64"):
        mlp(table.double(), asked, *weights)
    with pytest.raises(KernelInputError, match="slope must be above 0; got 0"):
        mlp(table, asked, *weights, slope=0)
    with pytest.raises(KernelInputError, match="the table is constant"):
        mlp(table.clone().requires_grad_(), asked, *weights)


@pytest.mark.parametrize(("total", "least"), [(0, 1), (1, 1), (5, 2), (1000, 64), (1000, 10_000)])
@pytest.mark.parametrize("keep_threads", [True, False])
def test_parts_cover_everything_once(total: int, least: int, keep_threads: bool, threads: int) -> None:
    seen: list[range] = []
    spans = equal_parts(total, least)
    parallel_for(lambda start, stop: seen.append(range(start, stop)), spans, keep_threads=keep_threads)
    assert [n for part in sorted(seen, key=lambda part: part.start) for n in part] == list(range(total))
    assert len(seen) <= max(1, total // least)


def test_chunks_cover_everything_once() -> None:
    assert chunks(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert chunks(0, 4) == []


@pytest.mark.parametrize("keep_threads", [True, False])
def test_an_error_in_a_part_comes_out(keep_threads: bool, threads: int) -> None:
    def broken(start: int, stop: int) -> None:
        raise ValueError("part")

    with pytest.raises(ValueError, match="part"):
        parallel_for(broken, equal_parts(100, 1), keep_threads=keep_threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_has_threads_of_its_own() -> None:
    set_num_threads(min(2, get_num_threads()))
    parallel_for(lambda *_: None, equal_parts(100, 1), keep_threads=True)
    child = os.fork()
    if child == 0:
        parallel_for(lambda *_: None, equal_parts(100, 1), keep_threads=True)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7

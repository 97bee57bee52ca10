"""rank_heldout: every backend equals the reference, which equals a full sort."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.rank import cpu, rank_heldout
from mllmrec_kernels.topk import topk_dot
from numba import get_num_threads, set_num_threads

from tests.kernels.cases import VECTOR_CASES, VectorCase, gaussian, split_pairs

CPU = ("numba",)
each_case = pytest.mark.parametrize("case", VECTOR_CASES, ids=lambda case: case.name)
each_backend = pytest.mark.parametrize("backend", CPU)


@each_case
@each_backend
def test_equals_reference(case: VectorCase, backend: str) -> None:
    users, items = case.queries(), case.items()
    exclude, heldout = split_pairs(case.rng(), (len(users), len(items)))
    ranks = rank_heldout(users, items, exclude, heldout, backend=backend)
    assert ranks.dtype == np.int32
    np.testing.assert_array_equal(ranks, rank_heldout(users, items, exclude, heldout, backend="reference"))


@each_case
def test_the_float32_product_gives_the_same(case: VectorCase, monkeypatch: pytest.MonkeyPatch) -> None:
    """What processors without the int8 instruction run."""
    monkeypatch.setattr(cpu, "supported", lambda: False)
    users, items = case.queries(), case.items()
    exclude, heldout = split_pairs(case.rng(), (len(users), len(items)))
    ranks = rank_heldout(users, items, exclude, heldout)
    np.testing.assert_array_equal(ranks, rank_heldout(users, items, exclude, heldout, backend="reference"))


@each_case
@pytest.mark.parametrize("by_int8", [True, False])
@pytest.mark.parametrize("limit", [0, 1, 20, 10_000])
def test_ranks_below_a_limit_are_exact(
    case: VectorCase, by_int8: bool, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not by_int8:
        monkeypatch.setattr(cpu, "supported", lambda: False)
    users, items = case.queries(), case.items()
    exclude, heldout = split_pairs(case.rng(), (len(users), len(items)))
    ranks = rank_heldout(users, items, exclude, heldout, limit=limit)
    wanted = rank_heldout(users, items, exclude, heldout, backend="reference")
    np.testing.assert_array_equal(np.minimum(ranks, limit), np.minimum(wanted, limit))


def test_what_has_reached_the_limit_is_looked_at_no_more() -> None:
    """Even users hold out what stands in places 5 and 19, behind their best 40, which they have seen; odd users what
    they like least."""
    rng = np.random.default_rng(8)
    users, items = gaussian(rng, 700, 8), gaussian(rng, 3000, 8)
    (best, _), (worst, _) = topk_dot(users, items, 60), topk_dot(-users, items, 2)
    exclude = CSR.from_pairs(np.repeat(np.arange(700), 40), best[:, :40].ravel(), (700, 3000))
    odd = np.arange(700)[:, None] % 2 == 1
    held = np.where(odd, worst, best[:, [40 + 5, 40 + 19]])
    heldout = CSR.from_pairs(np.repeat(np.arange(700), 2), held.ravel(), (700, 3000))
    for max_bytes in (None, 300_000):
        ranks = rank_heldout(users, items, exclude, heldout, limit=10, max_bytes=max_bytes)
        wanted = rank_heldout(users, items, exclude, heldout, max_bytes=max_bytes)
        np.testing.assert_array_equal(np.sort(wanted[heldout.rows() % 2 == 0]), np.repeat([5, 19], 350))
        np.testing.assert_array_equal(np.minimum(ranks, 10), np.minimum(wanted, 10))
        assert (ranks < wanted)[heldout.rows() % 2 == 1].all()  # not counted to the end


def test_many_coordinates_take_one_byte_each() -> None:
    """Beyond 512 coordinates two bytes would leave int32; the plain tile counts."""
    users, items = gaussian(np.random.default_rng(1), 20, 600), gaussian(np.random.default_rng(2), 70, 600)
    exclude, heldout = split_pairs(np.random.default_rng(3), (20, 70))
    ranks = rank_heldout(users, items, exclude, heldout)
    np.testing.assert_array_equal(ranks, rank_heldout(users, items, exclude, heldout, backend="reference"))


@each_case
def test_reference_equals_place_in_topk(case: VectorCase) -> None:
    users, items = case.queries(), case.items()
    exclude, heldout = split_pairs(case.rng(), (len(users), len(items)))
    ids, _ = topk_dot(users, items, max(1, len(items)), exclude=exclude, backend="reference")
    places = [int(np.flatnonzero(ids[u] == h)[0]) for u in range(len(users)) for h in heldout.row(u)]
    ranks = rank_heldout(users, items, exclude, heldout, backend="reference")
    np.testing.assert_array_equal(ranks, np.array(places, dtype=np.int32))


@each_backend
def test_equal_items_rank_by_id(backend: str) -> None:
    """The held-out item's twins, at every place of a BLAS tile, stand where their ids say."""
    rng = np.random.default_rng(1)
    items = np.repeat(gaussian(rng, 1, 67), 517, axis=0)
    users = gaussian(rng, 33, 67)
    heldout = CSR.from_pairs(np.arange(33), np.arange(33) * 16, (33, 517))
    nothing = CSR.from_pairs(np.zeros(0, int), np.zeros(0, int), (33, 517))
    ranks = rank_heldout(users, items, nothing, heldout, backend=backend)
    np.testing.assert_array_equal(ranks, np.arange(33) * 16)


@each_backend
@pytest.mark.parametrize("max_bytes", [20_000, 2**26])
def test_memory_and_threads_change_nothing(backend: str, max_bytes: int) -> None:
    case = next(case for case in VECTOR_CASES if case.name == "several_tiles")
    users, items = case.queries(), case.items()
    exclude, heldout = split_pairs(case.rng(), (len(users), len(items)))
    wanted = rank_heldout(users, items, exclude, heldout, backend="reference")
    threads = get_num_threads()
    try:
        for n in (1, threads):
            set_num_threads(n)
            got = rank_heldout(users, items, exclude, heldout, backend=backend, max_bytes=max_bytes)
            np.testing.assert_array_equal(got, wanted)
    finally:
        set_num_threads(threads)


def test_tensors_in_tensors_out() -> None:
    x = torch.from_numpy(gaussian(np.random.default_rng(3), 9, 4))
    exclude, heldout = split_pairs(np.random.default_rng(4), (9, 9))
    ranks = rank_heldout(x, x, exclude, heldout)
    assert isinstance(ranks, torch.Tensor)
    assert ranks.dtype == torch.int32


def test_an_item_both_held_out_and_excluded_is_refused() -> None:
    x = gaussian(np.random.default_rng(3), 9, 4)
    a = CSR.from_pairs(np.array([3, 8]), np.array([2, 8]), (9, 9))
    b = CSR.from_pairs(np.array([1, 3]), np.array([2, 2]), (9, 9))
    with pytest.raises(KernelInputError, match="1 held-out items are also excluded, the first: user 3, item 2"):
        rank_heldout(x, x, a, b)


def test_shapes_are_checked() -> None:
    x = gaussian(np.random.default_rng(3), 9, 4)
    a = CSR.from_pairs(np.zeros(0, int), np.zeros(0, int), (9, 8))
    with pytest.raises(KernelInputError, match=r"exclude must have shape \(9, 9\); got \(9, 8\)"):
        rank_heldout(x, x, a, a)
    with pytest.raises(KernelInputError, match="beyond float32"):
        rank_heldout(x * 1e25, x * 1e25, a, a)

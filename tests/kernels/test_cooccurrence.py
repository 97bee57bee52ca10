from __future__ import annotations

from fractions import Fraction

import numba
import numpy as np
import pytest
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.cooccurrence import MEASURES, cooccurrence_topk, cpu

from tests.kernels.sparse_cases import INTERACTIONS, Interactions, from_rows, ids, random_interactions

BACKENDS = ["numba"]
CASES = pytest.mark.parametrize("case", INTERACTIONS, ids=ids(INTERACTIONS))


def exact(user_items: CSR, k: int, measure: str) -> list[list[tuple[Fraction, int]]]:
    """Per item the sorted (squared cosine, jaccard or count, id) as fractions: no rounding anywhere."""
    audience = [set(user_items.transpose().row(i).tolist()) for i in range(user_items.n_columns)]
    rows = []
    for i, mine in enumerate(audience):
        row = []
        for j, theirs in enumerate(audience):
            both = len(mine & theirs)
            if i == j or not both:
                continue
            value = {
                "count": Fraction(both),
                "jaccard": Fraction(both, len(mine | theirs)),
                "cosine": Fraction(both**2, len(mine) * len(theirs)),
            }[measure]
            row.append((value, j))
        rows.append(sorted(row, key=lambda pair: (-pair[0], pair[1]))[:k])
    return rows


# The largest case is left to the comparison of backends: fractions are plain Python.
@pytest.mark.parametrize("case", INTERACTIONS[:-1], ids=ids(INTERACTIONS[:-1]))
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("backend", ["reference", *BACKENDS])
def test_equals_exact_fractions(case: Interactions, measure: str, backend: str):
    user_items = case.make()
    neighbours, scores = cooccurrence_topk(user_items, case.k, measure=measure, backend=backend)
    assert neighbours.shape == scores.shape == (user_items.n_columns, case.k)
    assert (neighbours.dtype, scores.dtype) == (np.int32, np.float32)
    for i, row in enumerate(exact(user_items, case.k, measure)):
        padding = case.k - len(row)
        assert neighbours[i].tolist() == [j for _, j in row] + [-1] * padding
        values = [float(value) ** (0.5 if measure == "cosine" else 1) for value, _ in row]
        # Two roundings apart: a few units in float64, then one to float32.
        np.testing.assert_allclose(scores[i], np.array(values + [0.0] * padding), rtol=2e-7)


@CASES
@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("window", [None, 0, 7, 1000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_reference(case: Interactions, measure: str, window: int | None, backend: str):
    user_items, times = case.make(), case.times()
    options = {"measure": measure, "window": window, "times": times}
    wanted = cooccurrence_topk(user_items, case.k, **options, backend="reference")
    got = cooccurrence_topk(user_items, case.k, **options, backend=backend)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize("measure", MEASURES)
def test_a_window_over_all_times_changes_nothing(measure: str):
    user_items = random_interactions(101, 53, 5)
    times = np.arange(user_items.nnz)
    wide = cooccurrence_topk(user_items, 5, measure=measure, window=user_items.nnz, times=times)
    for got, wanted in zip(wide, cooccurrence_topk(user_items, 5, measure=measure), strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_a_window_counts_users_by_the_time_between_their_touches():
    # User 0 touched 0 and 1 three days apart, user 1 ten days apart.
    user_items = from_rows([[0, 1], [0, 1]], 2)
    times = np.array([0, 3, 20, 10])
    for window, wanted in [(2, 0.0), (3, 1 / 3), (9, 1 / 3), (10, 1.0)]:
        _, scores = cooccurrence_topk(user_items, 1, window=window, times=times)
        assert scores[:, 0].tolist() == pytest.approx([wanted, wanted])


def test_identical_audiences_are_the_strongest_edge():
    neighbours, scores = cooccurrence_topk(from_rows([[0, 1], [0, 1]], 2), 1)
    assert neighbours.tolist() == [[1], [0]]
    assert scores.tolist() == [[1.0], [1.0]]


def test_threads_and_blocks_change_nothing():
    user_items = random_interactions(2001, 507, 8, seed=5)
    wanted = cooccurrence_topk(user_items, 10)
    tight = cpu.working_bytes(507, 10, 1) + 4 * int(np.bincount(user_items.indices).max())
    threads = numba.get_num_threads()
    for n, max_bytes in [(1, 2**24), (threads, 2**24), (threads, tight), (threads, 4 * tight)]:
        numba.set_num_threads(n)
        try:
            got = cooccurrence_topk(user_items, 10, max_bytes=max_bytes)
        finally:
            numba.set_num_threads(threads)
        np.testing.assert_array_equal(got[0], wanted[0])
        np.testing.assert_array_equal(got[1], wanted[1])


def test_a_million_items_need_no_more_than_their_counters_by_default():
    last = 1_100_000 - 1
    neighbours, scores = cooccurrence_topk(from_rows([[0, last], [0, 7, last], [7]], last + 1), 2)
    assert neighbours[[0, 7, last]].tolist() == [[last, 7], [0, last], [0, 7]]
    assert scores[0].tolist() == [1.0, np.float32(1 / 3)]
    assert (neighbours[[1, last - 1]] == -1).all()


def test_every_entry_of_the_output_is_written(monkeypatch: pytest.MonkeyPatch):
    real = np.empty

    def poisoned(shape, dtype=float):
        array = real(shape, dtype)
        array.fill(np.nan if array.dtype.kind == "f" else 2**30)
        return array

    user_items = from_rows([[], [1, 3], [], [3, 5, 6], []], 8)
    wanted = cooccurrence_topk(user_items, 4, backend="reference")
    monkeypatch.setattr(cpu.np, "empty", poisoned)
    got = cooccurrence_topk(user_items, 4)
    np.testing.assert_array_equal(got[0], wanted[0])
    np.testing.assert_array_equal(got[1], wanted[1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be an integer of at least 1; got 0"),
        ({"measure": "dice"}, "measure 'dice' is not one of jaccard, cosine, count"),
        ({"window": 3}, r"window needs times, int64 of shape \(3,\); got nothing"),
        ({"window": 3, "times": np.zeros(2, np.int64)}, r"got int64 of shape \(2,\)"),
        ({"window": 3, "times": np.zeros(3)}, r"got float64 of shape \(3,\)"),
        ({"window": -1, "times": np.zeros(3, np.int64)}, "window must not be negative; got -1"),
        ({"max_bytes": 10}, r"over 2 items needs at least \d+ bytes; max_bytes is 10"),
        ({"backend": "magic"}, "backend 'magic' is not one of auto"),
    ],
)
def test_refusals_name_the_argument(options, message):
    with pytest.raises(KernelInputError, match=message):
        cooccurrence_topk(from_rows([[0, 1], [0]], 2), **{"k": 1, **options})

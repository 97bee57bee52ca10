"""Generated interactions, graphs and splits have the sizes asked for and the tails they claim."""

from __future__ import annotations

import numpy as np
import pytest
from mllmrec_bench.interactions import graph, held_out, interactions, towers

from mllmrec.errors import InputError


def top_share(counts: np.ndarray, share: float) -> float:
    ordered = np.sort(counts)[::-1]
    return float(ordered[: round(share * len(ordered))].sum() / ordered.sum())


def test_the_tails_are_those_of_amazon() -> None:
    made = interactions(19_445, 7_050, 160_792)
    assert made.shape == (19_445, 7_050) and made.nnz == 160_792 and made.data is None
    items = np.bincount(made.indices, minlength=7_050)
    users = np.diff(made.indptr)
    # Amazon Baby: .12 and .46 of the interactions with the top 1 and 10 % of the items, .05 and .25 of the users.
    assert top_share(items, 0.01) == pytest.approx(0.12, abs=0.04)
    assert top_share(items, 0.10) == pytest.approx(0.45, abs=0.06)
    assert top_share(users, 0.01) == pytest.approx(0.05, abs=0.02)
    assert top_share(users, 0.10) == pytest.approx(0.25, abs=0.05)


@pytest.mark.parametrize("size", [(2, 2, 2), (1, 9, 4), (50, 30, 750)])
def test_exactly_as_many_as_asked_for(size: tuple[int, int, int]) -> None:
    assert interactions(*size).nnz == size[2]
    np.testing.assert_array_equal(interactions(*size, seed=3).indices, interactions(*size, seed=3).indices)


def test_more_than_half_of_all_pairs_is_refused() -> None:
    with pytest.raises(InputError, match="cannot draw 51 interactions of 10 users with 10 items; at most half"):
        interactions(10, 10, 51)


def test_a_split_is_disjoint_and_whole() -> None:
    matrix = interactions(200, 100, 2_000)
    kept, held = held_out(matrix, share=0.3)
    both = kept.to_scipy() + held.to_scipy()
    assert both.max() == 1 and (both != matrix.to_scipy()).nnz == 0
    assert held.nnz == pytest.approx(600, abs=80)


def test_a_graph_has_the_edges_asked_for() -> None:
    made = graph(3_000, 20)
    assert 19 < made.nnz / 3_000 <= 20
    assert made.values().min() > 0
    assert np.abs(made.rows() - made.indices).mean() == pytest.approx(1_000, rel=0.1)  # ends lie anywhere


def test_towers_have_their_shapes() -> None:
    users, items = towers(30, 20, 8)
    assert (users.shape, items.shape, users.dtype, items.dtype) == ((30, 8), (20, 8), np.float32, np.float32)

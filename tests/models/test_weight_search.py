"""The search of the ensemble's weights, on surfaces whose hills are known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from mllmrec.models import ensemble_weights as search

Height = Callable[[Sequence[float]], float]


class Surface:
    """A height for each first part, which falls where its own weight is not 1; users differ in it by `spread`."""

    def __init__(self, *heights: Height, spread: float = 0) -> None:
        self._heights, self._spread = heights, spread

    def of(self, first: int, firsts: int) -> Surface:
        assert firsts == len(self._heights)
        return Surface(self._heights[first], spread=self._spread)

    def ndcg(self, weights: Sequence[float], k: int, trials: Sequence[float]) -> list[float]:
        (height,) = self._heights
        points = [[*weights[:k], trial, *weights[k + 1 :]] for trial in trials]
        return [height(point[1:]) - abs(point[0] - 1) for point in points]

    def by_user(self, weights: Sequence[float]) -> np.ndarray:
        """Return four values whose mean is the height, and whose deviation grows with the second part's weight."""
        (height,) = self.ndcg(weights, 0, weights[:1])
        return height + self._spread * weights[1] * np.array([-1, -1, 1, 1])


def hill(top: float, *at: float) -> Height:
    """Return a height that falls by a half for each unit that one weight is away from `at`."""
    return lambda weights: top - sum(abs(weight - best) for weight, best in zip(weights, at, strict=True)) / 2


def higher(one: Height, other: Height) -> Height:
    return lambda weights: max(one(weights), other(weights))


def search_on(*heights: Height) -> tuple[int, tuple[float, ...]]:
    return search._search(Surface(*heights), len(heights), 2)  # type: ignore[arg-type]


def test_another_start_finds_the_hill_that_the_first_one_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    surface = higher(hill(0.5, 0.4, 0.4), hill(1, 2.4, 2.4))
    assert search_on(surface) == (0, (2.4, 2.4))
    monkeypatch.setattr(search, "_MORE_STARTS", ())
    assert search_on(surface) == (0, (0.4, 0.4))


def test_of_equal_hills_the_first_start_keeps_its_own() -> None:
    assert search_on(higher(hill(1, 0.4, 0.4), hill(1, 2.4, 2.4))) == (0, (0.4, 0.4))
    assert search_on(hill(1, 0.8, 0), hill(1, 0, 0.8)) == (0, (0.8, 0))


def test_a_weight_at_the_edge_of_the_grid_climbs_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other weight follows: its best is lower where the first one is higher."""

    def surface(weights: Sequence[float]) -> float:
        return hill(1, 6.4, 1.2 - weights[0] / 8)(weights)

    assert search_on(surface) == (0, (6.4, 0.4))
    monkeypatch.setattr(search, "WIDE_GRID", search.GRID)
    assert search_on(surface) == (0, (3.2, 0.8))


def test_a_gain_within_its_standard_error_leaves_the_weights_as_they_are() -> None:
    """Here the wide grid gains 1.6 in the mean; the users' gains are that and 3.2 spread more or less."""
    for spread, reached in ((0.8, 6.4), (0.9, 3.2)):
        surface = Surface(hill(1, 6.4, 0.4), spread=spread)
        assert search._search(surface, 1, 2) == (0, (reached, 0.4))  # type: ignore[arg-type]


def test_every_climb_is_counted() -> None:
    counts = []
    surface = Surface(hill(1, 0.4, 0.4), hill(2, 0.8, 0.8))
    search._search(surface, 2, 2, lambda *progress: counts.append(progress))  # type: ignore[arg-type]
    assert counts == [("search weights", n, 5) for n in range(1, 6)]

"""Graph health against graphs whose answers can be seen."""

from __future__ import annotations

import numpy as np
import pytest

from mllmrec.audit import GraphHealth, examine_graph, neighbors
from mllmrec.config import GraphConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import MismatchError
from mllmrec.graph.item_graph import build_graph
from mllmrec.report.sections.graph import graph_measures


def histories(users: list[list[int]], n_items: int) -> Histories:
    indptr = np.cumsum([0, *map(len, users)]).astype(np.int64)
    return Histories(indptr, np.array([i for u in users for i in u], np.int32), None, n_items, "train")


def vectors(angles: list[float]) -> np.ndarray:
    """Unit vectors in the plane, degrees."""
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


# Two pairs by vectors (0 1, 2 3), a pair by users (3 4), both (0 1), and 5 alone.
ANGLES, USERS = [0, 10, 90, 100, 200, 300], [[0, 1], [0, 1], [3, 4], [2], [5]]


def examined(mode: str = "fixed", threshold: float = 0.9) -> GraphHealth:
    config = GraphConfig(mode=mode, semantic_neighbors=2, cooccurrence_neighbors=2, threshold=threshold)  # type: ignore[arg-type]
    past = histories(USERS, 6)
    return examine_graph(build_graph(vectors(ANGLES), past, config), vectors(ANGLES), past, threshold=threshold)


def test_every_measure_of_a_graph_small_enough_to_draw() -> None:
    made = examined()
    assert (made.items, made.edges, made.self_loops, made.isolated) == (6, 6, 0, 1)
    assert made.degrees.tolist() == made.in_degrees.tolist() == [1, 1, 1, 2, 1, 0]
    assert made.components.tolist() == [3, 2, 1] and made.largest == 0.5
    assert made.reciprocity == 1
    assert made.sources == pytest.approx({"semantic": 2 / 6, "co-occurrence": 2 / 6, "both": 2 / 6})
    assert made.cosines["both"] == pytest.approx(np.cos(np.radians([10, 10])))
    assert made.cosines["co-occurrence"] == pytest.approx(np.cos(np.radians([100, 100])), abs=1e-6)
    assert sorted(made.shared_users) == [1, 1, 2, 2] and made.with_cooccurrence == 4


def test_a_graph_that_falls_apart_is_warned_of_and_a_whole_one_is_not() -> None:
    assert any("falls apart" in warning and "1 isolated" in warning for warning in examined().warnings)
    ring = histories([[i, (i + 1) % 8] for i in range(8)], 8)
    points = vectors([45 * i for i in range(8)])
    whole = examine_graph(build_graph(points, ring, GraphConfig()), points, ring, threshold=0.6)
    assert whole.components.tolist() == [8] and whole.warnings == []


def test_co_occurrence_that_reaches_few_items_is_warned_of() -> None:
    lonely = histories([[i] for i in range(8)] + [[0, 1]], 8)
    points = vectors([5.0 * i for i in range(8)])
    made = examine_graph(build_graph(points, lonely, GraphConfig()), points, lonely, threshold=0.6)
    assert [warning.split(":")[0] for warning in made.warnings] == ["co-occurrence is too sparse to help"]
    assert "25% of the items" in made.warnings[0]


def test_the_papers_graph_is_directed_and_keeps_its_loops() -> None:
    made = examined(mode="paper")
    assert made.self_loops == 6 and made.reciprocity == 1
    # 1 is nearest to both its neighbours, which prefer each other's other side: one way only.
    points, past = vectors([0, 10, 15, 20]), histories([[0], [1], [2], [3]], 4)
    config = GraphConfig(mode="paper", semantic_neighbors=2, cooccurrence_neighbors=0, threshold=0)
    directed = examine_graph(build_graph(points, past, config), points, past, threshold=0)
    assert directed.degrees.tolist() == [1, 1, 1, 1] and directed.in_degrees.tolist() == [0, 2, 2, 0]
    assert directed.reciprocity == 0.5 and directed.components.tolist() == [4]


def test_nothing_at_all_is_still_a_graph() -> None:
    past, points = histories([[], [], []], 3), np.zeros((3, 2), np.float32)
    config = GraphConfig(semantic_neighbors=0, cooccurrence_neighbors=0)
    made = examine_graph(build_graph(points, past, config), points, past, threshold=0.6)
    assert made.components.tolist() == [1, 1, 1] and made.isolated == 3 and np.isnan(made.reciprocity)
    assert made.as_dict()["reciprocity"] is None and len(graph_measures(made)) > 5
    assert made.cosine_histogram() and made.degree_histogram()


def test_neighbours_of_an_item_say_what_joins_them() -> None:
    past, points = histories(USERS, 6), vectors(ANGLES)
    config = GraphConfig(semantic_neighbors=2, cooccurrence_neighbors=2, threshold=0.9)
    graph = build_graph(points, past, config)
    found = neighbors(graph, points, past, 3, threshold=0.9)
    assert [(edge.item, edge.source, edge.shared_users) for edge in found] == [
        (2, "semantic", 0),
        (4, "co-occurrence", 1),
    ]
    both = neighbors(graph, points, past, 0, threshold=0.9)
    assert [(edge.source, edge.weight) for edge in both] == [("both", 2.0)]
    assert neighbors(graph, points, past, 5, threshold=0.9) == []


def test_a_graph_of_another_split_is_refused(dataset: Dataset, vectors: np.ndarray) -> None:
    graph = build_graph(vectors, dataset.histories("train"), GraphConfig())
    other = histories([[0]], dataset.n_items)
    with pytest.raises(MismatchError, match="other training interactions"):
        examine_graph(graph, vectors, other, threshold=0.6)


def test_the_counts_of_a_real_graph_are_those_of_its_maker(dataset: Dataset, vectors: np.ndarray) -> None:
    past = dataset.histories("train")
    graph = build_graph(vectors, past, GraphConfig(threshold=0.3))
    made, told = examine_graph(graph, vectors, past, threshold=0.3), graph.statistics
    assert (made.edges, made.isolated) == (told.edges, told.isolated)
    shares = {"semantic": told.semantic, "co-occurrence": told.cooccurrence, "both": told.both}
    assert {source: round(share * made.edges) for source, share in made.sources.items()} == shares

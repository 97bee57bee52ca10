"""The item graph of a run: measured, and items among their neighbors, drawn or listed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllmrec.audit.graph import GraphHealth, Neighbor, Source, examine_graph, neighbors
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.report.figures import Plot, histogram
from mllmrec.report.page import Measure
from mllmrec.report.sections.cards import Cards, ItemCard
from mllmrec.runs import Run

_DRAWN, _RING = 2, 8  # items in the middle of a drawing, neighbors around each
_RADIUS = 38  # of the ring, % of the drawing
_MEASURED = 30_000  # edges whose cosine and shared users are looked up; a sample if there are more
_FEWEST = 3  # neighbors of an item that is worth a drawing


@dataclass(frozen=True, slots=True)
class Node:
    """A picture of the drawing: its place in % of width and height, and the edge that leads to it from the middle."""

    item: ItemCard
    x: float
    y: float
    edge: Neighbor | None


@dataclass(frozen=True, slots=True)
class Neighborhood:
    """An item and its heaviest neighbors.

    Attributes:
        nodes: the item itself, then its neighbors, heaviest first.
        links: pairs of neighbors, by place in `nodes`, that an edge joins as well.
        more: neighbors that are not drawn.
    """

    nodes: tuple[Node, ...]
    links: tuple[tuple[int, int], ...]
    more: int


@dataclass(frozen=True, slots=True)
class GraphSection:
    """An item graph: the measures, (measure, value, reading), captions and plots, and the drawings."""

    health: GraphHealth
    measures: Sequence[Measure]
    plots: Sequence[Plot]
    drawn: Sequence[Neighborhood] = ()


def graph_section(run: Run, cards: Cards, *, seed: int) -> GraphSection:
    """Measure and draw the graph of a run whose graph stage is done.

    Args:
        run: the run.
        cards: shows its items.
        seed: of the sampled edges and the drawn items.
    """
    health = measure_graph(run, most=_MEASURED, seed=seed)
    drawn = [_draw(run.graph, cards, item, neighbors_of(run, item)) for item in _chosen(run, health, seed)]
    return GraphSection(health, graph_measures(health), graph_plots(health), drawn)


def measure_graph(run: Run, *, most: int | None = None, seed: int = 0) -> GraphHealth:
    """Measure the graph of a run.

    Args:
        run: the run.
        most: edges whose cosine, source and shared users are looked up; None for all.
        seed: of the sample if there are more.
    """
    threshold = float(run.record["config"]["graph"]["threshold"])
    histories, vectors = run.dataset.histories("train"), run.features.items
    return examine_graph(run.graph, vectors, histories, threshold=threshold, most=most, seed=seed)


def neighbors_of(run: Run, item: int) -> list[Neighbor]:
    """Return the edges that leave an item, heaviest first."""
    threshold = float(run.record["config"]["graph"]["threshold"])
    return neighbors(run.graph, run.features.items, run.dataset.histories("train"), item, threshold=threshold)


def _chosen(run: Run, health: GraphHealth, seed: int) -> list[int]:
    """Return items drawn at random among those with a picture and some neighbors."""
    pictured = run.dataset.items["images"].list.len().fill_null(0).to_numpy() > 0
    worth = (health.degrees >= _FEWEST) & (pictured | ~pictured.any())
    return [int(item) for item in np.random.default_rng(seed).permutation(np.flatnonzero(worth))[:_DRAWN]]


def _draw(graph: ItemGraph, cards: Cards, item: int, edges: list[Neighbor]) -> Neighborhood:
    ring = edges[:_RING]
    nodes = [Node(cards.item(item), 50, 50, None)]
    for n, edge in enumerate(ring):
        angle = 2 * math.pi * n / len(ring) - math.pi / 2
        x, y = (round(50 + _RADIUS * turned(angle), 1) for turned in (math.cos, math.sin))
        nodes.append(Node(cards.item(edge.item), x, y, edge))
    place = {edge.item: n for n, edge in enumerate(ring, start=1)}
    links = {
        (min(n, place[other]), max(n, place[other]))
        for edge, n in ((edge, place[edge.item]) for edge in ring)
        for other in graph.adjacency.row(edge.item).tolist()
        if other in place and other != edge.item
    }
    return Neighborhood(tuple(nodes), tuple(sorted(links)), len(edges) - len(ring))


def graph_measures(health: GraphHealth) -> list[Measure]:
    """Return (measure, value, reading) of each measure."""
    several = int((health.components > 1).sum())
    drawn = f"; of {health.measured:,} edges drawn at random" if health.measured < health.edges else ""
    lone = float((health.shared_users == 1).mean()) if len(health.shared_users) else 0.0
    reciprocity = f"{health.reciprocity:.0%}" if health.edges else "none"
    covered = health.with_cooccurrence / health.items
    return [
        ("items", f"{health.items:,}", f"{health.isolated:,} isolated: they keep their own vector"),
        ("edges", f"{health.edges:,}", f"entries of A off its diagonal; {health.self_loops:,} self-loops on it"),
        ("degree, mean / median / most", _degree(health.degrees), "edges that leave an item"),
        ("in-degree, mean / median / most", _degree(health.in_degrees), "edges that enter an item"),
        ("components", f"{several:,}", f"of two items or more; the largest holds {health.largest:.1%} of the items"),
        ("reciprocity", reciprocity, "edges whose reverse is there; 100% if symmetric"),
        *(
            (f"share {source}", f"{share:.1%}", f"{_reading(source)}{drawn}")
            for source, share in health.sources.items()
        ),
        ("items with co-occurrence", f"{covered:.0%}", "the others have semantic edges or none"),
        ("edges of one shared user", f"{lone:.0%}", f"of the co-occurrence edges: weak evidence{drawn}"),
    ]


def _degree(degrees: np.ndarray) -> str:
    return f"{degrees.mean():.1f} / {np.median(degrees):g} / {degrees.max():,}"


def _reading(source: Source) -> str:
    if source == "both":
        return "by vectors and by shared training users"
    return "by vectors alone" if source == "semantic" else "by shared training users alone"


def graph_plots(health: GraphHealth) -> list[Plot]:
    """Draw degrees, similarities and component sizes."""
    degrees = {"edges out": health.degrees, "edges in": health.in_degrees}
    if np.array_equal(health.degrees, health.in_degrees):
        degrees = {"": health.degrees}
    most = int(max(degree.max() for degree in degrees.values()))
    step = max(1, most // 40)
    cosines = {str(source): values for source, values in health.cosines.items() if len(values)}
    return [
        (
            "Degrees: the number of an item's neighbors.",
            histogram(
                degrees,
                xlabel="degree, edges",
                ylabel="items",
                name="degrees",
                bins=list(np.arange(0, most + step + 1, step) - 0.5),
            ),
        ),
        (
            "Similarity of the items that edges join, by the source of the edge.",
            histogram(cosines, xlabel="cosine of the two items' vectors", ylabel="edges", name="similarity", bins=40),
        ),
        (
            "Component sizes: propagation needs one large one.",
            histogram(
                {"": health.components},
                xlabel="size of a component, items",
                ylabel="components",
                name="components",
                bins=[0.7 * 2**n for n in range(int(np.log2(health.items)) + 3)],
                log=True,
            ),
        ),
    ]

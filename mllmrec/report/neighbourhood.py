"""The item graph: measured, and a few items drawn among their neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mllmrec.audit.graph import GraphHealth, Neighbour, examine_graph, neighbours
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.report.graph_page import graph_plots
from mllmrec.report.people import Shelf
from mllmrec.report.profile_page import ItemShown
from mllmrec.views import RunView

_DRAWN, _RING = 2, 8  # items in the middle of a drawing, neighbours around each
_RADIUS = 38  # of the ring, % of the drawing
_MEASURED = 30_000  # edges whose cosine and shared users are looked up; a sample where there are more
_FEWEST = 3  # neighbours of an item that is worth a drawing


@dataclass(frozen=True, slots=True)
class Node:
    """A picture of the drawing: its place in % of width and height, and the edge that leads to it from the middle."""

    item: ItemShown
    x: float
    y: float
    edge: Neighbour | None


@dataclass(frozen=True, slots=True)
class Neighbourhood:
    """An item and its heaviest neighbours.

    Attributes:
        nodes: the item itself, then its neighbours, heaviest first.
        links: pairs of neighbours, by place in `nodes`, that an edge joins as well.
        more: neighbours that are not drawn.
    """

    nodes: tuple[Node, ...]
    links: tuple[tuple[int, int], ...]
    more: int


@dataclass(frozen=True, slots=True)
class GraphSection:
    """The section: what is measured, caption and plot, the drawings."""

    health: GraphHealth
    plots: Sequence[tuple[str, object]]
    drawn: Sequence[Neighbourhood]


def graph_section(view: RunView, shelf: Shelf, *, seed: int) -> GraphSection:
    """Measure and draw the graph of a run whose graph stage is done."""
    graph, histories, vectors = view.graph, view.dataset.histories("train"), view.features.items
    threshold = float(view.record["config"]["graph"]["threshold"])
    health = examine_graph(graph, vectors, histories, threshold=threshold, most=_MEASURED, seed=seed)
    drawn = []
    for item in _chosen(view, health, seed):
        edges = neighbours(graph, vectors, histories, item, threshold=threshold)
        drawn.append(_draw(view, shelf, graph, item, edges))
    return GraphSection(health, graph_plots(health), drawn)


def _chosen(view: RunView, health: GraphHealth, seed: int) -> list[int]:
    """Items drawn at random among those with a picture and some neighbours."""
    pictured = view.dataset.items["images"].list.len().fill_null(0).to_numpy() > 0
    worth = (health.degrees >= _FEWEST) & (pictured | ~pictured.any())
    return [int(item) for item in np.random.default_rng(seed).permutation(np.flatnonzero(worth))[:_DRAWN]]


def _draw(view: RunView, shelf: Shelf, graph: ItemGraph, item: int, edges: list[Neighbour]) -> Neighbourhood:
    ring = edges[:_RING]
    nodes = [Node(shelf.item(view, item), 50, 50, None)]
    for n, edge in enumerate(ring):
        angle = 2 * math.pi * n / len(ring) - math.pi / 2
        x, y = (round(50 + _RADIUS * turned(angle), 1) for turned in (math.cos, math.sin))
        nodes.append(Node(shelf.item(view, edge.item), x, y, edge))
    place = {edge.item: n for n, edge in enumerate(ring, start=1)}
    links = {
        (min(n, place[other]), max(n, place[other]))
        for edge, n in ((edge, place[edge.item]) for edge in ring)
        for other in graph.adjacency.row(edge.item).tolist()
        if other in place and other != edge.item
    }
    return Neighbourhood(tuple(nodes), tuple(sorted(links)), len(edges) - len(ring))

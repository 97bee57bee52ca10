"""Measure an item graph: its connectivity, and the sources of its edges.

Edges are the off-diagonal entries of A. In a symmetric graph each edge has two entries, in a directed one
(graph.mode = "paper") only some have. The source of an edge is read from its weight (docs/method.md): 1 is
semantic, 1 + J both, J below 1 co-occurrence; a weight of exactly 1 below the threshold is a Jaccard of 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from mllmrec.dataset import Histories
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.graph.item_graph import ItemGraph

Source = Literal["semantic", "co-occurrence", "both"]
SOURCES: tuple[Source, ...] = ("semantic", "co-occurrence", "both")

APART = 0.8  # the least share of the items that the largest component should hold
_SPARSE = 0.5  # the least share of the items that should have a co-occurrence edge
_ROUNDING = 1e-5  # float32 rounding of a cosine at the threshold
_BINS = 10  # of a histogram in a terminal
_BLOCK = 1 << 15  # edges whose vectors are gathered at once


@dataclass(frozen=True, slots=True)
class GraphHealth:
    """Measures of an item graph.

    Attributes:
        items: I.
        edges: off-diagonal entries of A.
        self_loops: entries on its diagonal.
        degrees: int64 [I] off-diagonal entries per row.
        in_degrees: int64 [I] off-diagonal entries per column; the same in a symmetric graph.
        components: sizes of the weakly connected components, largest first; isolated items are components of 1.
        isolated: items without any edge, in or out.
        reciprocity: share of the entries whose reverse is there as well; 1 in a symmetric graph, NaN without edges.
        measured: entries behind the next three: all, or a seeded sample.
        sources: share of the measured entries from each source.
        cosines: float32 by source, one a measured entry.
        shared_users: int64, one a measured co-occurrence entry ("both" included): training users of both ends.
        with_cooccurrence: items with a co-occurrence edge.
    """

    items: int
    edges: int
    self_loops: int
    degrees: NDArray[np.int64]
    in_degrees: NDArray[np.int64]
    components: NDArray[np.int64]
    isolated: int
    reciprocity: float
    measured: int
    sources: dict[Source, float]
    cosines: dict[Source, NDArray[np.float32]]
    shared_users: NDArray[np.int64]
    with_cooccurrence: int

    @property
    def largest(self) -> float:
        """Return the share of the items in the largest component."""
        return float(self.components[0] / self.items)

    @property
    def warnings(self) -> list[str]:
        """Return one line for each reason not to propagate over this graph."""
        lines = []
        if self.largest < APART:
            lines.append(
                f"the graph falls apart: its largest component holds {self.largest:.0%} of the items, and there are "
                f"{len(self.components):,} components ({self.isolated:,} isolated items); lower graph.threshold, or "
                "raise graph.semantic_neighbors"
            )
        if self.with_cooccurrence < _SPARSE * self.items:
            lines.append(
                f"co-occurrence is too sparse to help: {self.with_cooccurrence / self.items:.0%} of the items share a "
                "training user with another item; the graph rests on item vectors alone"
            )
        return lines

    def degree_histogram(self) -> list[tuple[int, int]]:
        """Return (lowest degree, items) of a histogram of the degrees."""
        edges = np.unique(np.linspace(0, self.degrees.max() + 1, _BINS + 1).astype(np.int64))
        counts, _ = np.histogram(self.degrees, edges)
        return [(int(edge), int(count)) for edge, count in zip(edges[:-1], counts, strict=True)]

    def cosine_histogram(self) -> list[tuple[float, dict[Source, int]]]:
        """Return (lowest cosine, edges by source) of a histogram of the edges' similarities."""
        everything = np.concatenate(list(self.cosines.values()))
        edges = np.histogram_bin_edges(everything if len(everything) else np.zeros(1), bins=_BINS)
        counts = {source: np.histogram(values, edges)[0] for source, values in self.cosines.items()}
        return [(float(edge), {s: int(counts[s][n]) for s in SOURCES}) for n, edge in enumerate(edges[:-1])]

    def as_dict(self) -> dict[str, Any]:
        """Return the measures and histograms JSON-like: degrees and sizes as {value: count}."""
        return {
            "items": self.items,
            "edges": self.edges,
            "self_loops": self.self_loops,
            "isolated": self.isolated,
            "components": len(self.components),
            "largest_component": self.largest,
            "reciprocity": self.reciprocity if self.edges else None,
            "measured": self.measured,
            "sources": self.sources,
            "with_cooccurrence": self.with_cooccurrence,
            "degrees": _counts(self.degrees),
            "in_degrees": _counts(self.in_degrees),
            "component_sizes": _counts(self.components),
            "shared_users": _counts(self.shared_users),
            "mean_cosine": {source: float(values.mean()) for source, values in self.cosines.items() if len(values)},
            "warnings": self.warnings,
        }


def _counts(values: NDArray[np.int64]) -> dict[str, int]:
    distinct, counts = np.unique(values, return_counts=True)
    return {str(value): int(count) for value, count in zip(distinct, counts, strict=True)}


def examine_graph(
    graph: ItemGraph,
    vectors: Vectors,
    histories: Histories,
    *,
    threshold: float,
    most: int | None = None,
    seed: int = 0,
) -> GraphHealth:
    """Measure a graph.

    Args:
        graph: to measure.
        vectors: float32 [I, d], the unit item vectors it was made from.
        histories: the training histories it was made from.
        threshold: `graph.threshold`.
        most: entries whose cosine, source and shared users are looked up; a sample if there are more; None: all.
        seed: of that sample.

    Raises:
        MismatchError: the graph was made from other histories.
        InputError: there are no items.
    """
    graph.check(histories)
    if histories.n_items == 0:
        raise InputError("the graph has no items to look at")
    rows, columns, weights = _entries(graph.adjacency)
    pattern = sp.csr_array((np.ones(len(rows), np.int8), (rows, columns)), shape=graph.adjacency.shape)
    _, component = connected_components(pattern, directed=True, connection="weak")
    at = _sample(len(rows), most, seed)
    cosines = _cosines(vectors, rows[at], columns[at])
    kinds = _kinds(weights[at], cosines, threshold)
    shares = [float((kinds == n).mean()) if len(kinds) else 0.0 for n in range(len(SOURCES))]
    out, into = (np.bincount(side, minlength=histories.n_items) for side in (rows, columns))
    reverse = pattern.multiply(pattern.T).nnz
    by_cooccurrence = at[kinds != SOURCES.index("semantic")]
    by_users = np.zeros(histories.n_items, bool)
    for chosen in (weights != 1, by_cooccurrence):  # a weight of 1 is a co-occurrence in few of the measured entries
        by_users[rows[chosen]] = by_users[columns[chosen]] = True
    return GraphHealth(
        items=histories.n_items,
        edges=len(rows),
        self_loops=graph.adjacency.nnz - len(rows),
        degrees=out,
        in_degrees=into,
        components=-np.sort(-np.bincount(component)),
        isolated=int(((out + into) == 0).sum()),
        reciprocity=reverse / len(rows) if len(rows) else float("nan"),
        measured=len(at),
        sources=dict(zip(SOURCES, shares, strict=True)),
        cosines={source: cosines[kinds == n] for n, source in enumerate(SOURCES)},
        shared_users=_shared(histories.user_items(), rows[by_cooccurrence], columns[by_cooccurrence]),
        with_cooccurrence=int(by_users.sum()),
    )


def _sample(n: int, most: int | None, seed: int) -> NDArray[np.int64]:
    """Return the measured ones of n entries, ascending."""
    if most is None or n <= most:
        return np.arange(n)
    return np.sort(np.random.default_rng(seed).choice(n, most, replace=False))


@dataclass(frozen=True, slots=True)
class Neighbor:
    """One edge of a named item.

    Attributes:
        item: index of the other end.
        weight: the entry of A.
        cosine: of the two items' vectors.
        shared_users: training users of both.
        source: of the edge.
    """

    item: int
    weight: float
    cosine: float
    shared_users: int
    source: Source


def neighbors(
    graph: ItemGraph, vectors: Vectors, histories: Histories, item: int, *, threshold: float
) -> list[Neighbor]:
    """Return the edges that leave an item, heaviest first, equally heavy ones by cosine.

    Args:
        graph: to read.
        vectors: float32 [I, d], the unit item vectors it was made from.
        histories: the training histories it was made from.
        item: index of the item.
        threshold: `graph.threshold`.
    """
    at = slice(graph.adjacency.indptr[item], graph.adjacency.indptr[item + 1])
    others, weights = graph.adjacency.indices[at], graph.adjacency.values()[at]
    others, weights = others[others != item], weights[others != item]
    here = np.full(len(others), item)
    cosines = _cosines(vectors, here, others)
    kinds = _kinds(weights, cosines, threshold)
    shared = _shared(histories.user_items(), here, others)
    edges = [
        Neighbor(int(o), float(w), float(c), int(s), SOURCES[k])
        for o, w, c, s, k in zip(others, weights, cosines, shared, kinds, strict=True)
    ]
    return sorted(edges, key=lambda edge: (-edge.weight, -edge.cosine, edge.item))


def _entries(adjacency: CSR) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    rows = adjacency.rows()
    off = rows != adjacency.indices
    return rows[off], adjacency.indices[off], adjacency.values()[off]


def _cosines(vectors: Vectors, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.float32]:
    cosines = np.empty(len(rows), np.float32)
    for start in range(0, len(rows), _BLOCK):
        at = slice(start, start + _BLOCK)
        cosines[at] = np.einsum("nd,nd->n", vectors[rows[at]], vectors[columns[at]])
    return cosines


def _kinds(weights: NDArray[np.float32], cosines: NDArray[np.float32], threshold: float) -> NDArray[np.int64]:
    """Return the index in SOURCES of each entry."""
    twins = (weights == 1) & (cosines < threshold - _ROUNDING)
    kinds = np.where(weights > 1, SOURCES.index("both"), SOURCES.index("semantic"))
    return np.where((weights < 1) | twins, SOURCES.index("co-occurrence"), kinds)


def _shared(user_items: CSR, rows: NDArray[np.integer], columns: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the number of users of both ends of each entry."""
    item_users = user_items.transpose().to_scipy()
    shared = np.zeros(len(rows), np.int64)
    for start in range(0, len(rows), _BLOCK):
        at = slice(start, start + _BLOCK)
        both = item_users[rows[at]].multiply(item_users[columns[at]])
        shared[at] = np.asarray(both.sum(axis=1)).ravel().round()
    return shared

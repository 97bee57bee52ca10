"""Lists of a grown table: the bits of a search from scratch, however the table grew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mllmrec.config import GraphConfig
from mllmrec.dataset import Histories
from mllmrec.graph import neighbors
from mllmrec.graph.item_graph import EarlierGraph, ItemGraph, build_graph
from mllmrec.graph.neighbors import grow_lists

CPU, K = torch.device("cpu"), 5


def table(n: int, seed: int = 0) -> np.ndarray:
    """Unit rows near few centers, with twins, ties and a row of zeros."""
    draw = np.random.default_rng(seed)
    rows = draw.standard_normal((7, 12))[draw.integers(0, 7, n)] + 0.4 * draw.standard_normal((n, 12))
    unit = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    unit[5:9] = unit[4]
    unit[n // 2] = 0
    unit[-3:] = unit[4]  # new twins of an old row tie with it
    return unit


@pytest.mark.parametrize("threshold", [None, 0.6, 0.99])
@pytest.mark.parametrize("before", [200, 150, 40])
@pytest.mark.parametrize("changed", [0, 1, 12])
def test_the_lists_are_those_of_a_search_from_scratch(threshold: float | None, before: int, changed: int) -> None:
    now = table(200)
    earlier = now[:before].copy()
    rows = np.random.default_rng(1).choice(before, changed, replace=False)
    earlier[rows] = np.roll(earlier, 1, axis=0)[rows]
    lists = neighbors.by_vectors(np.ascontiguousarray(earlier), K, CPU, threshold=threshold)
    mask = np.ones(200, bool)
    mask[:before] = (now[:before] != earlier).any(axis=1)
    grown = grow_lists(now, lists, mask, K, CPU, threshold)
    for ours, scratch in zip(grown, neighbors.by_vectors(now, K, CPU, threshold=threshold), strict=True):
        np.testing.assert_array_equal(ours, scratch)


def histories(n_items: int, seed: int) -> Histories:
    draw = np.random.default_rng(seed)
    rows = [np.sort(draw.choice(n_items, 6, replace=False)) for _ in range(90)]
    indptr = np.arange(0, 6 * 91, 6, dtype=np.int64)
    return Histories(indptr, np.concatenate(rows).astype(np.int32), None, n_items, "train")


@pytest.mark.parametrize("mode", ["fixed", "paper"])
def test_a_graph_that_goes_on_is_the_graph_from_scratch(mode: str) -> None:
    config, now = GraphConfig(mode=mode, threshold=0.3), table(120)
    before = build_graph(now[:110].copy(), histories(110, 1), config)
    scratch = build_graph(now, histories(120, 2), config)
    grown = build_graph(now, histories(120, 2), config, earlier=EarlierGraph(before, now[:110].copy()))
    assert grown.digest == scratch.digest and grown.statistics == scratch.statistics
    np.testing.assert_array_equal(grown.adjacency.values(), scratch.adjacency.values())
    assert (grown.lists is None) == (mode == "paper")


def test_lists_are_kept_with_the_graph(tmp_path: Path) -> None:

    folder = tmp_path
    graph = build_graph(table(60), histories(60, 1), GraphConfig())
    assert graph.save(lambda name: folder / name) == ["graph.safetensors", "graph.json", "lists.safetensors"]
    again = ItemGraph.load(lambda name: folder / name)
    assert graph.lists is not None and again.lists is not None
    for ours, read in zip(graph.lists, again.lists, strict=True):
        np.testing.assert_array_equal(ours, read)

"""The item graph against a dense float64 reference of the method's equations, quirks and ties included."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mllmrec.config import GraphConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import ConfigError, InputError, LeakError, MismatchError
from mllmrec.graph import neighbors as nearest
from mllmrec.graph.item_graph import ItemGraph, build_graph


def histories(rows: list[list[int]], n_items: int) -> Histories:
    indptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return Histories(indptr, np.array([i for row in rows for i in row], np.int32), None, n_items, "train")


def random_case(seed: int, n_users: int = 40, n_items: int = 30) -> tuple[np.ndarray, Histories]:
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((n_items, 4)).astype(np.float32)
    vectors[7] = vectors[3]  # exact duplicates push each other, and themselves, out of small lists
    vectors[11] = vectors[3]
    rows = [sorted(generator.choice(n_items - 6, size=generator.integers(1, 6), replace=False)) for _ in range(n_users)]
    # Items n-5 and n-4 have one same audience of two users; n-3 and n-2 one same single user; n-1 has nobody.
    rows[0] += [n_items - 5, n_items - 4]
    rows[1] += [n_items - 5, n_items - 4]
    rows[2] += [n_items - 3, n_items - 2]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), histories(rows, n_items)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Mask of each row's k highest, ties to the lower index."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    mask = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask


def paper_reference(vectors: np.ndarray, seen: Histories, config: GraphConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return A and normalized A by the equations of the public code, its defects included, dense."""
    cosine = (vectors.astype(np.float64) @ vectors.astype(np.float64).T).astype(np.float32)
    semantic = top(cosine, config.semantic_neighbors) & (cosine >= np.float32(config.threshold))
    dense = seen.user_items().to_scipy().toarray()
    shared = (dense.T @ dense).astype(np.float32)
    degree = np.diag(shared)
    union = degree[:, None] + degree[None, :] - shared
    jaccard = (shared / (union + np.float32(1e-7))).astype(np.float32)
    jaccard[jaccard == 1] = 0
    kept = np.where(top(jaccard, config.cooccurrence_neighbors), jaccard, 0)
    adjacency = semantic + kept.astype(np.float64)
    rows = adjacency.sum(1)
    scale = np.divide(1, np.sqrt(rows), out=np.zeros_like(rows), where=rows > 0)
    return adjacency, scale[:, None] * adjacency * scale[None, :]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("k_s", "k_c"), [(4, 3), (1, 1), (2, 29), (40, 5)])
def test_paper_mode_equals_the_dense_equations(seed: int, k_s: int, k_c: int) -> None:
    vectors, seen = random_case(seed)
    config = GraphConfig(mode="paper", semantic_neighbors=k_s, cooccurrence_neighbors=k_c, threshold=0.3)
    graph = build_graph(vectors, seen, config)
    adjacency, normalised = paper_reference(vectors, seen, config)
    np.testing.assert_allclose(graph.adjacency.to_scipy().toarray(), adjacency, rtol=1e-6)
    np.testing.assert_allclose(graph.normalized.to_scipy().toarray(), normalised, rtol=1e-6)


def test_paper_mode_deletes_equal_audiences_and_keeps_lone_ones() -> None:
    vectors, seen = random_case(0)
    n = seen.n_items
    config = GraphConfig(mode="paper", semantic_neighbors=1, cooccurrence_neighbors=5, threshold=1)
    dense = build_graph(vectors, seen, config).adjacency.to_scipy().toarray()
    assert dense[n - 5, n - 4] == 0
    assert dense[n - 3, n - 2] == pytest.approx(1, abs=1e-6)
    assert dense[n - 3, n - 3] > 1.5  # the semantic self-loop and the Jaccard one


def test_fixed_mode_is_symmetric_without_self_loops_and_bounded() -> None:
    vectors, seen = random_case(1)
    graph = build_graph(vectors, seen, GraphConfig(threshold=0.2, semantic_neighbors=3, cooccurrence_neighbors=3))
    dense = graph.normalized.to_scipy().toarray()
    assert (np.diag(dense) == 0).all()
    np.testing.assert_array_equal(dense, dense.T)
    assert np.abs(np.linalg.eigvalsh(dense)).max() <= 1 + 1e-6
    assert dense[3, 7] > 0  # a duplicate is a neighbour like any other


def test_items_without_edges_keep_an_empty_row() -> None:
    vectors, seen = random_case(2)
    graph = build_graph(vectors, seen, GraphConfig(threshold=1, semantic_neighbors=0, cooccurrence_neighbors=3))
    assert graph.adjacency.row(seen.n_items - 1).size == 0
    assert graph.statistics.isolated >= 1
    empty = build_graph(vectors, seen, GraphConfig(semantic_neighbors=0, cooccurrence_neighbors=0))
    assert empty.adjacency.nnz == 0


def test_more_neighbours_than_items_is_a_whole_graph() -> None:
    vectors, seen = random_case(3)
    graph = build_graph(vectors, seen, GraphConfig(threshold=-1, semantic_neighbors=999, cooccurrence_neighbors=999))
    assert graph.adjacency.nnz == seen.n_items * (seen.n_items - 1)


def test_a_window_counts_the_users_who_touched_both_within_it() -> None:
    generator = np.random.default_rng(6)
    vectors, seen = random_case(6)
    timed = replace(seen, times=generator.integers(0, 100, len(seen.items)))
    config = GraphConfig(semantic_neighbors=0, cooccurrence_neighbors=30, window=20)
    found = build_graph(vectors, timed, config).adjacency.to_scipy().toarray()
    degree, close = np.zeros(seen.n_items), np.zeros(found.shape)
    for user in range(seen.n_users):
        at = slice(seen.indptr[user], seen.indptr[user + 1])
        items, times = timed.items[at], timed.times[at]
        degree[items] += 1
        close[np.ix_(items, items)] += np.abs(times[:, None] - times) <= 20
    union = degree[:, None] + degree - close
    wanted = np.divide(close, union, out=np.zeros_like(close), where=union > 0) * (1 - np.eye(len(close)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    whole = build_graph(vectors, timed, config.model_copy(update={"window": 0})).adjacency
    assert 0 < (found > 0).sum() < whole.nnz
    with pytest.raises(InputError, match="graph.window needs the time of every training interaction"):
        build_graph(vectors, seen, config)


def test_held_out_histories_are_refused(dataset: Dataset, vectors: np.ndarray) -> None:
    with pytest.raises(LeakError, match="the item graph may be built from training interactions only"):
        build_graph(vectors, dataset.histories("all"), GraphConfig())


@pytest.mark.parametrize(("mode", "searches"), [("fixed", 2), ("paper", 4)])
def test_lists_that_a_model_reads_as_well_are_searched_once(
    mode: str, searches: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors, seen = random_case(5)
    config, R = GraphConfig(mode=mode, threshold=0.2, semantic_neighbors=4, cooccurrence_neighbors=3), seen.user_items()
    alone, counted = build_graph(vectors, seen, config), []
    wanted = nearest.by_vectors(vectors, 12, None), nearest.by_users(R, 9, None)
    for name in ("by_vectors", "by_users"):
        search = getattr(nearest, name)
        monkeypatch.setattr(nearest, name, lambda *a, search=search, **kw: counted.append(1) or search(*a, **kw))
    wide = nearest.WideLists(12, 9)
    assert build_graph(vectors, seen, config, wide=wide).digest == alone.digest
    found = wide.of_vectors(vectors, 12, None), wide.of_users(R, 9, None)
    for (ids, scores), (expected_ids, expected) in zip(found, wanted, strict=True):
        assert np.array_equal(ids, expected_ids) and scores.tobytes() == expected.tobytes()
    assert len(counted) == searches
    wide.forget()
    wide.of_users(R, 2, None)
    assert len(counted) == searches + 1


def test_a_graph_of_another_split_is_refused(dataset: Dataset, vectors: np.ndarray) -> None:
    seen = dataset.histories()
    graph = build_graph(vectors, seen, GraphConfig())
    other = replace(seen, items=np.roll(seen.items, 1))
    with pytest.raises(MismatchError, match="other training interactions"):
        graph.check(other)


def test_a_graph_comes_back_from_disk_as_it_was(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    graph = build_graph(vectors, dataset.histories(), GraphConfig())
    graph.save(lambda name: tmp_path / name)
    again = ItemGraph.load(lambda name: tmp_path / name)
    assert again.statistics == graph.statistics
    np.testing.assert_array_equal(again.normalized.to_scipy().toarray(), graph.normalized.to_scipy().toarray())


def test_nothing_of_size_items_by_items_is_held() -> None:
    n = 6000
    generator = np.random.default_rng(0)
    rows = [list(generator.choice(n, size=5, replace=False)) for _ in range(2000)]
    vectors = generator.standard_normal((n, 16)).astype(np.float32)
    build_graph(vectors[:100], histories([[0, 1]], 100), GraphConfig())  # compiles
    tracemalloc.start()
    build_graph(vectors, histories(rows, n), GraphConfig())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * n * 4 * 0.75


def test_a_gpu_that_is_not_there_is_refused_in_a_line(dataset: Dataset, vectors: np.ndarray, monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"graph\.device=cuda wants a GPU, and torch sees none here"):
        build_graph(vectors, dataset.histories(), GraphConfig(device="cuda"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["fixed", "paper"])
def test_a_gpu_builds_the_same_graph_to_the_bit(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "_PAYS", 0)
    generator = np.random.default_rng(5)
    n, rows = 500, [sorted(generator.choice(500, 12, replace=False).tolist()) for _ in range(300)]
    vectors, seen = generator.standard_normal((n, 24)).astype(np.float32), histories(rows, n)
    made = [build_graph(vectors, seen, GraphConfig(mode=mode, threshold=0.1, device=d)) for d in ("cuda", "cpu")]
    arrays = ([graph.adjacency.indices, graph.adjacency.values(), graph.normalized.values()] for graph in made)
    for one, other in zip(*arrays, strict=True):
        np.testing.assert_array_equal(one, other)

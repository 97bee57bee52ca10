"""Each kernel beside the peer that a user would otherwise pick, in one process: `make bench`.

Only the ratio of two rows of one group means anything; machines differ, and are busy.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from mllmrec_kernels import CSR, cooccurrence_topk, normalise, propagate, rank_heldout, topk_cosine
from pytest_benchmark.fixture import BenchmarkFixture

ITEMS, USERS, WIDTH, K = 7_050, 19_445, 384, 10  # the sizes of Amazon Baby and all-MiniLM-L6-v2
ROUNDS = {"rounds": 5, "warmup_rounds": 1, "iterations": 1}


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    """Unit rows in clusters, with the falling spectrum that embeddings have; float32 [ITEMS, WIDTH]."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((300, WIDTH))
    rows = centres[generator.integers(300, size=ITEMS)] + 0.7 * generator.standard_normal((ITEMS, WIDTH))
    rows *= 1 / np.sqrt(1 + np.arange(WIDTH))
    return np.ascontiguousarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.fixture(scope="module")
def user_items() -> CSR:
    """118,000 interactions with a long tail of popularity."""
    generator = np.random.default_rng(1)
    weights = 1 / (10 + np.arange(ITEMS))
    items = generator.choice(ITEMS, size=118_000, p=weights / weights.sum())
    return CSR.from_pairs(generator.integers(USERS, size=118_000), items, (USERS, ITEMS))


@pytest.mark.benchmark(group="topk_cosine")
@pytest.mark.parametrize("threshold", [None, 0.7])
def test_topk_cosine(benchmark: BenchmarkFixture, vectors: np.ndarray, threshold: float | None) -> None:
    ids, _ = benchmark.pedantic(topk_cosine, (vectors, K), {"threshold": threshold}, **ROUNDS)
    assert ids.shape == (ITEMS, K)


@pytest.mark.benchmark(group="topk_cosine")
def test_topk_cosine_faiss(benchmark: BenchmarkFixture, vectors: np.ndarray) -> None:
    faiss = pytest.importorskip("faiss")
    index = faiss.IndexFlatIP(WIDTH)
    index.add(vectors)
    scores, _ = benchmark.pedantic(index.search, (vectors, K + 1), **ROUNDS)
    assert scores.shape == (ITEMS, K + 1)


@pytest.mark.benchmark(group="cooccurrence_topk")
def test_cooccurrence_topk(benchmark: BenchmarkFixture, user_items: CSR) -> None:
    ids, _ = benchmark.pedantic(cooccurrence_topk, (user_items, K), **ROUNDS)
    assert ids.shape == (ITEMS, K)


@pytest.mark.benchmark(group="cooccurrence_topk")
def test_cooccurrence_topk_scipy(benchmark: BenchmarkFixture, user_items: CSR) -> None:
    dense_rows = user_items.to_scipy()

    def stock() -> np.ndarray:
        shared = (dense_rows.T @ dense_rows).tocsr()
        degree = shared.diagonal()
        rows = np.repeat(np.arange(ITEMS), np.diff(shared.indptr))
        shared.data /= degree[rows] + degree[shared.indices] - shared.data
        shared.setdiag(0)
        best = np.full((ITEMS, K), -1)
        for item in range(ITEMS):
            row = slice(shared.indptr[item], shared.indptr[item + 1])
            order = np.argsort(-shared.data[row], kind="stable")[:K]
            best[item, : len(order)] = shared.indices[row][order]
        return best

    assert benchmark.pedantic(stock, **ROUNDS).shape == (ITEMS, K)


@pytest.fixture(scope="module")
def graph(vectors: np.ndarray) -> CSR:
    ids, _ = topk_cosine(vectors, 20)
    rows = np.repeat(np.arange(ITEMS), 20)
    return CSR.from_scipy(sp.csr_array((np.ones(rows.size, np.float32), (rows, ids.ravel())), shape=(ITEMS, ITEMS)))


@pytest.mark.benchmark(group="normalise + 2 layers + sum")
def test_propagate(benchmark: BenchmarkFixture, graph: CSR, vectors: np.ndarray) -> None:
    made = benchmark.pedantic(lambda: propagate(normalise(graph), vectors, layers=2), **ROUNDS)
    assert made.shape == vectors.shape


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
@pytest.mark.benchmark(group="normalise + 2 layers + sum")
def test_propagate_torch_csr(benchmark: BenchmarkFixture, graph: CSR, vectors: np.ndarray) -> None:
    torch.sparse.check_sparse_tensor_invariants.disable()  # explicitly: the peer is timed without its checks
    features = torch.from_numpy(vectors)
    indptr, indices = torch.from_numpy(graph.indptr.astype(np.int32)), torch.from_numpy(graph.indices)

    def stock() -> torch.Tensor:
        weights = torch.from_numpy(graph.values())
        counts = torch.from_numpy(np.diff(graph.indptr))
        rows = torch.repeat_interleave(torch.arange(ITEMS), counts)
        scale = torch.zeros(ITEMS).index_add_(0, rows, weights).rsqrt()
        matrix = torch.sparse_csr_tensor(indptr, indices, scale[rows] * weights * scale[graph.indices], (ITEMS, ITEMS))
        first = matrix @ features
        return features + first + matrix @ first

    assert benchmark.pedantic(stock, **ROUNDS).shape == vectors.shape


@pytest.fixture(scope="module")
def towers() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(2)
    return tuple(generator.standard_normal((n, 64)).astype(np.float32) for n in (USERS, ITEMS))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def heldout(user_items: CSR) -> CSR:
    generator = np.random.default_rng(3)
    seen = user_items.to_scipy()
    drawn = generator.integers(ITEMS, size=USERS)
    free = np.asarray(seen[np.arange(USERS), drawn]).ravel() == 0
    return CSR.from_pairs(np.flatnonzero(free), drawn[free], (USERS, ITEMS))


@pytest.mark.benchmark(group="full-ranking evaluation")
def test_rank_heldout(benchmark: BenchmarkFixture, towers: tuple, user_items: CSR, heldout: CSR) -> None:
    ranks = benchmark.pedantic(rank_heldout, (*towers, user_items, heldout), **ROUNDS)
    assert len(ranks) == heldout.nnz


@pytest.mark.benchmark(group="full-ranking evaluation")
def test_rank_heldout_torch_chunks(benchmark: BenchmarkFixture, towers: tuple, user_items: CSR) -> None:
    users, items = map(torch.from_numpy, towers)
    rows = torch.from_numpy(user_items.rows())
    columns = torch.from_numpy(user_items.indices.astype(np.int64))

    def stock() -> torch.Tensor:
        best = []
        for start in range(0, USERS, 4096):
            scores = users[start : start + 4096] @ items.T
            own = slice(int(user_items.indptr[start]), int(user_items.indptr[min(start + 4096, USERS)]))
            scores[rows[own] - start, columns[own]] = -1e10
            best.append(scores.topk(50).indices)
        return torch.cat(best)

    assert benchmark.pedantic(stock, **ROUNDS).shape == (USERS, 50)

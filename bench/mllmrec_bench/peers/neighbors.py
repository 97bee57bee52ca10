"""topk_cosine and cooccurrence_topk beside faiss, chunked torch, scipy, sparse_dot_topn and implicit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec_bench.peers.case import Case, Peer, block_rows, library, sizes

Lists = tuple[NDArray[np.int64], NDArray[np.float32]]


def topk_cosine(vectors: Vectors, k: int, threshold: float | None = None, *, data: str) -> Case:
    """Compare the search of every row's k nearest neighbors among the others, above a threshold.

    Args:
        vectors: float32 [N, d], unit rows.
        k: neighbors per row.
        threshold: cosines below it are dropped.
        data: name of the rows, for the case.
    """
    peers = [
        Peer("faiss IndexFlatIP", "faiss", lambda: _flat(vectors, k, threshold)),
        Peer("torch matmul + topk", "torch", lambda: _torch(vectors, k, threshold)),
    ]
    if threshold is not None:
        peers.insert(1, Peer("faiss range_search", "faiss", partial(_range, vectors, k, threshold)))
    return Case(
        "topk_cosine",
        case_name(data, len(vectors), vectors.shape[1], k, threshold),
        lambda: kernels.topk_cosine(vectors, k, threshold=threshold),
        tuple(peers),
    )


def case_name(data: str, n: int, d: int, k: int, threshold: float | None) -> str:
    """Return the name of the case.

    Args:
        data: name of the data.
        n: rows.
        d: dimensions.
        k: neighbors per row.
        threshold: cosines below it are dropped; None for none.
    """
    cut = "" if threshold is None else f" >={threshold}"
    return f"{data} {sizes(N=n, d=d, k=k)}{cut}"


def _flat(vectors: Vectors, k: int, threshold: float | None) -> Callable[[], Lists]:
    index = _index(vectors)

    def run() -> Lists:
        scores, ids = index.search(vectors, min(k + 1, len(vectors)))
        return _without_self(ids, scores, k, threshold)

    return run


def _range(vectors: Vectors, k: int, threshold: float) -> Callable[[], Lists]:
    index = _index(vectors)
    below = np.nextafter(np.float32(threshold), np.float32(-2))  # its range is open: >, not >=

    def run() -> Lists:
        ends, scores, ids = index.range_search(vectors, float(below))
        rows = np.repeat(np.arange(len(vectors)), np.diff(ends.astype(np.int64)))
        kept = ids != rows
        rows, ids, scores = rows[kept], ids[kept], scores[kept]
        order = np.lexsort((-scores, rows))
        rows, ids, scores = rows[order], ids[order], scores[order]
        place = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = place < k
        found = np.full((len(vectors), k), -1, dtype=np.int64)
        cosines = np.full((len(vectors), k), -np.inf, dtype=np.float32)
        found[rows[best], place[best]], cosines[rows[best], place[best]] = ids[best], scores[best]
        return found, cosines

    return run


def _index(vectors: Vectors) -> Any:
    index = library("faiss").IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    return index


def _without_self(ids: NDArray[np.int64], scores: NDArray[np.float32], k: int, threshold: float | None) -> Lists:
    """Drop each row's own id (if it is not among k + 1, the last) and what is below the threshold."""
    own = ids == np.arange(len(ids))[:, None]
    own[~own.any(axis=1), -1] = True
    ids, scores = (array[~own].reshape(len(ids), -1)[:, :k] for array in (ids, scores))
    if threshold is not None:
        ids[scores < np.float32(threshold)] = -1
    return ids, scores


def _torch(vectors: Vectors, k: int, threshold: float | None) -> Callable[[], Lists]:
    import torch

    rows = torch.from_numpy(vectors)
    step = block_rows(len(rows))

    def run() -> Lists:
        ids, best = [], []
        for start in range(0, len(rows), step):
            block = rows[start : start + step] @ rows.T
            block[torch.arange(len(block)), torch.arange(start, start + len(block))] = -torch.inf
            scores, found = block.topk(min(k, len(rows)))
            if threshold is not None:
                found[scores < threshold] = -1
            ids.append(found)
            best.append(scores)
            del block  # or two would be there at a time
        return torch.cat(ids).numpy(), torch.cat(best).numpy()

    return run


def cooccurrence_topk(user_items: CSR, k: int, *, threads: int, data: str) -> Case:
    """Compare the search of the k items of largest Jaccard for every item.

    Args:
        user_items: binary [U, I].
        k: neighbors per item.
        threads: for the peers that take a number; scipy's product knows one thread only.
        data: name of the interactions, for the case.
    """
    users, items = user_items.shape
    return Case(
        "cooccurrence_topk",
        f"{data} {sizes(U=users, I=items, nnz=user_items.nnz, k=k)}",
        lambda: kernels.cooccurrence_topk(user_items, k),
        (
            Peer("scipy A.T @ A + row top-k", "scipy", lambda: _scipy(user_items, k)),
            Peer(
                "sparse_dot_topn",
                "sparse_dot_topn",
                lambda: _sparse_dot_topn(user_items, k, threads),
                "counts, not Jaccard",
            ),
            Peer(
                "implicit CosineRecommender",
                "implicit",
                lambda: _implicit(user_items, k, threads),
                "cosine, not Jaccard",
            ),
        ),
    )


def _scipy(user_items: CSR, k: int) -> Callable[[], NDArray[np.int64]]:
    matrix = sp.csr_matrix(user_items.to_scipy())

    def run() -> NDArray[np.int64]:
        shared = (matrix.T @ matrix).tocsr()
        shared.sort_indices()
        degrees = shared.diagonal()
        rows = np.repeat(np.arange(shared.shape[0]), np.diff(shared.indptr))
        shared.data /= degrees[rows] + degrees[shared.indices] - shared.data
        shared.data[rows == shared.indices] = 0
        best = np.full((shared.shape[0], k), -1, dtype=np.int64)
        for item in range(shared.shape[0]):
            _best_of_row(shared, item, k, best[item])
        return best

    return run


def _best_of_row(shared: Any, item: int, k: int, best: NDArray[np.int64]) -> None:
    own = slice(shared.indptr[item], shared.indptr[item + 1])
    values, ids = shared.data[own], shared.indices[own]
    if len(values) > 4 * k:  # a partition first is what makes long rows cheap; ties at its edge are cut anyhow
        kept = np.sort(np.argpartition(-values, 2 * k)[: 2 * k])
        values, ids = values[kept], ids[kept]
    order = np.argsort(-values, kind="stable")[:k]
    order = order[values[order] > 0]
    best[: len(order)] = ids[order]


def _sparse_dot_topn(user_items: CSR, k: int, threads: int) -> Callable[[], Any]:
    product = library("sparse_dot_topn").sp_matmul_topn
    matrix = _narrow(user_items)
    turned = matrix.T.tocsr()
    return lambda: product(turned, matrix, top_n=k + 1, sort=True, n_threads=threads)


def _implicit(user_items: CSR, k: int, threads: int) -> Callable[[], Any]:
    recommender = library("implicit.nearest_neighbours").CosineRecommender
    matrix = _narrow(user_items)

    def run() -> Any:
        model = recommender(K=k + 1, num_threads=threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its own CSR, turned, is a COO to it
            model.fit(matrix, show_progress=False)
        return model.similarity

    return run


def _narrow(user_items: CSR) -> Any:
    """Return the matrix with int32 throughout, as these libraries need it."""
    indptr = user_items.indptr.astype(np.int32)
    return sp.csr_matrix((user_items.values(), user_items.indices, indptr), shape=user_items.shape)

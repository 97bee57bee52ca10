"""cooccurrence_topk beside scipy, sparse_dot_topn and implicit."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec_bench.peers.case import Case, Peer, library, scipy_peer, sizes


def cooccurrence_topk(user_items: CSR, k: int, *, threads: int, data: str) -> Case:
    """The k items of largest Jaccard for every item.

    Args:
        user_items: binary [U, I].
        k: neighbours an item.
        threads: for the peers that take a number; scipy's product knows one thread only.
        data: what the interactions are, for the case's name.
    """
    users, items = user_items.shape
    return Case(
        "cooccurrence_topk",
        f"{data} {sizes(U=users, I=items, nnz=user_items.nnz, k=k)}",
        lambda: kernels.cooccurrence_topk(user_items, k),
        (
            scipy_peer("scipy A.T @ A + row top-k", lambda: _scipy(user_items, k)),
            Peer(
                "sparse_dot_topn",
                "sparse_dot_topn",
                "pip install sparse-dot-topn",
                lambda: _sparse_dot_topn(user_items, k, threads),
                "counts, not Jaccard",
            ),
            Peer(
                "implicit CosineRecommender",
                "implicit",
                "pip install implicit",
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
    """int32 all through, as these libraries want it."""
    indptr = user_items.indptr.astype(np.int32)
    return sp.csr_matrix((user_items.values(), user_items.indices, indptr), shape=user_items.shape)

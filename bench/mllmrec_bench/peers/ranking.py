"""rank_heldout, topk_dot, sample_negatives and the mixed verbs beside torch, implicit, scipy, NumPy and Python."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, MixedScores
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec_bench.peers.case import Case, Peer, block_rows, library, sizes

_LISTS = "lists only: ranks beyond them stay unknown"


def rank_heldout(
    users: Vectors, items: Vectors, exclude: CSR, heldout: CSR, k: int, *, threads: int, data: str
) -> Case:
    """Compare the ranking of every held-out item; the peers make the top-k lists that Recall@k is read from.

    Args:
        users: float32 [U, d].
        items: float32 [I, d].
        exclude: [U, I], not to be ranked.
        heldout: [U, I], to be ranked.
        k: length of the peers' lists.
        threads: for the peers that take a number.
        data: name of the vectors, for the case.
    """
    return Case(
        "rank_heldout",
        f"{data} {_name(users, items)} held-out={heldout.nnz:,}",
        lambda: kernels.rank_heldout(users, items, exclude, heldout),
        _list_peers(users, items, exclude, k, threads, f"top-{k} {_LISTS}"),
    )


def topk_dot(users: Vectors, items: Vectors, exclude: CSR, k: int, *, threads: int, data: str) -> Case:
    """Compare the search of the k items of highest inner product for every user, those of `exclude` left out.

    Args:
        users: float32 [U, d].
        items: float32 [I, d].
        exclude: [U, I], not to be listed.
        k: length of the lists.
        threads: for the peers that take a number.
        data: name of the vectors, for the case.
    """
    return Case(
        "topk_dot",
        f"{data} {_name(users, items)} k={k}",
        lambda: kernels.topk_dot(users, items, k, exclude=exclude),
        _list_peers(users, items, exclude, k, threads, ""),
    )


def _name(users: Vectors, items: Vectors) -> str:
    return sizes(U=len(users), I=len(items), d=users.shape[1])


def _list_peers(users: Vectors, items: Vectors, exclude: CSR, k: int, threads: int, differs: str) -> tuple[Peer, ...]:
    return (
        Peer("torch matmul + mask + topk", "torch", lambda: _torch(users, items, exclude, k), differs),
        Peer(
            "implicit topk",
            "implicit",
            lambda: _implicit(users, items, exclude, k, threads),
            differs,
        ),
    )


def _torch(users: Vectors, items: Vectors, exclude: CSR, k: int) -> Callable[[], Any]:
    import torch

    queries, goods = torch.from_numpy(users), torch.from_numpy(items)
    owner, columns = torch.from_numpy(exclude.rows()), torch.from_numpy(exclude.indices.astype(np.int64))
    step, length = block_rows(len(items)), min(k, len(items))

    def run() -> Any:
        ids, best = [], []
        for start in range(0, len(queries), step):
            scores = queries[start : start + step] @ goods.T
            own = slice(int(exclude.indptr[start]), int(exclude.indptr[min(start + step, len(queries))]))
            scores[owner[own] - start, columns[own]] = -torch.inf
            values, found = scores.topk(length)
            ids.append(found)
            best.append(values)
            del scores  # or two would be there at a time
        return torch.cat(ids), torch.cat(best)

    return run


def _implicit(users: Vectors, items: Vectors, exclude: CSR, k: int, threads: int) -> Callable[[], Any]:
    topk = library("implicit.cpu.topk").topk
    indptr = exclude.indptr.astype(np.int32)
    liked = sp.csr_matrix((exclude.values(), exclude.indices, indptr), shape=exclude.shape)
    return lambda: topk(items, users, min(k, len(items)), filter_query_items=liked, num_threads=threads)


def sample_negatives(user_items: CSR, users: NDArray[np.int64], *, data: str) -> Case:
    """Compare the drawing of one unseen item for each of `users`.

    Args:
        user_items: binary [U, I].
        users: int64 [B]; none of them may have seen everything, or the peers would never end.
        data: name of the interactions, for the case.
    """
    generator = np.random.default_rng(0)
    return Case(
        "sample_negatives",
        f"{data} {sizes(U=user_items.n_rows, I=user_items.n_columns, B=len(users))}",
        lambda: kernels.sample_negatives(user_items, users, generator=generator),
        (
            Peer("NumPy, vectorised rejection", "scipy", lambda: _vectorized(user_items, users)),
            Peer("Python rejection loop", "scipy", lambda: _loop(user_items, users)),
        ),
    )


def _seen(user_items: CSR) -> NDArray[np.int64]:
    return np.unique(user_items.indices).astype(np.int64)


def _vectorized(user_items: CSR, users: NDArray[np.int64]) -> Callable[[], NDArray[np.int64]]:
    seen, rng = _seen(user_items), np.random.default_rng(1)
    pairs = user_items.rows() * user_items.n_columns + user_items.indices

    def run() -> NDArray[np.int64]:
        negatives = rng.choice(seen, len(users))
        open_ = np.arange(len(users))
        while len(open_):
            keys = users[open_] * user_items.n_columns + negatives[open_]
            places = np.minimum(np.searchsorted(pairs, keys), len(pairs) - 1)
            open_ = open_[pairs[places] == keys]
            negatives[open_] = rng.choice(seen, len(open_))
        return negatives

    return run


def _loop(user_items: CSR, users: NDArray[np.int64]) -> Callable[[], Any]:
    import random

    seen, rng = _seen(user_items).tolist(), random.Random(1)
    own = [set(user_items.row(user).tolist()) for user in range(user_items.n_rows)]
    rows = users.tolist()

    def run() -> NDArray[np.int64]:
        negatives = []
        for user in rows:
            item = rng.choice(seen)
            while item in own[user]:
                item = rng.choice(seen)
            negatives.append(item)
        return np.array(negatives)

    return run


_NAME = "NumPy, dense blocks"


def rank_mixed(scores: MixedScores, exclude: CSR, heldout: CSR, limit: int | None, *, data: str) -> Case:
    """Rank every held-out item.

    Args:
        scores: with vectors, and sparse weights.
        exclude: [U, I], not to be ranked.
        heldout: [U, I], to be ranked.
        limit: ranks from here on need not be told apart; the peer ranks all.
        data: what they are, for the case's name.
    """
    named = f"{data} {_sizes(scores)} held-out={heldout.nnz:,}"
    return Case(
        "rank_mixed",
        named if limit is None else f"{named} limit={limit}",
        lambda: kernels.rank_mixed(scores, exclude, heldout, limit=limit),
        (Peer(_NAME, "scipy", lambda: _ranks(scores, exclude, heldout)),),
    )


def topk_mixed(scores: MixedScores, exclude: CSR, k: int, *, data: str) -> Case:
    """List the k best items of every user, those of `exclude` left out.

    Args:
        scores: the scores of every user.
        exclude: [U, I], items not to list.
        k: items per user.
        data: name of the data.
    """
    return Case(
        "topk_mixed",
        f"{data} {_sizes(scores)} k={k}",
        lambda: kernels.topk_mixed(scores, k, exclude=exclude),
        (Peer(_NAME, "scipy", lambda: _lists(scores, exclude, k)),),
    )


def _sizes(scores: MixedScores) -> str:
    (users, width), items = np.asarray(scores.user_vectors).shape, len(np.asarray(scores.item_vectors))
    return sizes(U=users, I=items, d=width, weights=scores.item_weights.nnz)  # type: ignore[union-attr]


def _blocks(scores: MixedScores, exclude: CSR) -> Callable[[], Iterator[tuple[int, NDArray[np.float32]]]]:
    """Return what yields each user and their scores, -inf where excluded."""
    R, W = (matrix.to_scipy() for matrix in (scores.user_items, scores.item_weights))  # type: ignore[union-attr]
    users, items, step = scores.user_vectors, scores.item_vectors, block_rows(exclude.n_columns)
    scale = np.asarray(scores.scale)

    def run() -> Iterator[tuple[int, NDArray[np.float32]]]:
        for start in range(0, exclude.n_rows, step):
            at = slice(start, min(start + step, exclude.n_rows))
            block = (R[at] @ W).toarray() * scale[at, None] + users[at] @ items.T  # type: ignore[index, union-attr]
            for user in range(at.start, at.stop):
                block[user - start, exclude.row(user)] = -np.inf
                yield user, block[user - start]

    return run


def _ranks(scores: MixedScores, exclude: CSR, heldout: CSR) -> Callable[[], Any]:
    blocks = _blocks(scores, exclude)

    def run() -> NDArray[np.int32]:
        ranks = list[int]()
        for user, row in blocks():
            ranks += [_rank(row, item) for item in heldout.row(user)]
        return np.array(ranks, np.int32)

    return run


def _rank(row: NDArray[np.float32], item: int) -> int:
    return int(np.count_nonzero(row > row[item]) + np.count_nonzero(row[:item] == row[item]))


def _lists(scores: MixedScores, exclude: CSR, k: int) -> Callable[[], Any]:
    blocks = _blocks(scores, exclude)

    def run() -> NDArray[np.int32]:
        lists = np.empty((exclude.n_rows, k), np.int32)
        for user, row in blocks():
            best = np.argpartition(-row, k)[:k]
            lists[user] = best[np.argsort(-row[best], kind="stable")]
        return lists

    return run

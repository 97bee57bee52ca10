"""rank_heldout and topk_dot beside chunked torch and implicit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR

from mllmrec.features.encode import Vectors
from mllmrec_bench.peers.case import Case, Peer, block_rows, library, sizes, torch_peer

_LISTS = "lists only: ranks beyond them stay unknown"


def rank_heldout(
    users: Vectors, items: Vectors, exclude: CSR, heldout: CSR, k: int, *, threads: int, data: str
) -> Case:
    """The rank of every held-out item; the peers make the top-k lists that Recall@k is read from.

    Args:
        users: float32 [U, d].
        items: float32 [I, d].
        exclude: [U, I], not to be ranked.
        heldout: [U, I], to be ranked.
        k: length of the peers' lists.
        threads: for the peers that take a number.
        data: what the vectors are, for the case's name.
    """
    return Case(
        "rank_heldout",
        f"{data} {_name(users, items)} held-out={heldout.nnz:,}",
        lambda: kernels.rank_heldout(users, items, exclude, heldout),
        _list_peers(users, items, exclude, k, threads, f"top-{k} {_LISTS}"),
    )


def topk_dot(users: Vectors, items: Vectors, exclude: CSR, k: int, *, threads: int, data: str) -> Case:
    """The k items of highest inner product for every user, those of `exclude` left out; as above."""
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
        torch_peer("torch matmul + mask + topk", lambda: _torch(users, items, exclude, k), differs),
        Peer(
            "implicit topk",
            "implicit",
            "pip install implicit",
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

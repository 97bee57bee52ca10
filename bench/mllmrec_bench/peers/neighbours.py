"""topk_cosine beside faiss and chunked torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec_bench.peers.case import Case, Peer, block_rows, library, sizes, torch_peer

_FAISS = "pip install faiss-cpu"
Lists = tuple[NDArray[np.int64], NDArray[np.float32]]


def topk_cosine(vectors: Vectors, k: int, threshold: float | None = None, *, data: str) -> Case:
    """The k nearest neighbours of every row among the others, above a threshold.

    Args:
        vectors: float32 [N, d], unit rows.
        k: neighbours a row.
        threshold: cosines below it are dropped.
        data: what the rows are, for the case's name.
    """
    peers = [
        Peer("faiss IndexFlatIP", "faiss", _FAISS, lambda: _flat(vectors, k, threshold)),
        torch_peer("torch matmul + topk", lambda: _torch(vectors, k, threshold)),
    ]
    if threshold is not None:
        reach = threshold
        peers.insert(1, Peer("faiss range_search", "faiss", _FAISS, lambda: _range(vectors, k, reach)))
    return Case(
        "topk_cosine",
        case_name(data, len(vectors), vectors.shape[1], k, threshold),
        lambda: kernels.topk_cosine(vectors, k, threshold=threshold),
        tuple(peers),
    )


def case_name(data: str, n: int, d: int, k: int, threshold: float | None) -> str:
    """What the case of so many rows is called."""
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
    """Drop each row's own id (where it is not among k + 1, the last) and what is below the threshold."""
    own = ids == np.arange(len(ids))[:, None]
    own[~own.any(axis=1), -1] = True
    ids, scores = (found[~own].reshape(len(ids), -1)[:, :k] for found in (ids, scores))
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

"""rank_mixed and topk_mixed beside dense blocks of scores in NumPy and scipy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
from mllmrec_kernels import CSR, MixedScores
from numpy.typing import NDArray

from mllmrec_bench.peers.case import Case, block_rows, scipy_peer, sizes

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
        (scipy_peer(_NAME, lambda: _ranks(scores, exclude, heldout)),),
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
        (scipy_peer(_NAME, lambda: _lists(scores, exclude, k)),),
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

"""Scores of every item for some users, and the ranks and lists that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import (
    CSR,
    MixedScores,
    rank_heldout,
    score_mixed,
    topk_cosine,
    topk_dot,
)
from numpy.typing import NDArray

from mllmrec.foundation.progress import Progress, silent

_BLOCK_BYTES = 64 << 20  # of a dense block of scores
_FEW = 64  # users whose scores of every item are held to keep those of some items
USERS = 1 << 15  # users ranked or listed between two calls of progress
VECTOR_USERS = 1 << 16  # the same where scores are inner products; the items are encoded anew for each block
Lists = tuple[NDArray[np.int32], NDArray[np.float32]]


class Scorer(Protocol):
    """Scores a block of users at once."""

    def scores(self, users: NDArray[np.int64], /) -> NDArray[np.float32]:
        """Return the scores of users [B] for every item, float32 [B, I], the caller's to change."""
        ...


class Part(Protocol):
    """Lists and scores items for some users, without a dense block of scores."""

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR, /) -> Lists:
        """Return the k best items of each user; see top_by_user.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, I], items not to list.
        """
        ...

    def scores_of(self, users: NDArray[np.int64], items: CSR, /) -> NDArray[np.float32]:
        """Return the scores of users [B] for the entries of items [B, I], float32 [items.nnz]."""
        ...


@dataclass(frozen=True, slots=True)
class VectorScorer:
    """Scores that are inner products.

    Attributes:
        users: float32 [U, d].
        items: float32 [I, d].
        backend: of the kernels that rank, list and score some items; "triton" computes on the GPU.
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    backend: str = field(default="auto", kw_only=True)

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the rank of each held-out item; see Recommender.ranks.

        Args:
            exclude: [U, I], items that are not ranked.
            heldout: [U, I], items to rank.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.
        """

        def rank(users: NDArray[np.int64], *taken: CSR) -> NDArray[np.int32]:
            ranks = rank_heldout(self.users[users], self.items, *taken, limit=limit, backend=self.backend)
            return np.asarray(ranks, np.int32)

        return ranks_by_users(rank, exclude, heldout, progress, users=VECTOR_USERS)

    def among(self, items: NDArray[np.int64]) -> VectorScorer:
        """Return the scorer of only some items, int64 [m]; see Recommender.among."""
        return VectorScorer(self.users, self.items[items], backend=self.backend)

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]."""
        return np.asarray(self.users[users] @ self.items.T)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """Return the k best items of each user; see top_by_user.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, I], items not to list, a row per user.
        """
        ids, scores = topk_dot(self.users[users], self.items, k, exclude=exclude, backend=self.backend)
        return ids, scores

    def scores_of(self, users: NDArray[np.int64], items: CSR) -> NDArray[np.float32]:
        """Return the scores of the entries of items [B, I], float32 [items.nnz]; see Part."""
        R, W = (sp.csr_array(shape, dtype=np.float32) for shape in ((len(users), 1), (1, len(self.items))))
        scores = MixedScores(R, W, user_vectors=self.users[users], item_vectors=self.items)
        return np.asarray(score_mixed(scores, items, backend=self.backend))

    def similar(self, items: NDArray[np.int64], k: int) -> Lists:
        """Return the k nearest items of each item by cosine: ids int32 [B, k], cosines float32 [B, k]."""
        if np.array_equal(items, np.arange(len(self.items))):
            ids, cosines = topk_cosine(self.items, k)
            return ids, cosines
        ids, cosines = topk_cosine(self.items, k + 1, queries=self.items[items])
        own = ids == items[:, None]
        own[~own.any(axis=1), -1] = True  # of more equal rows than places, the item itself may not be listed
        return ids[~own].reshape(-1, k), cosines[~own].reshape(-1, k)


@dataclass(frozen=True, slots=True)
class ScoresAmong:
    """The scores of only some items, by those of all.

    Attributes:
        model: scores every item.
        items: int64 [m]; column j is items[j].
    """

    model: Scorer
    items: NDArray[np.int64]

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, m]; those of every item for a few users at once."""
        blocks = (users[start : start + _FEW] for start in range(0, len(users), _FEW))
        return np.concatenate([self.model.scores(block)[:, self.items] for block in blocks])

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the rank of each held-out item; see Recommender.ranks.

        Args:
            exclude: [U, m], items that are not ranked.
            heldout: [U, m], items to rank.
            limit: not used: every rank is exact.
            progress: called after each block of users.
        """
        return ranks_by_block(self, exclude, heldout, progress)


def block_rows(n_items: int) -> int:
    """Return the number of users whose scores are held at once."""
    return max(1, _BLOCK_BYTES // (4 * max(1, n_items)))


def ranks_by_users(
    rank: Callable[[NDArray[np.int64], CSR, CSR], NDArray[np.int32]],
    exclude: CSR,
    heldout: CSR,
    progress: Progress,
    users: int = USERS,
) -> NDArray[np.int32]:
    """Return the rank of each held-out item, a block of the users who have any at a time.

    Args:
        rank: returns the ranks for users [B], ascending, from their rows of the two matrices.
        exclude: [U, I], items that are not ranked.
        heldout: [U, I], items to rank.
        progress: called after each block.
        users: of a block.
    """
    ranks, owners = np.empty(heldout.nnz, np.int32), np.flatnonzero(np.diff(heldout.indptr))
    progress("rank users", 0, len(owners))
    for start in range(0, len(owners), users):
        rows = owners[start : start + users]
        ranks[heldout.indptr[rows[0]] : heldout.indptr[rows[-1] + 1]] = rank(
            rows, exclude.take_rows(rows), heldout.take_rows(rows)
        )
        progress("rank users", start + len(rows), len(owners))
    return ranks


def ranks_by_block(model: Scorer, exclude: CSR, heldout: CSR, progress: Progress = silent) -> NDArray[np.int32]:
    """Return the ranks of held-out items, a block of users at a time; see Recommender.ranks.

    Args:
        model: scores per block of users at once.
        exclude: [U, I], items that are not ranked.
        heldout: [U, I], items to rank.
        progress: called after each block.
    """
    block = block_rows(heldout.n_columns)
    ranks = np.empty(heldout.nnz, dtype=np.int32)
    for start in range(0, heldout.n_rows, block):
        stop = min(start + block, heldout.n_rows)
        users = start + np.flatnonzero(np.diff(heldout.indptr[start : stop + 1]))
        scores = model.scores(users) if len(users) else ()
        for user, row in zip(users.tolist(), scores, strict=True):
            row[exclude.row(user)] = -np.inf
            at = slice(int(heldout.indptr[user]), int(heldout.indptr[user + 1]))
            ranks[at] = [_rank(row, item) for item in heldout.indices[at]]
        progress("rank users", stop, heldout.n_rows)
    return ranks


def _rank(scores: NDArray[np.float32], item: int) -> int:
    return int((scores > scores[item]).sum() + (scores[:item] == scores[item]).sum())


def top_by_user(model: Scorer, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
    """Return the k best items of each named user, best first, ties to the lower id.

    Args:
        model: scores per block of users at once.
        users: int64 [B].
        k: items per user.
        exclude: [B, I] items not to list, a row a named user.

    Returns:
        ids int32 [B, k], padded with -1, and scores float32 [B, k], padded with -inf.
    """
    ids = np.full((len(users), k), -1, np.int32)
    values = np.full((len(users), k), -np.inf, np.float32)
    block = block_rows(exclude.n_columns)
    for start in range(0, len(users), block):
        for n, scores in enumerate(model.scores(users[start : start + block]), start):
            best, row = _best(scores, exclude.row(n), k)
            ids[n, : len(best)], values[n, : len(best)] = best, row
    return ids, values


def _best(scores: NDArray[np.float32], exclude: NDArray[np.int32], k: int) -> Lists:
    """Return ids and scores of the k best, ties to the lower id; `scores` [I] is overwritten."""
    scores[exclude] = -np.inf
    k = min(k, len(scores))
    if not k:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    lowest = np.partition(scores, len(scores) - k)[len(scores) - k]  # the k-th highest
    candidates = np.flatnonzero((scores >= lowest) & (scores > -np.inf))
    best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
    return best.astype(np.int32), scores[best]

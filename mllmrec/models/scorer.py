"""What a trained model or a baseline is to the evaluation: something that scores every item for a user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, rank_heldout, topk_cosine, topk_dot
from numpy.typing import NDArray

_BLOCK_BYTES = 64 << 20  # of a block of scores, where a model has no vectors


class Scorer(Protocol):
    """A model that can be judged by full ranking."""

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """0-based rank of each held-out item among the user's items that are not excluded.

        Ties go to the lower item index.

        Args:
            exclude: [U, I] items that a user cannot be shown; disjoint from `heldout`.
            heldout: [U, I] items to rank; ranks come in its order, int32 [heldout.nnz].
        """
        ...


class BlockScorer(Protocol):
    """A model that scores a block of users at once."""

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """Scores of users start..stop-1 for every item, float32 [stop - start, I], the caller's to change."""
        ...


@dataclass(frozen=True, slots=True)
class VectorScorer:
    """Scores that are inner products.

    Attributes:
        users: float32 [U, d].
        items: float32 [I, d].
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """See Scorer."""
        ranks: NDArray[np.int32] = rank_heldout(self.users, self.items, exclude, heldout)
        return ranks

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """See BlockScorer."""
        return np.asarray(self.users[start:stop] @ self.items.T)

    def similar(self, k: int) -> Lists:
        """The k nearest items of each by cosine: ids int32 [I, k], cosines float32 [I, k]."""
        ids, scores = topk_cosine(self.items, k)
        return ids, scores

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """See top_by_user."""
        ids, scores = topk_dot(self.users[users], self.items, k, exclude=exclude)
        return ids, scores


@dataclass(frozen=True, slots=True)
class WeightsScorer:
    """Scores that are sums of item-item weights over the user's items, R_u W.

    Attributes:
        user_items: R, binary [U, I].
        weights: W, [I, I]; row i is what owning item i adds to each item's score. Sparse or dense.
    """

    user_items: sp.csr_array
    weights: Any

    @staticmethod
    def of(user_items: CSR, weights: CSR | NDArray[np.float32]) -> WeightsScorer:
        """From the kernels' container."""
        return WeightsScorer(user_items.to_scipy(), weights.to_scipy() if isinstance(weights, CSR) else weights)

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """See BlockScorer."""
        block = self.user_items[start:stop] @ self.weights
        return np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float32)

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """See Scorer."""
        return ranks_by_block(self, exclude, heldout)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """See top_by_user."""
        return top_by_user(self, users, k, exclude)


Lists = tuple[NDArray[np.int32], NDArray[np.float32]]


def block_rows(n_items: int) -> int:
    """How many users' scores are held at once."""
    return max(1, _BLOCK_BYTES // (4 * max(1, n_items)))


def ranks_by_block(model: BlockScorer, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
    """The ranks of a model without vectors, a block of users at a time."""
    block = block_rows(heldout.n_columns)
    ranks = np.empty(heldout.nnz, dtype=np.int32)
    for start in range(0, heldout.n_rows, block):
        stop = min(start + block, heldout.n_rows)
        scores = model.scores(start, stop)
        for user in range(start, stop):
            row = scores[user - start]
            row[exclude.row(user)] = -np.inf
            at = slice(int(heldout.indptr[user]), int(heldout.indptr[user + 1]))
            ranks[at] = [_rank(row, item) for item in heldout.indices[at]]
    return ranks


def _rank(scores: NDArray[np.float32], item: int) -> int:
    return int((scores > scores[item]).sum() + (scores[:item] == scores[item]).sum())


def top_by_user(model: BlockScorer, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
    """The k best items of each named user, best first, ties to the lower id.

    Args:
        model: scores users that follow each other together.
        users: int64 [B].
        k: items a user.
        exclude: [B, I] items not to list, a row a named user.

    Returns:
        ids int32 [B, k], padded with -1, and scores float32 [B, k], padded with -inf.
    """
    ids = np.full((len(users), k), -1, np.int32)
    values = np.full((len(users), k), -np.inf, np.float32)
    most = block_rows(exclude.n_columns)
    for start, stop in _runs(users, most):
        scores = model.scores(int(users[start]), int(users[stop - 1]) + 1)
        for n in range(start, stop):
            best, row = _best(scores[n - start], exclude.row(n), k)
            ids[n, : len(best)], values[n, : len(best)] = best, row
    return ids, values


def _runs(users: NDArray[np.int64], most: int) -> Iterator[tuple[int, int]]:
    """Stretches of `users` that are consecutive numbers, at most `most` long."""
    ends = np.flatnonzero(np.diff(users) != 1) + 1
    for start, stop in pairwise([0, *ends.tolist(), len(users)]):
        yield from ((first, min(first + most, stop)) for first in range(start, stop, most))


def _best(scores: NDArray[np.float32], exclude: NDArray[np.int32], k: int) -> Lists:
    """Ids and scores of the k best, ties to the lower id; `scores` [I] is overwritten."""
    scores[exclude] = -np.inf
    k = min(k, len(scores))
    if not k:
        return np.empty(0, np.int32), np.empty(0, np.float32)
    bar = np.partition(scores, len(scores) - k)[len(scores) - k]  # the k-th highest
    near = np.flatnonzero((scores >= bar) & (scores > -np.inf))
    best = near[np.argsort(-scores[near], kind="stable")[:k]]
    return best.astype(np.int32), scores[best]

"""Scores by item-item weights, alone or beside inner products, on the kernels of mixed scores."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import (
    CSR,
    MixedIndex,
    MixedItems,
    MixedScores,
    rank_mixed,
    row_spread,
    score_mixed,
    topk_mixed,
)
from mllmrec_kernels.mixed.scores import inverse_spread
from numpy.typing import NDArray

from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.scoring import USERS, Lists, VectorScorer, ranks_by_users

_LIST_BYTES = 1 << 29  # working memory of lists, which holds the items of a large shop encoded

FEW_USERS = 16  # up to so many new users are listed one by one, from items that are encoded once


class MixedScorer(ABC):
    """Ranks, lists and scores items by the kernels of mixed scores; no block of users x items is formed."""

    __slots__ = ()
    backend: str = "auto"  # of the kernels; "triton" computes on the GPU

    @abstractmethod
    def mixed(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] as the kernels take them."""

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
        return mixed_ranks(self.mixed, exclude, heldout, limit, progress, backend=self.backend)

    def among(self, items: NDArray[np.int64]) -> MixedAmong:
        """Return the scorer of some items alone, int64 [m]; see Recommender.among."""
        return MixedAmong(self.mixed, items)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """Return the k best items of each user; see top_by_user.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, I], items not to list.
        """
        memory = _LIST_BYTES if self.backend == "auto" else None  # a GPU takes a share of its own
        return topk_mixed(self.mixed(users), k, exclude=exclude, backend=self.backend, max_bytes=memory)

    def scores_of(self, users: NDArray[np.int64], items: CSR) -> NDArray[np.float32]:
        """Return the scores of the entries of items [B, I], float32 [items.nnz]; see Part."""
        return np.asarray(score_mixed(self.mixed(users), items, backend=self.backend))


class MixedAmong(MixedScorer):
    """The same scores, of some items alone.

    Args:
        mixed: returns the scores of users [B] for all items.
        items: int64 [m]; column j is items[j].
        users: ranked at once.
    """

    def __init__(
        self, mixed: Callable[[NDArray[np.int64]], MixedScores], items: NDArray[np.int64], users: int = USERS
    ) -> None:
        self._all, self._items, self._users = mixed, items, users
        self._narrow: tuple[object, MixedItems] | None = None

    def mixed(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] for the items as the kernels take them."""
        scores = self._all(users)
        if self._narrow is None or self._narrow[0] is not scores.item_weights:
            self._narrow = scores.item_weights, self._columns(scores)  # encoded once for all users
        return MixedScores(scores.user_items, self._narrow[1], scores.scale, scores.user_vectors)

    def top_above(self, users: NDArray[np.int64], k: int, exclude: CSR, floor: NDArray[np.float32]) -> Lists:
        """Return the k best items of each user that score no lower than a floor; see `top`.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, m], items not to list.
            floor: float32 [B].
        """
        return topk_mixed(self.mixed(users), k, exclude=exclude, floor=floor, max_bytes=_LIST_BYTES)

    def _columns(self, scores: MixedScores) -> MixedItems:
        weights, vectors = scores.item_weights, scores.item_vectors
        if isinstance(weights, MixedItems):
            weights, vectors = weights.given
        if isinstance(weights, CSR):
            narrow: Any = CSR.from_scipy(weights.to_scipy()[:, self._items])
        else:
            narrow = np.ascontiguousarray(np.asarray(weights)[:, self._items])
        return MixedItems(narrow, None if vectors is None else np.asarray(vectors)[self._items])

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the rank of each held-out item; see Recommender.ranks.

        Args:
            exclude: [U, m], items that are not ranked.
            heldout: [U, m], items to rank.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.
        """
        return mixed_ranks(self.mixed, exclude, heldout, limit, progress, users=self._users)


@dataclass(frozen=True)
class WeightsScorer(MixedScorer):
    """Scores that are sums of item-item weights over the user's items, R_u W.

    Attributes:
        user_items: R, [U, I]; binary, or older items weigh less.
        weights: W, [I, I]; row i is what owning item i adds to each item's score. Sparse or dense float32.
    """

    user_items: CSR
    weights: CSR | NDArray[np.float32]
    backend: str = "auto"

    @property
    def matrix(self) -> Any:
        """W as an array of scipy or NumPy, without a copy."""
        return self.weights.to_scipy() if isinstance(self.weights, CSR) else self.weights

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]."""
        block = self.user_items.to_scipy()[users] @ self.matrix
        return np.asarray(block.toarray() if sp.issparse(block) else block, dtype=np.float32)

    def mixed(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] as the kernels take them."""
        return MixedScores(self.user_items.take_rows(users), self.items)

    @cached_property
    def items(self) -> MixedItems:
        """The weights, checked once."""
        return MixedItems(self.weights)


@dataclass(frozen=True)
class StandardizedScorer(MixedScorer):
    """Sums of item-item weights over their spread, plus inner products.

        score_u = R_u W / sd(R_u W) + p_u . q_i,   sd over all items

    Attributes:
        weights: R_u W; a user whose sums are all equal gets zeros.
        rest: p and q; of width 0 where there are none.
    """

    weights: WeightsScorer
    rest: VectorScorer
    backend: str = "auto"

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]."""
        sums = self.weights.scores(users)
        spread = np.array([row.std(dtype=np.float64) for row in sums])  # by rows: no float64 copy of the block
        return np.asarray(sums * inverse_spread(spread)[:, None]) + self.rest.scores(users)

    def mixed(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] as the kernels take them."""
        vectors = self.rest.users[users] if self.rest.items.shape[1] else None
        return MixedScores(self.weights.user_items.take_rows(users), self.items, None, vectors, standardize=True)

    @cached_property
    def items(self) -> MixedItems:
        """The weights and vectors of the items, checked and encoded once."""
        return MixedItems(self.weights.weights, self.rest.items if self.rest.items.shape[1] else None)

    def scaled(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B], with the scale that other items than these are to be scored by."""
        rows, weights = self.weights.user_items.take_rows(users), self.weights.weights
        scale = inverse_spread(row_spread(rows, weights))
        if self.rest.items.shape[1] == 0:
            return MixedScores(rows, weights, scale)
        return MixedScores(rows, weights, scale, self.rest.users[users], self.rest.items)

    def among(self, items: NDArray[np.int64]) -> MixedAmong:
        """Return the scorer of some items alone, int64 [m]; sums keep their spread over all items."""
        return MixedAmong(self.scaled, items)


@dataclass(frozen=True)
class SumScorer(MixedScorer):
    """Sums of item-item weights plus inner products, R_u W + p_u . q_i.

    Attributes:
        weights: R_u W.
        rest: p and q.
    """

    weights: WeightsScorer
    rest: VectorScorer
    backend: str = "auto"

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]."""
        return self.weights.scores(users) + self.rest.scores(users)

    def mixed(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] as the kernels take them."""
        return MixedScores(self.weights.user_items.take_rows(users), self.items, None, self.rest.users[users])

    @cached_property
    def items(self) -> MixedItems:
        """The weights and vectors of the items, checked and encoded once."""
        return MixedItems(self.weights.weights, self.rest.items)


def mixed_ranks(
    mixed: Callable[[NDArray[np.int64]], MixedScores],
    exclude: CSR,
    heldout: CSR,
    limit: int | None,
    progress: Progress,
    users: int = USERS,
    backend: str = "auto",
) -> NDArray[np.int32]:
    """Return the rank of each held-out item by mixed scores, a block of users at a time; see Recommender.ranks.

    Args:
        mixed: returns the scores of users [B].
        exclude: [U, I], items that are not ranked.
        heldout: [U, I], items to rank.
        limit: ranks from here on need not be told apart.
        progress: called after each block.
        users: of a block.
        backend: of the kernels.
    """

    def rank(rows: NDArray[np.int64], *taken: CSR) -> NDArray[np.int32]:
        return np.asarray(rank_mixed(mixed(rows), *taken, limit=limit, backend=backend), np.int32)

    return ranks_by_users(rank, exclude, heldout, progress, users=users)


def top_one_by_one(
    index: MixedIndex, histories: CSR, vectors: NDArray[np.float32] | None, k: int, exclude: CSR
) -> Lists:
    """Return the k best items of each of a few users, with the bits of MixedScorer.top.

    Args:
        index: of the model's items.
        histories: binary [B, I].
        vectors: float32 [B, d], whose inner products stand beside standardized sums; None: sums alone.
        k: items per user.
        exclude: [B, I], items not to list.
    """
    lists = [
        index.topk(
            histories.row(u),
            k,
            user_vector=None if vectors is None else vectors[u],
            standardize=vectors is not None,
            exclude=exclude.row(u),
        )
        for u in range(histories.n_rows)
    ]
    return np.stack([ids for ids, _ in lists]), np.stack([scores for _, scores in lists])

"""Rank known and new items in one list, and bound the offset of new items by what known ones lose.

Known items and new items are listed apart, the best CUTOFF of each for every user. An item's rank in the joint list is
its rank among its own kind plus the number of the other kind above it. So a shift of all new scores needs no new list.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, MixedItems, MixedScores, topk_mixed
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work, rows_a_block
from mllmrec.features.encode import Vectors
from mllmrec.models.new_items import Prediction, predict_all_columns, predict_rows
from mllmrec.models.scoring import USERS, Lists
from mllmrec.models.weight_scorers import StandardizedScorer

CUTOFF = 20
_LISTED = 1 << 10  # users of a block, at least: a worker encodes the items for its blocks
_HALVINGS = 30  # of the interval that the offset lies in
_DISCOUNTS = 1 / np.log2(np.arange(CUTOFF) + 2)
_IDEAL = np.concatenate([[np.inf], np.cumsum(_DISCOUNTS)])  # by number of relevant items; a user without any adds 0


class Quality(NamedTuple):
    """Recall@20 and NDCG@20 over the users with relevant items."""

    recall: float
    ndcg: float


@dataclass(frozen=True)
class TopLists:
    """The best items of one kind for some users.

    Attributes:
        scores: float32 [B, n <= CUTOFF], falling; -inf if there are fewer.
        hits: bool [B, n], whether the item is relevant to its user.
        relevant: int64 [B], relevant items of each user, listed or not.
    """

    scores: NDArray[np.float32]
    hits: NDArray[np.bool_]
    relevant: NDArray[np.int64]

    @staticmethod
    def of(
        scores: MixedScores, exclude: CSR, relevant: CSR, blocks: Blocks | None = None, backend: str = "auto"
    ) -> TopLists:
        """Return the lists of B users by scores for J items.

        Args:
            scores: [B, J].
            exclude: [B, J], items not to list.
            relevant: [B, J], items that the users are known to like.
            blocks: workers that list instead of this process.
            backend: of the kernel that lists in this process.
        """
        if blocks:
            ids, values = _top_in_blocks(scores, exclude, blocks)
        else:
            ids, values = topk_mixed(scores, CUTOFF, exclude=exclude, backend=backend)
        rows = np.repeat(np.arange(len(ids)), ids.shape[1])
        found = np.asarray(relevant.to_scipy()[rows, np.maximum(ids, 0).ravel()]).reshape(ids.shape)
        return TopLists(values, (found > 0) & (ids >= 0), np.diff(relevant.indptr))

    @cached_property
    def _shown(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """User and place of each hit."""
        users, places = np.nonzero(self.hits)
        return users, places

    def quality_beside(self, others: TopLists, shift: float, *, is_first: bool) -> Quality:
        """Return the quality of these items in lists that they share with others.

        Args:
            others: lists of the same users.
            shift: added to the scores of these items.
            is_first: of equal scores, these items stand above the others.
        """
        users, places = self._shown
        own = self.scores[users, places].astype(np.float64)[:, None] + shift
        rivals = others.scores[users]
        ranks = places + (rivals > own if is_first else rivals >= own).sum(axis=1)
        shown = ranks < CUTOFF
        users, ranks = users[shown], ranks[shown]
        judged = max(1, np.count_nonzero(self.relevant))
        reachable = np.minimum(self.relevant[users], CUTOFF)
        recall = float((1 / self.relevant[users]).sum() / judged)
        return Quality(recall, float((_DISCOUNTS[ranks] / _IDEAL[reachable]).sum() / judged))


def _top_in_blocks(scores: MixedScores, exclude: CSR, blocks: Blocks) -> Lists:
    rows: dict[str, Any] = {"user_items": scores.user_items, "scale": scores.scale, "exclude": exclude}
    shared: dict[str, Any] = {"weights": scores.item_weights}
    if scores.user_vectors is not None:
        rows["user_vectors"], shared["item_vectors"] = scores.user_vectors, scores.item_vectors
    n = exclude.n_rows
    found = blocks.run(Work(list_block, "list items", n, rows_a_block(n, USERS, least=_LISTED), rows, shared))
    return found["ids"], found["scores"]


def list_block(block: Block) -> Arrays:
    """Return the best items of the block's users."""
    users, vectors = (
        block.array(name) if "user_vectors" in block.rows else None for name in ("user_vectors", "item_vectors")
    )
    items = block.once("items", lambda: MixedItems(block.matrix("weights"), vectors))
    scores = MixedScores(block.matrix("user_items"), items, block.array("scale"), users)
    ids, values = topk_mixed(scores, CUTOFF, exclude=block.matrix("exclude"))
    return {"ids": ids, "scores": values}


def highest_offset(known: TopLists, new: TopLists, share: float) -> float:
    """Return the highest offset of new items at which known ones lose at most a share of their quality.

    Recall@20 and NDCG@20 of the known items both count. Of equal scores the known item stands first.

    Args:
        known: lists of known items.
        new: lists of new items, with an offset of 0.
        share: in [0, 1].

    Returns:
        The offset; 0 if there is nothing to list.
    """
    alone = known.quality_beside(new, np.inf, is_first=True)

    def is_kept(offset: float) -> bool:
        return max(loss(alone, known.quality_beside(new, -offset, is_first=True))) <= share

    finite = [scores[np.isfinite(scores)] for scores in (known.scores, new.scores)]
    if not all(len(scores) for scores in finite):
        return 0.0
    low, high = (
        float(a) - float(b) for a, b in ((finite[0].min(), finite[1].max()), (finite[0].max(), finite[1].min()))
    )
    low, high = low - 1, high + 1  # no new item is shown; every one stands above all known ones
    if is_kept(high):
        return high
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if is_kept(middle) else (low, middle)
    return low


def loss(before: Sequence[float], after: Sequence[float]) -> tuple[float, ...]:
    """Return the share that each measure lost; 0 if there was nothing to lose."""
    return tuple(1 - new / old if old > 0 else 0.0 for old, new in zip(before, after, strict=True))


class ItemGroups:
    """Some users, listed by groups of items.

    Args:
        scorer: of users and items.
        users: int64 [B].
        train: binary [U, I], items that are not listed.
        blocks: workers that predict and list instead of this process.
    """

    def __init__(
        self, scorer: StandardizedScorer, users: NDArray[np.int64], train: CSR, blocks: Blocks | None = None
    ) -> None:
        self._scores, self._train = scorer.scaled(users), train.take_rows(users)
        self._weights: sp.csr_array = scorer.weights.matrix
        self._items, self._blocks, self._backend = scorer.rest.items, blocks, scorer.backend

    @cached_property
    def _columns(self) -> CSR:
        """W^T."""
        return CSR.from_scipy(self._weights.T)

    def lists(self, items: NDArray[np.int64], relevant: CSR) -> TopLists:
        """Return the lists of a group by its own parameters.

        Args:
            items: int64 [J], ascending.
            relevant: binary [B, I].
        """
        excluded, liked = (
            CSR.from_scipy(matrix.to_scipy()[:, items], binary=True) for matrix in (self._train, relevant)
        )
        scores = self._scored(self._weights[:, items], self._items[items])
        return TopLists.of(scores, excluded, liked, self._blocks, self._backend)

    def predict_columns(self, mean: sp.csr_array, owned: Sequence[float]) -> list[sp.csc_array]:
        """Return the weights of predicted items for each weight of an owned neighbor, float32 [I, J].

        Args:
            mean: A, float32 [J, I].
            owned: o of each.
        """
        return predict_all_columns(self._columns, mean, owned, self._blocks)

    def predict_vectors(self, mean: sp.csr_array) -> Vectors:
        """Return the vectors of predicted items at a gain of 1, float32 [J, D]; `mean` is A, float32 [J, I]."""
        return predict_rows(self._items, mean, Prediction())

    def predicted_lists(self, columns: sp.csc_array, vectors: Vectors, relevant: sp.csr_array) -> TopLists:
        """Return the lists of a group by predicted parameters at a gain of 1.

        Args:
            columns: weights, float32 [I, J].
            vectors: float32 [J, D].
            relevant: binary [B, J].
        """
        nothing = CSR.from_scipy(sp.csr_array(relevant.shape, dtype=np.float32), binary=True)
        scores = self._scored(columns, vectors)
        liked = CSR.from_scipy(relevant, binary=True)
        return TopLists.of(scores, nothing, liked, self._blocks, self._backend)

    def _scored(self, columns: sp.sparray, vectors: Vectors) -> MixedScores:
        scores, weights = self._scores, CSR.from_scipy(sp.csr_array(columns))
        if scores.user_vectors is None:
            return MixedScores(scores.user_items, weights, scores.scale)
        return MixedScores(scores.user_items, weights, scores.scale, scores.user_vectors, vectors)

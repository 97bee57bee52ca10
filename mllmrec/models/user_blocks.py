"""Ranks and lists of users in blocks: a block takes its users' rows, and the tables of the items that all share.

Each user's scores depend on nobody else's, and the kernels define them to the bit. So blocks give what one call over
all users gives. A scorer that is none of those below computes in this process, and the stage counts it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from mllmrec_kernels import CSR
from mllmrec_kernels.mixed.gram import GramFactor, scoring_factor
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Table, Work, rows_a_block
from mllmrec.evaluation.groups import FittedRanker, ItemRanker, Ranker
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph import neighbors
from mllmrec.models.base import Recommender
from mllmrec.models.baselines import UntrainedContent
from mllmrec.models.item_knn import AllNeighborsScorer, ItemKNN, weighted_interactions
from mllmrec.models.scorer_model import EmbeddingModel, FittedScorer, ScorerModel
from mllmrec.models.scoring import USERS, Lists, Part, VectorScorer
from mllmrec.models.weight_scorers import MixedScorer, StandardizedScorer, SumScorer, WeightsScorer

# A worker encodes the items, which costs as much as to rank some 4,000 users with a limit, or to list some 500. Its
# blocks of one work share them.
_RANKED, _LISTED = 1 << 12, 1 << 9  # users of a block, at least
_SUMMED = 1 << 15  # likewise over all neighbors, for each block multiplies X^T X out
_OfItems: TypeAlias = WeightsScorer | StandardizedScorer | SumScorer


class RankedPart(Part, ItemRanker, Protocol):
    """A part of a model that ranks, lists and scores."""


@dataclass(frozen=True, slots=True)
class _Tables:
    """A scorer taken apart for workers.

    Attributes:
        kind: which scorer it is.
        rows: tables of the named users.
        shared: tables that all users read.
        settings: JSON-like.
    """

    kind: str
    rows: Mapping[str, Table]
    shared: Mapping[str, Table]
    settings: Mapping[str, Any] = field(default_factory=dict)


def _take_apart(scorer: object, users: NDArray[np.int64]) -> _Tables | None:
    """Return the tables of some users; None for a scorer that workers do not know."""
    if isinstance(scorer, VectorScorer):
        return _Tables("vectors", {"user_vectors": scorer.users[users]}, {"item_vectors": scorer.items})
    if isinstance(scorer, UntrainedContent):
        return _take_apart(scorer.of(users), np.arange(len(users)))
    if isinstance(scorer, WeightsScorer):
        return _Tables("weights", {"user_items": scorer.user_items.take_rows(users)}, {"weights": scorer.weights})
    if isinstance(scorer, StandardizedScorer | SumScorer):
        first, rest = _take_apart(scorer.weights, users), _take_apart(scorer.rest, users)
        assert first is not None
        assert rest is not None
        kind = "standardized" if isinstance(scorer, StandardizedScorer) else "sum"
        return _Tables(kind, {**first.rows, **rest.rows}, {**first.shared, **rest.shared})
    if isinstance(scorer, ItemKNN) and scorer.config.n_neighbors == 0 and scorer.user_items is not None:
        settings = {"weighting": scorer.config.weighting}
        owned, training = scorer.user_items.take_rows(users), scorer.user_items
        return _Tables("all neighbors", {"user_items": owned}, {"training": training}, settings)
    if isinstance(scorer, ScorerModel):
        return _take_apart(scorer.scorer, users)
    return None


def _put_together(block: Block) -> FittedScorer:
    """Return the scorer of the block's users, who are numbered from 0."""
    kind = block.settings["kind"]
    if kind == "all neighbors":
        factor = block.once("X", lambda: _all_neighbors(block))
        return AllNeighborsScorer(block.matrix("user_items"), factor)
    if kind == "vectors":
        return _vectors(block)
    weights = WeightsScorer(block.matrix("user_items"), _weights(block))
    scorer: _OfItems = weights
    if kind != "weights":
        scorer = (StandardizedScorer if kind == "standardized" else SumScorer)(weights, _vectors(block))
    scorer.__dict__["items"] = block.once("items", lambda: scorer.items)  # not encoded anew for each block
    return scorer


def _all_neighbors(block: Block) -> GramFactor:
    return scoring_factor(weighted_interactions(block.matrix("training"), block.settings["weighting"]))


def _vectors(block: Block) -> VectorScorer:
    return VectorScorer(block.array("user_vectors"), block.array("item_vectors"))


def _weights(block: Block) -> CSR | NDArray[np.float32]:
    return block.matrix("weights") if isinstance(block.shared["weights"], CSR) else block.array("weights")


@dataclass(frozen=True, slots=True)
class _InBlocks:
    """Ranks held-out items in blocks of users.

    Attributes:
        model: a fitted model, or a part of one; ranks in this process if workers do not know it.
        blocks: workers that rank.
    """

    model: ItemRanker
    blocks: Blocks

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
        users = np.flatnonzero(np.diff(heldout.indptr))
        tables = _take_apart(self.model, users)
        if tables is None or not len(users):
            self.blocks.counts["models_not_in_blocks"] += tables is None
            return self.model.ranks(exclude, heldout, limit=limit, progress=progress)
        rows = {**tables.rows, "exclude": exclude.take_rows(users), "heldout": heldout.take_rows(users)}
        settings = {"kind": tables.kind, "limit": limit, **tables.settings}
        size = rows_a_block(len(users), USERS, least=_SUMMED if tables.kind == "all neighbors" else _RANKED)
        work = Work(rank_block, "rank users", len(users), size, rows, tables.shared, settings)
        return self.blocks.run(work, progress)["ranks"]


@dataclass(frozen=True, slots=True)
class BlockRanker(_InBlocks):
    """Ranks held-out items by a model, in blocks of users; see _InBlocks."""

    model: Ranker

    def among(self, items: NDArray[np.int64]) -> ItemRanker:
        """Return the ranker of only some items, in this process; see Recommender.among."""
        return self.model.among(items)

    def release(self) -> None:
        """Drop what ranks derived from the fitted arrays in this process; see FittedRanker."""
        if isinstance(self.model, FittedRanker):
            self.model.release()


@dataclass(frozen=True, slots=True)
class BlockPart(_InBlocks):
    """Ranks, lists and scores by one part of a model, in blocks of users; see Part and _InBlocks."""

    model: RankedPart

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """Return the k best items of each user; see top_by_user.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, I], items not to list.
        """
        return _top(self.model, users, k, exclude, self.blocks, "list items") or self.model.top(users, k, exclude)

    def scores_of(self, users: NDArray[np.int64], items: CSR) -> NDArray[np.float32]:
        """Return the scores of the entries of items [B, I], float32 [items.nnz]; see Part."""
        tables = _take_apart(self.model, users)
        if tables is None or not len(users):
            self.blocks.counts["models_not_in_blocks"] += tables is None
            return self.model.scores_of(users, items)
        rows, settings = {**tables.rows, "listed": items}, {"kind": tables.kind, **tables.settings}
        size = rows_a_block(len(users), USERS, least=_LISTED)
        work = Work(score_block, "score listed items", len(users), size, rows, tables.shared, settings)
        return self.blocks.run(work)["scores"]


def part_in_blocks(part: RankedPart, blocks: Blocks | None) -> RankedPart:
    """Return a part as it ranks, lists and scores in blocks; as it is if there are no workers."""
    return BlockPart(part, blocks) if blocks else part


def score_block(block: Block) -> Arrays:
    """Return the scores of the items that the block's users list."""
    scorer, listed = _put_together(block), block.matrix("listed")
    assert isinstance(scorer, MixedScorer | VectorScorer)
    return {"scores": scorer.scores_of(np.arange(listed.n_rows), listed)}


def rank_block(block: Block) -> Arrays:
    """Return the ranks of the held-out items of the block's users."""
    scorer = _put_together(block)
    return {"ranks": scorer.ranks(block.matrix("exclude"), block.matrix("heldout"), limit=block.settings["limit"])}


def in_blocks(models: Mapping[str, Ranker], blocks: Blocks | None) -> Mapping[str, Ranker]:
    """Return the models as they rank in blocks; as they are if there are no workers."""
    return {name: BlockRanker(model, blocks) for name, model in models.items()} if blocks else models


def top_in_blocks(model: Recommender, users: NDArray[np.int64], k: int, known: CSR, blocks: Blocks) -> Lists | None:
    """Return the top-k of each user; None for a model that workers do not know.

    Args:
        model: a fitted model.
        users: int64 [B].
        k: items per user.
        known: [B, I], items not to list.
        blocks: workers that list.
    """
    return _top(model, users, k, known, blocks, "recommend to users")


def _top(model: object, users: NDArray[np.int64], k: int, known: CSR, blocks: Blocks, label: str) -> Lists | None:
    """Return the top-k of each user; None for a scorer that workers do not know; see top_in_blocks."""
    tables = _take_apart(model, users)
    if tables is None or not len(users):
        blocks.counts["models_not_in_blocks"] += tables is None
        return None
    rows, settings = {**tables.rows, "exclude": known}, {"kind": tables.kind, "k": k, **tables.settings}
    size = rows_a_block(len(users), USERS, least=_LISTED)
    found = blocks.run(Work(top_block, label, len(users), size, rows, tables.shared, settings))
    return found["ids"], found["scores"]


def top_block(block: Block) -> Arrays:
    """Return the lists of the block's users."""
    scorer, exclude = _put_together(block), block.matrix("exclude")
    users, k = np.arange(exclude.n_rows), block.settings["k"]
    ids, scores = scorer.top(users, k, exclude)
    return {"ids": ids, "scores": scores}


def similar_items(model: Recommender, n_items: int, k: int, blocks: Blocks | None) -> Lists:
    """Return the k items most like each item; inner products in blocks, if there are workers.

    Args:
        model: a fitted model.
        n_items: items of the catalogue.
        k: items per list.
        blocks: workers that search; None: this process does.
    """
    if blocks and isinstance(model, EmbeddingModel) and type(model).similar_items is EmbeddingModel.similar_items:
        return neighbors.by_vectors(model.items, k, None, blocks=blocks)
    return model.similar_items(np.arange(n_items), k)

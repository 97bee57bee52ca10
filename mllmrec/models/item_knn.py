"""Item-kNN: an item adds its similarity to each of its k nearest items.

Two items are similar where the same users own both. With n_i users of item i, n_u items of user u, and
idf_u = log(I / (1 + n_u)), so that users of many items count less, S_ij = d_i d_j (sum of w_u over the users of both):

    cosine   w_u = 1       d_i = 1 / sqrt(n_i)                       (Deshpande and Karypis, TOIS 2004)
    tfidf    w_u = idf_u²  d_i = 1 / sqrt(sum of w_u over the users of i)
    bm25     w_u = idf_u²  d_i = 2.2 / (1 + 1.2 (1/4 + 3/4 n_i / mean of all n_i))

score_u = R_u S. The last two take items for documents and users for their words, with the weights and constants of
the library `implicit` (TFIDFRecommender, BM25Recommender). Memory: I k, and a block of rows of S.

With n_neighbors = 0 every neighbor counts. S = X^T X is then never formed: scores are (R_u X^T) X, and the diagonal of
S touches only a user's own items. So is the baseline of every evaluation, with cosine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, MixedScores, topk_mixed
from mllmrec_kernels.mixed.gram import GramFactor, gram_factor, score_by_gram, scoring_factor
from mllmrec_kernels.mixed.gram_ranks import rank_by_gram
from mllmrec_kernels.mixed.largest import nearest_by_gram
from numpy.typing import ArrayLike, NDArray
from pydantic import model_validator

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work
from mllmrec.config import Count, ModelConfig
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import FilePath, FitData, check_histories, user_rows
from mllmrec.models.item_weight_model import ItemWeightModel, best_of_rows
from mllmrec.models.recency import HalfLives
from mllmrec.models.scorer_model import FittedScorer
from mllmrec.models.scoring import Lists, block_rows
from mllmrec.models.weight_scorers import MixedAmong, MixedScorer

_K1, _B = 1.2, 0.75  # of BM25
_USERS = 2_048  # listed at once, at most
_FEW_USERS = 256  # whose sums over all items are stored at once
_SUMS = 1 << 25  # numbers of sums over all neighbors that are held at once
Weighting = Literal["cosine", "tfidf", "bm25"]


class ItemKNNConfig(ModelConfig):
    """Settings of item-kNN."""

    kind: Literal["item-knn"] = "item-knn"
    n_neighbors: Count = 200  # k, the item itself not counted; 0: all
    weighting: Weighting = "tfidf"
    half_lives: HalfLives = (0.0,)  # of a user's items; of several, validation chooses

    @model_validator(mode="after")
    def _check_half_lives(self) -> Self:
        if self.n_neighbors == 0 and self.half_lives != (0.0,):
            raise ValueError("half_lives needs n_neighbors above 0")
        return self


class ItemKNN(ItemWeightModel):
    """See the module."""

    derived = ("_factor",)
    _X: sp.csr_array | None = None  # where all neighbors count
    _factor: GramFactor | None = None  # the same, for the kernels

    Config = ItemKNNConfig
    config: ItemKNNConfig
    title = "item-kNN, weighted"  # "item-kNN" is the baseline, with cosine and all neighbors
    reads = frozenset()
    candidates = tuple(
        (f"model.weighting={weighting}", f"model.n_neighbors={k}")
        for weighting in ("tfidf", "cosine", "bm25")
        for k in (200, 1000, 50)
    )

    def _fit(self, data: FitData) -> None:
        """Find the nearest items of each item; those that share no user are none."""
        R, k = data.user_items, self.config.n_neighbors
        X = weighted_interactions(R, self.config.weighting)
        if k == 0:
            self._X, self._factor = X, None
            return
        if self.context.blocks:
            self.choose_rows(data, _in_blocks(R, self.config, self.context.blocks), self.config.half_lives)
            return
        self.context.progress("fit item-kNN", 0, 1)
        nearest = nearest_by_gram(gram_factor(X), k)
        self.context.progress("fit item-kNN", 1, 1)
        self.choose_rows(data, nearest, self.config.half_lives)

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        return f"{self.config.weighting}, all neighbors" if self.config.n_neighbors == 0 else super().summary

    @property
    def scorer(self) -> Any:
        """Sums over all neighbors, or over the nearest ones."""
        if self._X is None or self.user_items is None:
            return super().scorer
        return self._all_neighbors(self.user_items)

    def _all_neighbors(self, user_items: CSR) -> AllNeighborsScorer:
        """Return the scorer of some users' rows; X as the kernels take it is made once."""
        assert self._X is not None
        if self._factor is None:
            self._factor = scoring_factor(self._X)
        return AllNeighborsScorer(user_items, self._factor)

    def _add_items(self, features: Vectors, shares: sp.csr_array) -> None:
        if self._X is None:
            super()._add_items(features, shares)
        else:
            self._X, self._factor = sp.hstack([self._X, self._X @ shares.T], format="csr"), None

    def _fold_in(self, histories: CSR) -> FittedScorer:
        if self._X is None:
            return super()._fold_in(histories)
        return self._all_neighbors(check_histories(histories, self._X.shape[1]))

    def similar_items(self, items: ArrayLike, k: int) -> Lists:
        """Return the k most similar items; see Recommender."""
        if self._X is None:
            return super().similar_items(items, k)
        rows = user_rows(items)
        return best_of_rows(_largest(self._X.T.tocsr()[rows] @ self._X, rows, k), k)

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote; of all neighbors X is computed again."""
        super().read_files(path)
        if self.config.n_neighbors == 0 and self.user_items is not None:
            self._X, self._factor = weighted_interactions(self.user_items, self.config.weighting), None
        return self


@dataclass(frozen=True, slots=True)
class AllNeighborsScorer(MixedScorer):
    """Sums of similarities over all neighbors, (R_u X^T) X.

    Attributes:
        user_items: R, binary [U, I].
        factor: X, float64 [V, I], with S = X^T X; see the module.
    """

    user_items: CSR
    factor: GramFactor

    def scores(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the scores of users [B], float32 [B, I]."""
        return np.asarray(self._sums(users).to_scipy().toarray(), dtype=np.float32)

    def mixed(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] as the kernels take them: sparse rows, times the identity."""
        every = np.arange(self.user_items.n_columns)
        return MixedScores(self._sums(users), CSR.from_pairs(every, every, (len(every), len(every))))

    def _sums(self, users: NDArray[np.int64]) -> CSR:
        return score_by_gram(self.factor, self.user_items.take_rows(users))

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
        users = int((np.diff(heldout.indptr) > 0).sum())
        progress("rank users", 0, users)
        return rank_by_gram(
            self.factor, self.user_items, exclude, heldout,
            limit=limit, report=lambda done: progress("rank users", done, users),
        )  # fmt: skip

    def among(self, items: NDArray[np.int64]) -> MixedAmong:
        """Return the scorer of only some items, int64 [m]; see Recommender.among."""
        return MixedAmong(self.mixed, items, users=_FEW_USERS)

    def top(self, users: NDArray[np.int64], k: int, exclude: CSR) -> Lists:
        """Return the k best items of each user; see top_by_user.

        Args:
            users: int64 [B].
            k: items per user.
            exclude: [B, I], items not to list.
        """
        ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
        block = max(1, min(_USERS, _SUMS // max(1, exclude.n_columns)))
        for start in range(0, len(users), block):
            rows = np.arange(start, min(start + block, len(users)))
            ids[rows], scores[rows] = topk_mixed(self.mixed(users[rows]), k, exclude=exclude.take_rows(rows))
        return ids, scores


def weighted_interactions(user_items: CSR, weighting: Weighting) -> sp.csr_array:
    """Return X, float64 [U, I], with S = X^T X."""
    owned = user_items.to_scipy().astype(np.float64)
    users_of = np.bincount(user_items.indices, minlength=user_items.n_columns)  # n_i, [I]
    idf = np.log(user_items.n_columns / (1 + np.diff(user_items.indptr)))  # [U]
    counted = np.ones_like(idf) if weighting == "cosine" else np.abs(idf)  # sqrt(w_u)
    if weighting == "bm25":
        scale = (_K1 + 1) / (1 + _K1 * (1 - _B + _B * users_of / max(users_of.mean(), 1e-9)))
    else:
        length = owned.T @ counted**2  # 0 where nobody owns the item, or only users whose idf is 0
        scale = np.divide(1, np.sqrt(length), out=np.zeros(len(length)), where=length > 0)
    return sp.csr_array(owned.multiply(counted[:, None]).multiply(scale[None, :]))


def _in_blocks(user_items: CSR, config: ItemKNNConfig, blocks: Blocks) -> CSR:
    """Return the similarities to the nearest items, [I, I], from workers."""
    n = user_items.n_columns
    settings = {"weighting": config.weighting, "k": config.n_neighbors}
    work = Work(neighbors_block, "fit item-kNN", n, block_rows(n), {}, {"user_items": user_items}, settings)
    found = blocks.run(work)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(found["lengths"], dtype=np.int64)])
    return CSR.from_scipy(sp.csr_array((found["values"], found["items"], indptr), shape=(n, n)))


def neighbors_block(block: Block) -> Arrays:
    """Return the nearest items of the block's items: their number, ids and similarities."""
    X = block.once("X", lambda: weighted_interactions(block.matrix("user_items"), block.settings["weighting"]))
    by_item = block.once("by item", X.T.tocsr)
    items = np.arange(block.start, block.stop)
    nearest = _largest(by_item[block.start : block.stop] @ X, items, block.settings["k"])
    return {"lengths": np.diff(nearest.indptr), "items": nearest.indices, "values": nearest.data}


def _largest(similar: sp.csr_array, items: NDArray[np.int64], k: int) -> sp.csr_array:
    """Return the k largest entries above 0 of each row, its own item left out; of equal ones the lower ids.

    Args:
        similar: [B, I], rows of S; changed.
        items: int64 [B], the item of each row.
        k: entries per row.
    """
    rows = np.repeat(np.arange(similar.shape[0]), np.diff(similar.indptr))
    similar.data[similar.indices == items[rows]] = 0
    order = np.lexsort((similar.indices, -similar.data, rows))  # within each row by value
    place = np.arange(len(order)) - similar.indptr[rows]
    kept = order[(place < k) & (similar.data[order] > 0)]
    values = similar.data[kept].astype(np.float32)
    return sp.csr_array((values, (rows[kept], similar.indices[kept])), shape=similar.shape)

"""Choose how new items are predicted and shown, by hiding known items.

A share of the known items is hidden from every history, and users are placed anew by what is left (fold_in). The
hidden items are predicted as new ones are, from the items that stay known. Each setting of the prediction gets the
highest offset at which known items lose at most a given share of their validation quality. The setting is chosen
under which the hidden items reach the highest NDCG@20. `ItemPlacer` then puts predicted parameters into the tables of
the fitted model.

Two things have seen the interactions of hidden items: the fitted weights of known items, and the scale of each part.
Tables of users and predictions have not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.evaluation.groups import is_warm
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.new_item_lists import ItemGroups, Quality, TopLists, highest_offset, loss
from mllmrec.models.new_items import (
    HalfWhitening,
    Prediction,
    all_neighbor_weights,
    predict_columns,
    predict_rows,
    spread_columns,
)
from mllmrec.models.validation import spread_users
from mllmrec.models.weight_scorers import StandardizedScorer

HIDDEN = 0.1  # share of the known items
USERS = 20_000  # at most, spread evenly, whose lists choose
SHARPNESS = (2.0, 4.0, 8.0)
OWNED = (0.0, 0.3, 1.0)
GAINS = (0.7, 1.0, 1.4)
FoldIn = Callable[[CSR], StandardizedScorer]
Predicted = tuple[NDArray[np.int64], sp.csc_array, Vectors]


@dataclass(frozen=True, slots=True)
class Placement:
    """The prediction and the offset of new items, and their effect as it was measured.

    Attributes:
        prediction: of their parameters.
        offset: added to their scores.
        hidden: known items that were hidden to choose it.
        recall: Recall@20 of the hidden items, in lists that they share with the known ones.
        ndcg: NDCG@20 of the same.
        lost_recall: share of Recall@20 that the known items lost to the hidden ones.
        lost_ndcg: share of NDCG@20, likewise.
    """

    prediction: Prediction
    offset: float
    hidden: int
    recall: float
    ndcg: float
    lost_recall: float
    lost_ndcg: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields, JSON-like."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Placement:
        """Return the placement that `to_json` wrote."""
        numbers = {name: float(value) for name, value in values.items() if name not in ("prediction", "hidden")}
        prediction = Prediction(**{name: float(value) for name, value in values["prediction"].items()})
        return Placement(prediction=prediction, hidden=int(values["hidden"]), **numbers)


def choose_placement(
    fold_in: FoldIn,
    train: CSR,
    valid: CSR,
    features: Vectors,
    share: float,
    seed: int,
    progress: Progress = silent,
    blocks: Blocks | None = None,
) -> Placement | None:
    """Choose a placement of new items.

    Args:
        fold_in: returns a scorer of users by their histories [B, I].
        train: binary [U, I], training interactions.
        valid: binary [U, I], validation interactions.
        features: float32 [I, d], vectors of all items.
        share: of Recall@20 and NDCG@20 that known items may lose, above 0.
        seed: of the hidden items.
        progress: called after each setting of the prediction.
        blocks: workers that predict and list instead of this process.

    Returns:
        The placement; None where too little is known to hide anything, or no validation item is listed.
    """
    known = np.flatnonzero(is_warm(train) & features.any(axis=1))
    hidden = np.sort(np.random.default_rng(seed).choice(known, round(HIDDEN * len(known)), replace=False))
    histories, bought = split_columns(train, hidden)
    users = judging_users(histories, bought, valid)
    if not len(hidden) or not len(users):
        return None
    kept = np.setdiff1d(known, hidden)
    rows = histories.take_rows(users)
    groups = ItemGroups(fold_in(rows), np.arange(len(users)), rows, blocks)
    known_lists = groups.lists(kept, valid.take_rows(users))
    if not known_lists.hits.any():
        return None
    best: Placement | None = None
    liked = bought.take_rows(users).to_scipy()[:, hidden]
    means = _all_means(features, hidden, kept, blocks)
    for n, (sharpness, near) in enumerate(zip(SHARPNESS, means, strict=True)):
        mean = spread_columns(near, kept, train.n_columns)
        vectors = groups.predict_vectors(mean)
        for m, (owned, columns) in enumerate(zip(OWNED, groups.predict_columns(mean, OWNED), strict=True), start=1):
            at_scale = groups.predicted_lists(columns, vectors, liked)
            for gain in GAINS:
                new_lists = replace(at_scale, scores=np.float32(gain) * at_scale.scores)
                offset = highest_offset(known_lists, new_lists, share)
                reached, lost = judge(known_lists, new_lists, offset)
                if best is None or reached.ndcg > best.ndcg:
                    prediction = Prediction(sharpness, owned, gain)
                    best = Placement(prediction, offset, len(hidden), *reached, *lost)
            progress("place new items", n * len(OWNED) + m, len(SHARPNESS) * len(OWNED))
    return best


def _all_means(
    features: Vectors, hidden: NDArray[np.int64], kept: NDArray[np.int64], blocks: Blocks | None
) -> list[sp.csr_array]:
    """Return A of the hidden items among those that stay known, for each of SHARPNESS; see new_items.py."""
    x = HalfWhitening.of(features)(features)
    new, x = x[hidden], x[kept]
    return all_neighbor_weights(new, x, SHARPNESS, blocks)


def judge(known: TopLists, new: TopLists, offset: float) -> tuple[Quality, tuple[float, ...]]:
    """Return the quality of new items at an offset, and the shares of Recall@20 and NDCG@20 that known ones lose.

    Args:
        known: lists of known items.
        new: lists of new items, with an offset of 0.
        offset: added to the scores of new items.
    """
    alone = known.quality_beside(new, np.inf, is_first=True)
    beside = known.quality_beside(new, -offset, is_first=True)
    return new.quality_beside(known, offset, is_first=False), loss(alone, beside)


def split_columns(matrix: CSR, columns: NDArray[np.int64]) -> tuple[CSR, CSR]:
    """Return the matrix without some columns, and with these alone; both have its shape."""
    chosen = np.zeros(matrix.n_columns, bool)
    chosen[columns] = True
    at, rows = chosen[matrix.indices], matrix.rows()
    rest, own = (CSR.from_pairs(rows[keep], matrix.indices[keep], matrix.shape) for keep in (~at, at))
    return rest, own


def of_known_items(valid: CSR, train: CSR) -> CSR:
    """Return the validation interactions with known items; all of them if that leaves nobody to judge.

    Args:
        valid: binary [U, I].
        train: binary [U, I].
    """
    known, _ = split_columns(valid, np.flatnonzero(~is_warm(train)))
    judged = (np.diff(known.indptr) > 0) & (np.diff(train.indptr) > 0)
    return known if judged.any() else valid


def judging_users(histories: CSR, bought: CSR, valid: CSR) -> NDArray[np.int64]:
    """Return users with a history who bought a hidden item or have validation items, at most USERS, spread evenly.

    Args:
        histories: [U, I], without the hidden items.
        bought: [U, I], the hidden items alone.
        valid: [U, I].
    """
    histories_of, bought_of, valid_of = (np.diff(matrix.indptr) for matrix in (histories, bought, valid))
    users = np.flatnonzero((histories_of > 0) & (bought_of + valid_of > 0))
    return spread_users(users, USERS)


@dataclass(frozen=True, slots=True)
class ItemPlacer:
    """Predicts the parameters of new items from their vectors; see new_items.py.

    Attributes:
        whitening: of item vectors.
        known: int64 [K], ascending, items with training interactions.
        vectors: x of the known items, float32 [K, r].
        placement: how they are predicted and shown.
    """

    whitening: HalfWhitening
    known: NDArray[np.int64]
    vectors: Vectors
    placement: Placement

    @staticmethod
    def of(placement: Placement, train: CSR, features: Vectors) -> ItemPlacer:
        """Return the placer of a fit.

        Args:
            placement: chosen by choose_placement.
            train: binary [U, I], training interactions.
            features: float32 [I, d], item vectors.
        """
        whitening = HalfWhitening.of(features)
        known = np.flatnonzero(is_warm(train))
        return ItemPlacer(whitening, known, whitening(features[known]), placement)

    def predict_items(
        self,
        items: NDArray[np.int64],
        features: Vectors,
        weights: sp.csr_array,
        table: Vectors,
        blocks: Blocks | None = None,
    ) -> Predicted:
        """Return the items that can be placed, their columns [I, J] and their rows, float32 [J, D].

        An item cannot be placed if it has no vector, or is like no known item.

        Args:
            items: int64, ascending.
            features: float32, a vector of each.
            weights: W, float32 [I, I].
            table: item vectors of the other parts, float32 [I, D].
            blocks: workers that predict instead of this process.
        """
        prediction = self.placement.prediction
        (near,) = all_neighbor_weights(self.whitening(features), self.vectors, [prediction.sharpness], blocks)
        placed = np.flatnonzero(np.diff(near.indptr))
        mean = spread_columns(near[placed], self.known, weights.shape[1])
        columns = predict_columns(weights, mean, prediction, blocks)
        return items[placed], columns, predict_rows(table, mean, prediction)

    def with_offset(self, offset: float) -> ItemPlacer:
        """Return the placer with another offset of new items."""
        return replace(self, placement=replace(self.placement, offset=offset))


def replace_columns(weights: sp.csr_array, items: NDArray[np.int64], columns: sp.csc_array) -> CSR:
    """Return weights [I, I] with the columns of some items replaced.

    Args:
        weights: W, float32 [I, I].
        items: int64 [J], ascending, whose columns change.
        columns: float32 [I, J].
    """
    is_replaced = np.zeros(weights.shape[1], bool)
    is_replaced[items] = True
    values = np.where(is_replaced[weights.indices], np.float32(0), weights.data)
    others = sp.csr_array((values, weights.indices, weights.indptr), shape=weights.shape)  # the sum drops the zeros
    return CSR.from_scipy(others + spread_columns(sp.csr_array(columns), items, weights.shape[1]))


def lowered_offset(
    scorer: StandardizedScorer,
    new: NDArray[np.int64],
    train: CSR,
    valid: CSR,
    share: float,
    most: float,
    blocks: Blocks | None = None,
) -> float:
    """Return the highest offset of new items, at most `most`, that keeps the loss of known ones.

    Without a user to judge it by that is `most`.

    Args:
        scorer: with the new items in its tables, at an offset of 0.
        new: int64, ascending.
        train: binary [U, I], training interactions.
        valid: binary [U, I], validation interactions.
        share: of Recall@20 and NDCG@20 that known items may lose.
        most: the offset that was chosen on hidden items.
        blocks: workers that list instead of this process.
    """
    users = judging_users(train, valid, valid)
    if not len(users):
        return most
    groups, held = ItemGroups(scorer, users, train, blocks), valid.take_rows(users)
    known = np.flatnonzero(is_warm(train))
    return min(most, highest_offset(groups.lists(known, held), groups.lists(new, held), share))

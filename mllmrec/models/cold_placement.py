"""Put the predicted parameters of new items into the tables of a fitted model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.evaluation.groups import is_warm
from mllmrec.features.encode import Vectors
from mllmrec.models.cold_choice import ItemGroups, Placement, judging_users, spread_columns
from mllmrec.models.cold_items import HalfWhitening, neighbor_weights, predict_columns, predict_rows
from mllmrec.models.cold_lists import highest_offset
from mllmrec.models.weight_scorers import StandardizedScorer

Predicted = tuple[NDArray[np.int64], sp.csc_array, Vectors]


@dataclass(frozen=True, slots=True)
class ItemPlacer:
    """Predicts the parameters of items from their vectors; see cold_items.py.

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
        self, items: NDArray[np.int64], features: Vectors, weights: sp.csr_array, table: Vectors
    ) -> Predicted:
        """Return those items that can be placed, their columns [I, J] and their rows, float32 [J, D].

        An item without a vector, or like no known item, cannot.

        Args:
            items: int64, ascending.
            features: float32, a vector of each.
            weights: W, float32 [I, I].
            table: item vectors of the other parts, float32 [I, D].
        """
        prediction = self.placement.prediction
        near = neighbor_weights(self.whitening(features), self.vectors, prediction.sharpness)
        placed = np.flatnonzero(np.diff(near.indptr))
        mean = spread_columns(near[placed], self.known, weights.shape[1])
        columns = predict_columns(weights, mean, prediction)
        return items[placed], columns, predict_rows(table, mean, prediction)

    def with_offset(self, offset: float) -> ItemPlacer:
        """Return the placer with another offset of new items."""
        return replace(self, placement=replace(self.placement, offset=offset))


def replace_columns(weights: sp.csr_array, items: NDArray[np.int64], columns: sp.csc_array) -> CSR:
    """Return weights [I, I] with other columns in the place of some.

    Args:
        weights: W, float32 [I, I].
        items: int64 [J], ascending, whose columns change.
        columns: float32 [I, J].
    """
    kept = np.ones(weights.shape[1], np.float32)
    kept[items] = 0
    others = (weights @ sp.diags_array(kept)).tocsr()
    others.eliminate_zeros()
    return CSR.from_scipy(others + spread_columns(sp.csr_array(columns), items, weights.shape[1]))


def lowered_offset(
    scorer: StandardizedScorer, new: NDArray[np.int64], train: CSR, valid: CSR, share: float, most: float
) -> float:
    """Return the highest offset of new items, at most `most`, that keeps the loss of known ones.

    Args:
        scorer: with the new items in its tables, at an offset of 0.
        new: int64, ascending.
        train: binary [U, I], training interactions.
        valid: binary [U, I], validation interactions.
        share: of Recall@20 and NDCG@20 that known items may lose.
        most: the offset that was chosen on hidden items.
    """
    users = judging_users(train, valid, valid)
    groups, held = ItemGroups(scorer, users, train), valid.take_rows(users)
    known = np.flatnonzero(is_warm(train))
    return min(most, highest_offset(groups.lists(known, held), groups.lists(new, held), share))

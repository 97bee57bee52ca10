"""Choose how new items are predicted and shown: known items are hidden, and what is chosen puts them best.

A share of the known items is hidden from every history, and the users are placed anew by what is left (fold_in). The
hidden items are predicted as new ones are, from the items that stay known. For each setting of the prediction, the
offset is the highest at which validation of the known items loses at most the given share; the setting stays under
which the hidden items reach the highest NDCG@20.

A fitted weight of a known item has seen the hidden items' interactions, as has the scale of a part; no table of users
and no prediction has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, MixedScores
from numpy.typing import NDArray

from mllmrec.evaluation.groups import is_warm
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.cold_items import Prediction, neighbor_weights, predict_columns, predict_rows
from mllmrec.models.cold_lists import Quality, TopLists, highest_offset, loss
from mllmrec.models.weight_scorers import StandardizedScorer

HIDDEN = 0.1  # share of the known items
USERS = 20_000  # whose lists choose, at most; of more, so many spread evenly
SHARPNESS = (2.0, 4.0, 8.0)
OWNED = (0.0, 0.3, 1.0)
GAINS = (0.7, 1.0, 1.4)
FoldIn = Callable[[CSR], StandardizedScorer]


@dataclass(frozen=True, slots=True)
class Placement:
    """Hold how new items are predicted and shown, and what that was measured to do.

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
    vectors: Vectors,
    share: float,
    seed: int,
    progress: Progress = silent,
) -> Placement | None:
    """Choose a placement of new items.

    Args:
        fold_in: returns a scorer of users by their histories [B, I].
        train: binary [U, I], training interactions.
        valid: binary [U, I], validation interactions.
        vectors: x of all items, float32 [I, r].
        share: of Recall@20 and NDCG@20 that known items may lose, above 0.
        seed: of the hidden items.
        progress: called after each setting of the prediction.

    Returns:
        The placement; None where too little is known to hide anything, or no validation item is listed.
    """
    known = np.flatnonzero(is_warm(train) & vectors.any(axis=1))
    hidden = np.sort(np.random.default_rng(seed).choice(known, round(HIDDEN * len(known)), replace=False))
    histories, bought = split_columns(train, hidden)
    users = judging_users(histories, bought, valid)
    if not len(hidden) or not len(users):
        return None
    kept = np.setdiff1d(known, hidden)
    rows = histories.take_rows(users)
    groups = ItemGroups(fold_in(rows), np.arange(len(users)), rows)
    known_lists = groups.lists(kept, valid.take_rows(users))
    if not known_lists.hits.any():
        return None
    best: Placement | None = None
    liked = bought.take_rows(users).to_scipy()[:, hidden]
    for n, sharpness in enumerate(SHARPNESS):
        mean = spread_columns(neighbor_weights(vectors[hidden], vectors[kept], sharpness), kept, train.n_columns)
        for m, owned in enumerate(OWNED, start=1):
            at_scale = groups.predicted_lists(mean, Prediction(sharpness, owned), liked)
            for gain in GAINS:
                new_lists = replace(at_scale, scores=np.float32(gain) * at_scale.scores)
                offset = highest_offset(known_lists, new_lists, share)
                reached, lost = judge(known_lists, new_lists, offset)
                if best is None or reached.ndcg > best.ndcg:
                    prediction = Prediction(sharpness, owned, gain)
                    best = Placement(prediction, offset, len(hidden), *reached, *lost)
            progress("place new items", n * len(OWNED) + m, len(SHARPNESS) * len(OWNED))
    return best


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


class ItemGroups:
    """Some users, listed by groups of items.

    Args:
        scorer: of users and items.
        users: int64 [B].
        train: binary [U, I], items that are not listed.
    """

    def __init__(self, scorer: StandardizedScorer, users: NDArray[np.int64], train: CSR) -> None:
        self._scores, self._train = scorer.mixed(users), train.take_rows(users)
        self._weights: sp.csr_array = scorer.weights.matrix
        self._by_column: sp.csc_array = self._weights.tocsc()  # once for all predictions
        self._items = scorer.rest.items

    def lists(self, items: NDArray[np.int64], relevant: CSR) -> TopLists:
        """Return the lists of a group by its own parameters.

        Args:
            items: int64 [J], ascending.
            relevant: binary [B, I].
        """
        excluded, liked = (
            CSR.from_scipy(matrix.to_scipy()[:, items], binary=True) for matrix in (self._train, relevant)
        )
        return TopLists.of(self._scored(self._weights[:, items], self._items[items]), excluded, liked)

    def predicted_lists(self, mean: sp.csr_array, prediction: Prediction, relevant: sp.csr_array) -> TopLists:
        """Return the lists of a group by predicted parameters.

        Args:
            mean: A, float32 [J, I].
            prediction: of the parameters.
            relevant: binary [B, J].
        """
        columns = predict_columns(self._by_column, mean, prediction)
        nothing = CSR.from_scipy(sp.csr_array(relevant.shape, dtype=np.float32), binary=True)
        scores = self._scored(columns, predict_rows(self._items, mean, prediction))
        return TopLists.of(scores, nothing, CSR.from_scipy(relevant, binary=True))

    def _scored(self, columns: sp.sparray, vectors: Vectors) -> MixedScores:
        scores, weights = self._scores, CSR.from_scipy(sp.csr_array(columns))
        if scores.user_vectors is None:
            return MixedScores(scores.user_items, weights, scores.scale)
        return MixedScores(scores.user_items, weights, scores.scale, scores.user_vectors, vectors)


def split_columns(matrix: CSR, columns: NDArray[np.int64]) -> tuple[CSR, CSR]:
    """Return the matrix without some columns, and with these alone; both have its shape."""
    chosen = np.zeros(matrix.n_columns, bool)
    chosen[columns] = True
    at, rows = chosen[matrix.indices], matrix.rows()
    rest, own = (CSR.from_pairs(rows[keep], matrix.indices[keep], matrix.shape) for keep in (~at, at))
    return rest, own


def of_known_items(valid: CSR, train: CSR) -> CSR:
    """Return the validation interactions with items that have training ones; all of them where no such are left.

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
    return users if len(users) <= USERS else users[np.linspace(0, len(users) - 1, USERS).astype(np.int64)]


def spread_columns(matrix: sp.csr_array, columns: NDArray[np.int64], width: int) -> sp.csr_array:
    """Return a matrix whose column k is column columns[k] of `width`.

    Args:
        matrix: [J, K].
        columns: int64 [K], ascending.
        width: columns of the result.
    """
    return sp.csr_array((matrix.data, columns[matrix.indices], matrix.indptr), shape=(matrix.shape[0], width))

"""First parts of the ensemble: item-item weights, single and in sums, on rows of the half-life that suits them.

With W_k the weights of a model of items (a ridge, item-kNN, transitions), and s_k the mean over users of sd(R_u W_k), a
sum is

    W = sum over k of c_k W_k / s_k.

Candidates are the sum of both ridges, that sum with 0.3 times item-kNN, the ridge on the projected vectors, and
item-kNN alone. Where training interactions have times or places, there are two more: the sum of the ridges with 0.5 and
with 1 times item transitions (transitions.py). Validation then chooses half-lives of the users' rows (recency.py),
which may be none: one for each sum with transitions, and one for all others, judged by the sum of the ridges.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from mllmrec_kernels import CSR, row_spread
from mllmrec_kernels.mixed.weighted_sum import weighted_sum

from mllmrec.blocks.stage import Blocks
from mllmrec.dataset import Histories
from mllmrec.foundation.progress import Progress
from mllmrec.models.base import FitContext
from mllmrec.models.item_knn import ItemKNN
from mllmrec.models.transitions import transition_weights
from mllmrec.models.validation import Validation
from mllmrec.models.weight_scorers import WeightsScorer

RIDGE, KNN, TRANSITIONS = "ridge", "item-kNN", "transitions"
NEIGHBORS = 200  # of item-kNN, whose weighting is tf-idf
_KNN_SHARE = 0.3  # c of item-kNN beside the ridges, whose c is 1
_TRANSITION_SHARES = (0.5, 1.0)  # c of transitions, each a candidate
_SPREAD_USERS = 2_048  # whose spread gives s, about
RidgeSettings = tuple[int, float, float]  # table (0: vectors, 1: projected ones), w and lambda


@dataclass(frozen=True, slots=True)
class FirstSettings:
    """Hold what a first part is made of.

    Attributes:
        ridges: settings of each ridge in it.
        shares: c of each kind of weights in it, by name.
        half_life: of the users' rows, in items; 0: none.
        scales: c_k / s_k of each matrix in the sum, ridges first; empty of files that do not have them.
    """

    ridges: tuple[RidgeSettings, ...]
    shares: Mapping[str, float]
    half_life: float = 0.0
    scales: tuple[float, ...] = ()

    @property
    def reads_order(self) -> bool:
        """Return whether training interactions must have times or places."""
        return bool(self.half_life) or TRANSITIONS in self.shares

    def as_json(self) -> dict[str, Any]:
        """Return the settings JSON-like."""
        return asdict(self)

    @staticmethod
    def of_json(notes: Mapping[str, Any]) -> FirstSettings:
        """Return what `as_json` gave."""
        ridges = tuple((int(table), float(w), float(strength)) for table, w, strength in notes["ridges"])
        shares = {str(name): float(share) for name, share in notes["shares"].items()}
        scales = tuple(map(float, notes.get("scales", ())))
        return FirstSettings(ridges, shares, float(notes["half_life"]), scales)


@dataclass(frozen=True, slots=True)
class FirstPart:
    """Item-item weights and the rows that they are multiplied with.

    Attributes:
        settings: what it is made of.
        add: returns W, [I, I]; a sum is added up when it is first read, and kept.
        rows: of the users, [U, I].
    """

    settings: FirstSettings
    add: Callable[[], CSR]
    rows: CSR

    @property
    def weights(self) -> CSR:
        """Return W, [I, I]."""
        return self.add()

    @property
    def scorer(self) -> WeightsScorer:
        """Return the scores R_u W."""
        return WeightsScorer(self.rows, self.weights)


def first_parts(
    ridges: Mapping[RidgeSettings, CSR],
    others: Mapping[str, CSR],
    rows: Mapping[float, CSR],
    validation: Validation,
    progress: Progress,
) -> list[FirstPart]:
    """Return the candidates.

    Args:
        ridges: W of a ridge on each table of vectors, the projected ones last.
        others: W of item-kNN, and of transitions where interactions have an order.
        rows: of the users for each half-life in items, to choose from; 0: none.
        validation: training interactions, and the users that choose a half-life.
        progress: called while users are ranked.
    """
    chosen, firsts = dict[float, float](), []
    for used, shares in _candidates(tuple(ridges), others):
        matrices = [(shares[RIDGE], ridges[one]) for one in used]
        matrices += [(c, others[name]) for name, c in shares.items() if name != RIDGE]
        scales = _scales(matrices, validation.train)
        add = partial(_add, [(scale, W) for scale, (_, W) in zip(scales, matrices, strict=True)])
        followed = shares.get(TRANSITIONS, 0.0)
        if followed not in chosen:
            chosen[followed] = _half_life(add, " and ".join(shares), rows, validation, progress)
        half_life = chosen[followed]
        firsts.append(FirstPart(FirstSettings(used, shares, half_life, scales), add, rows[half_life]))
    return firsts


def _candidates(
    ridges: tuple[RidgeSettings, ...], others: Collection[str]
) -> list[tuple[tuple[RidgeSettings, ...], dict[str, float]]]:
    """Return the ridges and the shares of each candidate; without ridges that is item-kNN alone."""
    alone: list[tuple[tuple[RidgeSettings, ...], dict[str, float]]] = [((), {KNN: 1.0})] if KNN in others else []
    if not ridges:
        return alone
    more: list[dict[str, float]] = [{}, {KNN: _KNN_SHARE}] if KNN in others else [{}]
    more += [{TRANSITIONS: share} for share in _TRANSITION_SHARES if TRANSITIONS in others]
    sums = [(ridges, {RIDGE: 1.0} | shares) for shares in more]
    last = [(ridges[-1:], {RIDGE: 1.0})] if len(ridges) > 1 else []
    return [*sums, *last, *alone]


def _half_life(
    add: Callable[[], CSR], name: str, rows: Mapping[float, CSR], validation: Validation, progress: Progress
) -> float:
    """Return the half-life that validation chooses for W.

    Args:
        add: returns W.
        name: of W, as progress says it.
        rows: of the users for each half-life.
        validation: the users that choose.
        progress: called while users are ranked.
    """
    half_lives, best = list(rows), 0
    if len(rows) > 1:
        W = add()
        scorers = (WeightsScorer(row, W) for row in rows.values())
        best, _ = validation.best(f"half-lives of {name}", scorers, progress)
    return half_lives[best]


def other_weights(
    names: Sequence[str], user_items: CSR, histories: Histories | None, blocks: Blocks | None = None
) -> dict[str, CSR]:
    """Return W of item-kNN and of transitions, those that are named.

    Args:
        names: of them.
        user_items: R, binary [U, I].
        histories: the same interactions in their order; None: no order is known.
        blocks: workers that fit item-kNN instead of this process.
    """
    weights = dict[str, CSR]()
    if KNN in names:
        knn = ItemKNN(n_neighbors=NEIGHBORS, context=FitContext(blocks=blocks)).fit(user_items)
        assert isinstance(knn.weights, CSR)
        weights[KNN] = knn.weights
    if TRANSITIONS in names and histories is not None:
        weights[TRANSITIONS] = transition_weights(user_items, histories)
    return weights


def _scales(matrices: Sequence[tuple[float, CSR]], user_items: CSR) -> tuple[float, ...]:
    """Return c_k / s_k of each matrix; 1 for a single one, which stands as it is.

    Args:
        matrices: c and W of each.
        user_items: R, binary [U, I]; rows spread evenly over the filled ones give s.
    """
    if len(matrices) == 1:
        return (1.0,)
    filled = np.flatnonzero(np.diff(user_items.indptr))
    rows = user_items.take_rows(filled[:: max(1, len(filled) // _SPREAD_USERS)])
    spreads = [float(row_spread(rows, W).mean()) for _, W in matrices]
    return tuple(c / spread if spread else 0.0 for (c, _), spread in zip(matrices, spreads, strict=True))


def _add(scaled: Sequence[tuple[float, CSR]]) -> CSR:
    """Return the sum of matrices by their scales; a single one as it is."""
    return scaled[0][1] if len(scaled) == 1 else weighted_sum(scaled)

"""Bring users' lists up to date by scoring only the items that a model fitted again (refit.py).

| user | list |
|---|---|
| fitted again, new, or with another set of known items | scored anew over the whole catalogue |
| no listed item was fitted again, and no such item scores above the list's last place | kept with its scores |
| any other | the listed items and the best of those fitted again, by the scores of today |

An item on neither side of the third row is not looked at. It scored at most what the last listed item did, so a place
with a lower score is uncertain. A user with more than one uncertain place in UNCERTAIN is scored anew as well, and so
is one whose list as many as ENTERING refitted items would enter: no more of them are looked for. The scale of a user's
sums is that of the earlier list; what the refitted items would move it by is left out. So some lists are made anew all
the same, and the share of their items that the updated lists have is reported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from mllmrec_kernels import CSR, MixedScores, row_spread, score_mixed, sum_pairs
from mllmrec_kernels.mixed.scores import inverse_spread
from numpy.typing import NDArray

from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.scoring import USERS, Lists
from mllmrec.models.validation import spread_users
from mllmrec.models.weight_scorers import MixedAmong, StandardizedScorer

UNCERTAIN = 10  # places of a list for each that may be uncertain
ENTERING = 4  # refitted items that are looked for
SHOWN = 0.01  # of a score, the share of the sums from which their scale is told
CHECKED = 1_000  # users whose updated lists are compared with new ones, at most


@dataclass(frozen=True, slots=True)
class ListCounts:
    """Counts of an update.

    Attributes:
        items: scored for everybody.
        anew: users listed over the whole catalogue.
        merged: users whose list was joined with refitted items.
        kept: users whose list is the earlier one.
        checked: users of the last two who were listed anew as well.
        same: share of the items of their new lists that the updated ones have; NaN if nobody was checked.
    """

    items: int
    anew: int
    merged: int
    kept: int
    checked: int
    same: float

    def __str__(self) -> str:
        kept = f"{self.kept:,} lists are those of the earlier run, {self.merged:,} were joined with refitted items"
        text = f"{self.anew:,} users scored over all items, the others over {self.items:,}: {kept}"
        if not self.checked:
            return text
        return f"{text}; of {self.checked:,} listed anew as well, {self.same:.1%} of the items are the same"


def update_lists(
    scorer: StandardizedScorer,
    items: NDArray[np.int64],
    before: Lists,
    stale: NDArray[np.bool_],
    exclude: CSR,
    list_anew: Callable[[NDArray[np.int64]], Lists],
    progress: Progress = silent,
) -> tuple[Lists, ListCounts]:
    """Return the k best items of every user, and how they were found.

    Args:
        scorer: of the model of today.
        items: int64, ascending, fitted again.
        before: ids int32 [V, k] padded with -1, and scores float32 [V, k], of the first V <= U users.
        stale: bool [U], users whose list is made anew.
        exclude: binary [U, I], items that are not listed.
        list_anew: returns the lists of users [B] over the whole catalogue.
        progress: called after each block of users.
    """
    (known, k), n_users = before[0].shape, exclude.n_rows
    ids, scores = np.full((n_users, k), -1, np.int32), np.full((n_users, k), -np.inf, np.float32)
    ids[:known], scores[:known] = before
    anew, merged = stale.copy(), 0
    anew[known:] = True
    rest = np.flatnonzero(~anew)
    if len(items):
        joined = _Joiner(scorer, items, exclude)
        progress("update lists", 0, len(rest))
        for start in range(0, len(rest), USERS):
            users = rest[start : start + USERS]
            touched, lists, is_uncertain = joined.join(users, (ids[users], scores[users]))
            ids[touched], scores[touched] = lists
            anew[touched[is_uncertain]] = True
            merged += len(touched) - int(is_uncertain.sum())
            progress("update lists", start + len(users), len(rest))
    rows = np.flatnonzero(anew)
    ids[rows], scores[rows] = list_anew(rows)
    kept = np.flatnonzero(~anew)
    checked = spread_users(kept, CHECKED) if len(items) else kept[:0]
    same = _share(ids[checked], list_anew(checked)[0]) if len(checked) else float("nan")
    counts = ListCounts(len(items), len(rows), merged, len(kept) - merged, len(checked), same)
    return (ids, scores), counts


class _Joiner:
    """Joins lists with the items that were fitted again.

    Args:
        scorer: of the model of today.
        items: int64, ascending, fitted again.
        exclude: binary [U, I], items that are not listed.
    """

    def __init__(self, scorer: StandardizedScorer, items: NDArray[np.int64], exclude: CSR) -> None:
        self._scorer, self._items, self._among = scorer, items, MixedAmong(self._scaled, items)
        self._excluded = CSR.from_scipy(exclude.to_scipy()[:, items], binary=True)
        self._is_again = np.zeros(exclude.n_columns, bool)
        self._is_again[items] = True
        self._scale = np.zeros(exclude.n_rows, np.float32)

    def _scaled(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of users [B] for all items, by the scales that were set."""
        rest = self._scorer.rest
        vectors = rest.users[users] if rest.items.shape[1] else None
        rows = self._scorer.weights.user_items.take_rows(users)
        return MixedScores(rows, self._scorer.items, self._scale[users], vectors)

    def _set_scale(self, users: NDArray[np.int64], lists: Lists) -> None:
        """Set the scale of each user's sums to what it is in the scores of the earlier list.

        The first listed item that was not fitted again tells it: its sum and its inner product are those of before. So
        the scores of today stand on the scale of the list. A user without such an item, or whose item has no sum that
        shows in the score, gets 1 / the spread of the sums of today.
        """
        (listed, scores), rows, rest = lists, np.arange(len(users)), self._scorer.rest
        R, W = self._scorer.weights.user_items.take_rows(users), self._scorer.weights.weights
        if not isinstance(W, CSR):
            self._scale[users] = inverse_spread(row_spread(R, W))
            return
        usable = (listed >= 0) & ~self._is_again[listed]
        places = usable.argmax(axis=1)
        has, scale = usable[rows, places], np.zeros(len(users))
        ids, score = listed[rows, places][has], scores[rows, places][has].astype(np.float64)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(has)])
        sums = sum_pairs(R, W, CSR(ends, ids, None, len(self._is_again))).astype(np.float64)
        part = score - np.einsum("nd,nd->n", rest.users[users[has]], rest.items[ids], dtype=np.float64)
        shows = (sums != 0) & (np.abs(part) > SHOWN * np.abs(score))
        scale[has] = np.divide(part, sums, out=np.zeros(len(ids)), where=shows)
        unknown = np.flatnonzero(~(scale > 0))
        if len(unknown):
            scale[unknown] = inverse_spread(row_spread(R.take_rows(unknown), W))
        self._scale[users] = scale

    def join(self, users: NDArray[np.int64], lists: Lists) -> tuple[NDArray[np.int64], Lists, NDArray[np.bool_]]:
        """Return the users whose lists change, their lists, and bool: whether too many places are uncertain.

        Args:
            users: int64 [B].
            lists: theirs, of the earlier model.
        """
        (listed, before), k = lists, lists[0].shape[1]
        self._set_scale(users, lists)
        bounds = before[:, -1]
        again = (listed >= 0) & self._is_again[listed]
        floor = np.where(again.any(axis=1), -np.inf, bounds).astype(np.float32)  # such lists take lower ones too
        best, values = self._among.top_above(users, min(k, ENTERING), self._excluded.take_rows(users), floor)
        touched = again.any(axis=1) | (values[:, 0] > bounds)
        offered = np.where(best >= 0, self._items[best], -1)[touched]
        candidates = np.concatenate([np.where(again, -1, listed)[touched], offered], axis=1)
        found = self._best(users[touched], candidates, k)
        is_uncertain = (found[1] < bounds[touched, None]).sum(axis=1) > k // UNCERTAIN
        if k > ENTERING:
            is_uncertain |= values[touched, -1] > bounds[touched]
        return users[touched], found, is_uncertain

    def _best(self, users: NDArray[np.int64], candidates: NDArray[np.int64], k: int) -> Lists:
        """Return the k best of each user's candidates, padded with -1."""
        ids = np.sort(candidates, axis=1).astype(np.int32)
        filled, values = ids >= 0, np.full(ids.shape, -np.inf, np.float32)
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(filled.sum(axis=1))])
        pairs = CSR(ends, ids[filled], None, len(self._is_again))
        values[filled] = score_mixed(self._scaled(users), pairs)
        order = np.argsort(-values, axis=1, kind="stable")[:, :k]  # of equal scores the lower id
        return np.take_along_axis(ids, order, axis=1), np.take_along_axis(values, order, axis=1)


def _share(lists: NDArray[np.int32], others: NDArray[np.int32]) -> float:
    """Return the share of the items of `others` [B, k] that stand on `lists` [B, k] as well."""
    rows = np.arange(len(lists), dtype=np.int64)[:, None] << 32
    common = np.isin((rows + others)[others >= 0], (rows + lists)[lists >= 0])
    return float(common.mean()) if len(common) else float("nan")

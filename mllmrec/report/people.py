"""Users as the page shows them: what they have, what was said of them, what they would be shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from mllmrec.audit.profiles import ProfileFinding
from mllmrec.report.profile_page import ItemShown, show_item
from mllmrec.views import RunView

PICTURE_BUDGET = 3 << 20  # characters of embedded pictures a page; items beyond it are shown without
_HISTORY, _LISTED, _HELD_OUT = 8, 8, 5  # items of each kind that are shown of a user


class Shelf:
    """Items of one or more runs of a dataset, with pictures until the page's budget for them is spent."""

    def __init__(self, budget: int = PICTURE_BUDGET) -> None:
        self._left = budget

    def item(self, view: RunView, index: int) -> ItemShown:
        """One item by its index."""
        shown = show_item(view, index, pictures=self._left > 0)
        self._left -= len(shown.picture or "")
        return shown


@dataclass(frozen=True, slots=True)
class Person:
    """One user.

    Attributes:
        id: the shop's id.
        profile: its text, empty where there is none.
        finding: what is measured of the profile, None where nothing is.
        history: the newest training items, newest first; `more` older ones are left out.
        recommended: (item, score), best first.
        popular: whether the list is what is popular, for want of a training item.
        heldout: (item, the model's rank from 1) of test items: seen by no stage, shown to judge by.
    """

    id: str
    profile: str
    finding: ProfileFinding | None
    history: tuple[ItemShown, ...]
    more: int
    recommended: tuple[tuple[ItemShown, float], ...]
    popular: bool
    heldout: tuple[tuple[ItemShown, int], ...]

    @property
    def tags(self) -> list[str]:
        """What is wrong with the profile."""
        if self.finding is None:
            return []
        wrong = (("generic", self.finding.generic), ("same text as another user's", self.finding.twin))
        return [tag for tag, holds in wrong if holds]


class People:
    """The users of one run.

    Args:
        view: the run.
        shelf: where the page's pictures come from.
        stages: those of the run that can be shown.
    """

    def __init__(self, view: RunView, shelf: Shelf, stages: Iterable[str]) -> None:
        self._view, self._shelf, self._stages = view, shelf, set(stages)
        self._histories = view.dataset.histories("train")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item: n for n, item in enumerate(self._view.dataset.item_ids.to_list())}

    def spread(self, count: int) -> list[int]:
        """So many users with a training item, spread evenly over the lengths of their histories."""
        lengths = np.diff(self._histories.indptr)
        order = np.argsort(lengths, kind="stable")[int((lengths == 0).sum()) :]
        places = ((np.arange(min(count, len(order))) + 0.5) * len(order) / max(1, min(count, len(order)))).astype(int)
        return [int(user) for user in order[places]]

    def show(
        self, users: Sequence[int], findings: Sequence[ProfileFinding] = (), *, listed: int = _LISTED
    ) -> list[Person]:
        """Some users by index; `findings` go with those they are of."""
        ids = [str(self._view.dataset.users[user]) for user in users]
        of = {finding.user: finding for finding in findings}
        lists = self._rows("recommend", ids)
        held = self._rows("evaluate", ids)
        return [
            self._one(user, of.get(user), lists[name], held[name], listed)
            for user, name in zip(users, ids, strict=True)
        ]

    def _rows(self, stage: str, ids: Sequence[str]) -> dict[str, pl.DataFrame]:
        """Rows of the stage's table by user: one pass, however many users there are."""
        if stage not in self._stages:
            return dict.fromkeys(ids, pl.DataFrame())
        table = self._view.recommendations.users if stage == "recommend" else self._view.evaluation.heldout
        few = table.filter(pl.col("user").is_in(ids))
        return {name: few.filter(pl.col("user") == name) for name in ids}

    def _one(
        self, user: int, finding: ProfileFinding | None, lists: pl.DataFrame, held: pl.DataFrame, listed: int
    ) -> Person:
        items = self._histories.of(user)
        newest = items[::-1][:_HISTORY]
        model = held.columns[-1] if held.width else ""
        return Person(
            id=str(self._view.dataset.users[user]),
            profile=self._view.profiles.table["profile"][user] if "profile" in self._stages else "",
            finding=finding,
            history=tuple(self._shelf.item(self._view, int(item)) for item in newest),
            more=len(items) - len(newest),
            recommended=tuple(
                (self._item(row["item"]), row["score"]) for row in lists.head(listed).iter_rows(named=True)
            ),
            popular="source" in lists.columns and "popularity" in lists["source"].to_list(),
            heldout=tuple(
                (self._item(row["item"]), row[model] + 1)
                for row in held.sort(model).head(_HELD_OUT).iter_rows(named=True)
            )
            if model
            else (),
        )

    def _item(self, name: str) -> ItemShown:
        return self._shelf.item(self._view, self._index[name])

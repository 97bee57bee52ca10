"""The card of a user and the card of an item: printed by `mllmrec show` and `inspect`, laid out on every page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.audit.profiles import ProfileFinding
from mllmrec.report.page import thumbnail
from mllmrec.runs import Run

PICTURE_BUDGET = 3 << 20  # characters of embedded pictures per page; items beyond it are shown without
_FAULTY = ("flagged", "suspect", "unusable", "failed")  # statuses of profiles that a card gives the reason of
_SHOWN, _HELD_OUT = 8, 5  # items of a history or list, and held-out items, that are shown of a user


@dataclass(frozen=True, slots=True)
class ItemCard:
    """One item.

    Attributes:
        id, title, brand, categories, description: of the catalogue; empty if it has none.
        pictures: the description of its pictures.
        status: of that description, with the reason if it failed.
        thumbnail: its picture as a data URL, None if there is none or the page has enough.
        similar: the items most like it, with their scores.
    """

    id: str
    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    pictures: str
    status: str
    thumbnail: str | None = None
    similar: tuple[tuple[ItemCard, float], ...] = ()

    @property
    def text(self) -> str:
        """Return the catalogue's text but the title, in one line."""
        return " | ".join(part for part in (self.brand, " > ".join(self.categories), self.description) if part)

    def as_dict(self) -> dict[str, Any]:
        """Return the card JSON-like, without its picture."""
        keys = ("id", "title", "brand", "categories", "description", "pictures", "status")
        return {key: getattr(self, key) for key in keys} | {"similar": _listed(self.similar)}


@dataclass(frozen=True, slots=True)
class UserCard:
    """One user.

    Attributes:
        id: the shop's id.
        profile: its text, empty if there is none.
        fault: what a check found in the text, or why there is none; empty if all is well.
        history: the newest training items, newest first; `more` older ones are left out.
        recommended: (item, score), best first.
        popular: whether the list is the popular items, for want of a training item.
        heldout: (item, the model's rank from 1, as text) of test items: seen by no stage, shown to judge by.
        finding: the measures of the profile, None if it is not measured.
    """

    id: str
    profile: str
    history: tuple[ItemCard, ...]
    more: int
    fault: str = ""
    recommended: tuple[tuple[ItemCard, float], ...] = ()
    popular: bool = False
    heldout: tuple[tuple[ItemCard, str], ...] = ()
    finding: ProfileFinding | None = None

    @property
    def tags(self) -> list[str]:
        """Return the faults of the profile."""
        own = [self.fault] if self.fault else []
        if self.finding is None:
            return own
        faults = (("generic", self.finding.generic), ("same text as another user's", self.finding.twin))
        return [*own, *(tag for tag, holds in faults if holds)]

    def as_dict(self) -> dict[str, Any]:
        """Return the card JSON-like, the history oldest first."""
        history = [(item, None) for item in reversed(self.history)]
        listed = {"history": _listed(history), "profile": self.profile, "recommended": _listed(self.recommended)}
        return {"id": self.id} | listed


def _listed(items: Iterable[tuple[ItemCard, float | None]]) -> list[dict[str, Any]]:
    return [{"id": item.id, "title": item.title, "score": score} for item, score in items]


class Thumbnails:
    """The pictures of a page, until its budget for them is spent."""

    def __init__(self, budget: int = PICTURE_BUDGET) -> None:
        self._left = budget

    def of(self, run: Run, names: Sequence[str]) -> str | None:
        """Return the first usable picture of an item."""
        if self._left <= 0:
            return None
        picture = next((url for name in names if (url := thumbnail(run.dataset.folder / name))), None)
        self._left -= len(picture or "")
        return picture


class Cards:
    """The cards of a run's users and items.

    Args:
        run: the run.
        pictures: the page's pictures; by default cards have none.
        stages: the stages of the run that can be shown; by default the run must have all that a card needs.
    """

    def __init__(self, run: Run, pictures: Thumbnails | None = None, stages: Iterable[str] | None = None) -> None:
        self._run, self._pictures = run, pictures
        self._stages = {"describe", "profile", "recommend"} if stages is None else set(stages)
        self._histories = run.dataset.histories("train")

    @cached_property
    def _index(self) -> dict[str, int]:
        return {item: n for n, item in enumerate(self._run.dataset.item_ids.to_list())}

    def item(self, index: int) -> ItemCard:
        """Return the card of an item by its index, without the items like it."""
        row = self._run.dataset.items.row(index, named=True)
        described = self._run.descriptions.table.row(index, named=True) if "describe" in self._stages else None
        return ItemCard(
            id=row["id"],
            title=row["title"] or "",
            brand=row["brand"] or "",
            categories=tuple(row["categories"] or ()),
            description=row["description"] or "",
            pictures=described["description"] if described else "",
            status=": ".join(filter(None, (described["status"], described["reason"]))) if described else "",
            thumbnail=self._pictures.of(self._run, row["images"] or ()) if self._pictures else None,
        )

    def item_by_id(self, item: str) -> ItemCard:
        """Return the card of an item by the shop's id, with the items like it.

        Raises:
            InputError: there is no such item.
        """
        card = self.item(self._run.dataset.item_index(item))
        rows = self._run.recommendations.items.filter(pl.col("item") == item)
        return replace(card, similar=self._scored(rows, "similar"))

    def user_by_id(self, user: str) -> UserCard:
        """Return the card of a user by the shop's id, with the whole history and list.

        Raises:
            InputError: there is no such user.
        """
        (card,) = self.users([user], most=None)
        return card

    def users(
        self,
        ids: Sequence[str],
        findings: Sequence[ProfileFinding] = (),
        *,
        most: int | None = _SHOWN,
        listed: int = _SHOWN,
    ) -> list[UserCard]:
        """Return the cards of users.

        Args:
            ids: the shop's ids.
            findings: the measures of profiles; each goes with the user that it is of.
            most: items of a history and of a list at most; None for all.
            listed: items of a list at most, if `most` is not None.
        """
        of = {finding.id: finding for finding in findings}
        lists, held = self._rows("recommend", ids), self._rows("evaluate", ids)
        shown = None if most is None else listed
        return [self._user(user, of.get(user), lists[user][:shown], held[user], most) for user in ids]

    def _rows(self, stage: str, ids: Sequence[str]) -> dict[str, pl.DataFrame]:
        """Return the rows of the stage's table by user: one pass, however many users there are."""
        if stage not in self._stages:
            return dict.fromkeys(ids, pl.DataFrame())
        table = self._run.recommendations.users if stage == "recommend" else self._run.evaluation.heldout
        few = table.filter(pl.col("user").is_in(ids))
        return {name: few.filter(pl.col("user") == name) for name in ids}

    def _user(
        self, user: str, finding: ProfileFinding | None, lists: pl.DataFrame, held: pl.DataFrame, most: int | None
    ) -> UserCard:
        index = self._run.dataset.user_index(user)
        items = self._histories.of(index)
        newest = items[::-1][:most]
        return UserCard(
            id=user,
            profile=self._run.profiles.table["profile"][index] if "profile" in self._stages else "",
            fault=self._fault(index),
            history=tuple(self.item(int(item)) for item in newest),
            more=len(items) - len(newest),
            recommended=self._scored(lists, "item") if lists.width else (),
            popular="source" in lists.columns and "popularity" in lists["source"].to_list(),
            heldout=self._ranked(held),
            finding=finding,
        )

    def _fault(self, user: int) -> str:
        """Return status and reason of a profile that a check found fault with; empty if all is well."""
        if "profile" not in self._stages:
            return ""
        status, reason = self._run.profiles.table.select("status", "reason").row(user)
        return f"{status}: {reason}" if status in _FAULTY else ""

    def _ranked(self, held: pl.DataFrame) -> tuple[tuple[ItemCard, str], ...]:
        if not held.width:
            return ()
        model, farthest = held.columns[-1], self._run.evaluation.farthest
        best = held.sort(model).head(_HELD_OUT)
        return tuple(
            (self.item(self._index[item]), f"beyond {farthest:,}" if farthest and rank >= farthest else f"{rank + 1:,}")
            for item, rank in best.select("item", model).iter_rows()
        )

    def _scored(self, rows: pl.DataFrame, column: str) -> tuple[tuple[ItemCard, float], ...]:
        pairs = rows.select(column, "score").iter_rows()
        return tuple((self.item(self._index[item]), score) for item, score in pairs)

    def spread_users(self, count: int) -> list[str]:
        """Return ids of users spread evenly over the lengths of their histories: the same for every call.

        Each has a training item, and a list where lists can be shown.
        """
        lengths = np.diff(self._histories.indptr)
        order = np.argsort(lengths, kind="stable")[int((lengths == 0).sum()) :]
        if "recommend" in self._stages:
            served = self._run.dataset.users.is_in(self._run.recommendations.users["user"].unique().implode())
            order = order[served.to_numpy()[order]]
        return [str(self._run.dataset.users[int(user)]) for user in order[_spread(len(order), count)]]

    def spread_items(self, count: int) -> list[str]:
        """Return ids of items spread evenly over those with a described picture, or over all if there are none."""
        described = np.flatnonzero((self._run.descriptions.table["description"] != "").to_numpy())
        items = described if len(described) else np.arange(self._run.dataset.n_items)
        return [str(self._run.dataset.item_ids[int(item)]) for item in items[_spread(len(items), count)]]


def _spread(n: int, count: int) -> NDArray[np.int64]:
    """Return at most `count` places, spread evenly over n."""
    few = min(n, count)
    return ((np.arange(few) + 0.5) * n / max(1, few)).astype(np.int64)

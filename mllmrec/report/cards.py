"""The card of a user and the card of an item: what `mllmrec show` prints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from mllmrec.runs import Run


@dataclass(frozen=True, slots=True)
class ListedItem:
    """An item in a list: its id, its title, and a score where the list has one."""

    id: str
    title: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class UserCard:
    """One user: training history (oldest first), profile, and recommendations."""

    id: str
    history: tuple[ListedItem, ...]
    profile: str
    recommended: tuple[ListedItem, ...]


@dataclass(frozen=True, slots=True)
class ItemCard:
    """One item: its catalogue text, the description of its pictures, and the items most like it."""

    id: str
    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    pictures: str
    status: str
    similar: tuple[ListedItem, ...]


class Cards:
    """The cards of a run's users and items."""

    def __init__(self, run: Run) -> None:
        self._run = run
        items = run.dataset.items
        self._titles = dict(zip(items["id"].to_list(), items["title"].fill_null("").to_list(), strict=True))

    def user(self, user: str) -> UserCard:
        """Return the card of a user, named by the shop's id.

        Raises:
            InputError: there is no such user.
        """
        row = self._run.dataset.user_index(user)
        ids = self._run.dataset.item_ids.gather(self._run.dataset.histories("train").of(row))
        lists = self._run.recommendations.users.filter(pl.col("user") == user)
        return UserCard(
            id=user,
            history=tuple(ListedItem(i, self._titles[i]) for i in ids),
            profile=self._run.profiles.texts[row],
            recommended=self._list(lists, "item"),
        )

    def item(self, item: str) -> ItemCard:
        """Return the card of an item, named by the shop's id.

        Raises:
            InputError: there is no such item.
        """
        row = self._run.dataset.item_index(item)
        entry = self._run.dataset.items.row(row, named=True)
        description = self._run.descriptions.table.row(row, named=True)
        lists = self._run.recommendations.items.filter(pl.col("item") == item)
        return ItemCard(
            id=item,
            title=entry["title"] or "",
            brand=entry["brand"] or "",
            categories=tuple(entry["categories"] or ()),
            description=entry["description"] or "",
            pictures=description["description"],
            status=f"{description['status']}{': ' if description['reason'] else ''}{description['reason']}",
            similar=self._list(lists, "similar"),
        )

    def _list(self, rows: pl.DataFrame, column: str) -> tuple[ListedItem, ...]:
        return tuple(ListedItem(i, self._titles[i], s) for i, s in zip(rows[column], rows["score"], strict=True))

    def sample_users(self, count: int) -> list[str]:
        """Return users spread evenly over the lengths of their histories, the same for every call."""
        dataset = self._run.dataset
        lengths = np.diff(dataset.histories("train").indptr)
        served = set(self._run.recommendations.users["user"].unique().to_list())
        order = [dataset.users[int(n)] for n in np.argsort(lengths, kind="stable") if lengths[n]]
        return _spread([user for user in order if user in served], count)

    def sample_items(self, count: int) -> list[str]:
        """Return items spread evenly over the catalogue, those with a described picture first."""
        pictured = self._run.descriptions.table.filter(pl.col("description") != "")["id"].to_list()
        return _spread(pictured or self._run.dataset.item_ids.to_list(), count)


def _spread(ids: list[str], count: int) -> list[str]:
    places = (np.arange(count) + 0.5) * len(ids) / count
    return list(dict.fromkeys(ids[int(place)] for place in places)) if ids else []

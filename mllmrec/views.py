"""What a person wants to see of a run: one user, or one item, with everything said of them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from mllmrec.config import ModelConfig
from mllmrec.dataset import Dataset, load
from mllmrec.errors import InputError, near_miss
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.features.encode import Features
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.recommend import Recommendations
from mllmrec.runs import read_run, stage_file
from mllmrec.training.trainer import Fitted, fitted_type


@dataclass(frozen=True, slots=True)
class Shown:
    """An item in a list: its id, its title, and a score where the list has one."""

    id: str
    title: str
    score: float | None = None


@dataclass(frozen=True, slots=True)
class UserView:
    """One user: training history (oldest first), profile, and what they are recommended."""

    id: str
    history: tuple[Shown, ...]
    profile: str
    recommended: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class ItemView:
    """One item: its catalogue text, what was said of its pictures, and the items most like it."""

    id: str
    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    pictures: str
    status: str
    similar: tuple[Shown, ...]


class RunView:
    """A finished run, read back from its folder.

    Raises:
        InputError: `folder` is no run, or a stage of it is not done.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = read_run(folder)

    def _file(self, stage: str) -> Any:
        def path(name: str) -> Path:
            return stage_file(self.folder, stage, name, leaky=self.leaky)

        if not self.has(stage):
            raise InputError(f"{self.folder} has not finished {stage!r}; go on with {self.go_on}")
        return path

    def has(self, stage: str) -> bool:
        """Whether a stage is done."""
        return (self.folder / stage / "stage.json").exists()

    @property
    def go_on(self) -> str:
        """The command that finishes the run."""
        words = ["mllmrec", "run", self.record["dataset_folder"], "--out", str(self.folder)]
        return shlex.join([*words, "--config", str(self.folder / "config.toml")])

    @property
    def leaky(self) -> bool:
        """Whether the profiles saw held-out interactions."""
        return bool(self.record["leaky"])

    @cached_property
    def dataset(self) -> Dataset:
        """The dataset that the run was made from."""
        return load(Path(self.record["dataset_folder"]))

    @cached_property
    def descriptions(self) -> Descriptions:
        """What was said of each item's pictures."""
        return Descriptions.load(self._file("describe"))

    @cached_property
    def profiles(self) -> Profiles:
        """What was said of each user."""
        return Profiles.load(self._file("profile"))

    @cached_property
    def features(self) -> Features:
        """The vectors of items and users."""
        return Features.load(self._file("encode"))

    @cached_property
    def graph(self) -> ItemGraph:
        """The refined item graph."""
        return ItemGraph.load(self._file("graph"))

    @cached_property
    def fitted(self) -> Fitted:
        """The trained model."""
        kind = self.record["config"]["model"]["kind"]
        fitted: Fitted = fitted_type(ModelConfig.model_construct(kind=kind)).load(self._file("train"))
        return fitted

    @property
    def newest(self) -> int:
        """How many of a user's newest items a profile was made from."""
        return int(self.record["config"]["profile"]["max_items"])

    def item_index(self, item: str) -> int:
        """The index of an item by the shop's id.

        Raises:
            InputError: there is no such item.
        """
        return _find(self.dataset.item_ids, item, "item")

    @cached_property
    def evaluation(self) -> Evaluation:
        """The model beside its yardsticks."""
        return Evaluation.load(self._file("evaluate"))

    @cached_property
    def recommendations(self) -> Recommendations:
        """What users are shown."""
        return Recommendations.load(self._file("recommend"))

    @cached_property
    def _titles(self) -> dict[str, str]:
        items = self.dataset.items
        return dict(zip(items["id"].to_list(), items["title"].fill_null("").to_list(), strict=True))

    def user(self, user: str) -> UserView:
        """One user by the shop's id.

        Raises:
            InputError: there is no such user.
        """
        row = _find(self.dataset.users, user, "user")
        ids = self.dataset.item_ids.gather(self.dataset.histories("train").of(row))
        lists = self.recommendations.users.filter(pl.col("user") == user)
        return UserView(
            id=user,
            history=tuple(Shown(i, self._titles[i]) for i in ids),
            profile=self.profiles.texts[row],
            recommended=self._list(lists, "item"),
        )

    def item(self, item: str) -> ItemView:
        """One item by the shop's id.

        Raises:
            InputError: there is no such item.
        """
        row = self.item_index(item)
        entry = self.dataset.items.row(row, named=True)
        said = self.descriptions.table.row(row, named=True)
        lists = self.recommendations.items.filter(pl.col("item") == item)
        return ItemView(
            id=item,
            title=entry["title"] or "",
            brand=entry["brand"] or "",
            categories=tuple(entry["categories"] or ()),
            description=entry["description"] or "",
            pictures=said["description"],
            status=f"{said['status']}{': ' if said['reason'] else ''}{said['reason']}",
            similar=self._list(lists, "similar"),
        )

    def _list(self, rows: pl.DataFrame, column: str) -> tuple[Shown, ...]:
        return tuple(Shown(i, self._titles[i], s) for i, s in zip(rows[column], rows["score"], strict=True))

    def sample_users(self, count: int) -> list[str]:
        """Users spread evenly over the lengths of their histories, the same for every call."""
        lengths = np.diff(self.dataset.histories("train").indptr)
        served = set(self.recommendations.users["user"].unique().to_list())
        order = [self.dataset.users[int(n)] for n in np.argsort(lengths, kind="stable") if lengths[n]]
        return _spread([user for user in order if user in served], count)

    def sample_items(self, count: int) -> list[str]:
        """Items spread evenly over the catalogue, those with a described picture first."""
        pictured = self.descriptions.table.filter(pl.col("description") != "")["id"].to_list()
        return _spread(pictured or self.dataset.item_ids.to_list(), count)


def _spread(ids: list[str], count: int) -> list[str]:
    places = (np.arange(count) + 0.5) * len(ids) / count
    return list(dict.fromkeys(ids[int(place)] for place in places)) if ids else []


def _find(ids: pl.Series, wanted: str, what: str) -> int:
    places = (ids == wanted).arg_true()
    if len(places) == 0:
        raise InputError(f"there is no {what} {wanted!r}{near_miss(wanted, ids.to_list())}")
    return int(places[0])

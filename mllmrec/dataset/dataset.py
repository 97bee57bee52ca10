"""The dataset as every later stage sees it: ids mapped, split made, held-out rows out of reach by accident.

Stages that learn (profile, graph, train) are handed `Histories`, never the dataset's held-out rows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from mllmrec_kernels.base.csr import CSR
from numpy.typing import NDArray

from mllmrec.dataset.readers.times import PER_SECOND
from mllmrec.errors import InputError, LeakError, near_miss

Split = Literal["train", "valid", "test"]
Scope = Literal["train", "all"]
_SLICE = 4_000_000  # rows that are worked on at a time
SPLITS: tuple[Split, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Histories:
    """Each user's items, oldest first.

    Attributes:
        indptr: int64 [U + 1]; user u owns items[indptr[u]:indptr[u + 1]].
        items: int32 [n], item indices, oldest first within a user.
        times: int64 [n], seconds, aligned with items, or None if the data has no time.
        n_items: size of the catalogue.
        scope: "train", or "all" where held-out interactions are in it: such histories mark a run LEAKY.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    times: NDArray[np.int64] | None
    n_items: int
    scope: Scope

    @property
    def n_users(self) -> int:
        """Return the number of users U."""
        return len(self.indptr) - 1

    def of(self, user: int) -> NDArray[np.int32]:
        """Return the items of one user, oldest first, as a view."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    @property
    def digest(self) -> str:
        """Return the SHA-256 over the users' ordered item lists, which artefacts made from them carry."""
        hasher = hashlib.sha256(f"{self.scope} {self.n_users} {self.n_items} ".encode())
        hasher.update(np.ascontiguousarray(self.indptr, dtype="<i8").tobytes())
        hasher.update(np.ascontiguousarray(self.items, dtype="<i4").tobytes())
        return hasher.hexdigest()

    def user_items(self) -> CSR:
        """Return the binary matrix R, [U, I], rows ascending by item; built once, always the same object."""
        return self._user_items

    @cached_property
    def _user_items(self) -> CSR:
        users = np.repeat(np.arange(self.n_users, dtype=np.int64), np.diff(self.indptr))
        return CSR.from_pairs(users, self.items, (self.n_users, self.n_items))

    def times_by_item(self) -> NDArray[np.int64] | None:
        """Return the time of each entry of `user_items()`, int64 [n]; None if the data has no time.

        A user and an item must not repeat; no dataset has such repeats.
        """
        users = np.repeat(np.arange(self.n_users, dtype=np.int64), np.diff(self.indptr))
        return None if self.times is None else self.times[np.lexsort((self.items, users))]

    def require_training(self, what: str) -> None:
        """Refuse histories that hold held-out interactions.

        Raises:
            LeakError: `what` may be built from training interactions only.
        """
        if self.scope != "train":
            raise LeakError(f"{what} may be built from training interactions only; got scope {self.scope!r}")


@dataclass(frozen=True)
class Dataset:
    """A prepared dataset.

    Attributes:
        name: short name.
        users: [U] the shop's user ids; a user's index is its row.
        items: [I] rows: id, title, brand, categories, description, price, images (paths relative to
            `folder`), image_urls; an item's index is its row.
        interactions: user (Int32), item (Int32), rating (Float64), timestamp (Int64, in the manifest's unit), split
            (Int8: 0 train, 1 valid, 2 test); sorted by user, oldest first.
        manifest: counts, options, and hashes, as in manifest.json.
        folder: where it lies.
        features: item features that came with the data, file by name.
    """

    name: str
    users: pl.Series
    items: pl.DataFrame
    interactions: pl.DataFrame
    manifest: Mapping[str, Any]
    folder: Path
    features: Mapping[str, Path] = field(default_factory=dict)

    @property
    def n_users(self) -> int:
        """Return the number of users U."""
        return len(self.users)

    @property
    def n_items(self) -> int:
        """Return the number of items I, those without any training interaction included."""
        return len(self.items)

    @property
    def item_ids(self) -> pl.Series:
        """Return [I] the shop's item ids."""
        return self.items["id"]

    def item_index(self, item: str) -> int:
        """Return the index of an item by the shop's id.

        Raises:
            InputError: there is no such item.
        """
        return _find(self.item_ids, item, "item")

    def user_index(self, user: str) -> int:
        """Return the index of a user by the shop's id.

        Raises:
            InputError: there is no such user.
        """
        return _find(self.users, user, "user")

    def histories(self, scope: Scope = "train") -> Histories:
        """Return each user's items, oldest first; `scope="all"` adds held-out ones and marks a run LEAKY."""
        rows = self.interactions if scope == "all" else self.interactions.filter(pl.col("split") == 0)
        counts = np.bincount(rows["user"].to_numpy(), minlength=self.n_users)
        indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        timed = len(rows) > 0 and rows["timestamp"].null_count() == 0
        times = rows["timestamp"].to_numpy().astype(np.int64) // self.ticks_per_second if timed else None
        return Histories(indptr, rows["item"].to_numpy().astype(np.int32), times, self.n_items, scope)

    @property
    def ticks_per_second(self) -> int:
        """Units of `interactions["timestamp"]` in a second: the coarsest that keeps every time of the files."""
        return PER_SECOND[self.manifest.get("read", {}).get("time", {}).get("unit", "s")]

    def matrix(self, split: Split) -> CSR:
        """Return the binary matrix of one split, [U, I]."""
        rows = self.interactions.filter(pl.col("split") == SPLITS.index(split))
        return CSR.from_pairs(rows["user"].to_numpy(), rows["item"].to_numpy(), (self.n_users, self.n_items))

    @cached_property
    def train(self) -> CSR:
        """Return the training interactions, [U, I]."""
        return self.matrix("train")

    @cached_property
    def train_digest(self) -> str:
        """Return the digest of the training histories, which every artefact built from them carries."""
        return self.histories("train").digest

    @property
    def items_digest(self) -> str:
        """Return the content hash of the catalogue, its features included."""
        files = {name: sha for name, sha in self.manifest["files"].items() if not name.startswith("inter")}
        return hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()

    @property
    def split_digest(self) -> str:
        """Return the content hash of the interactions and their split."""
        return str(self.manifest["files"]["interactions.parquet"])

    def check_split(self) -> None:
        """Refuse a user-item pair that stands in two splits, or twice in one.

        Raises:
            LeakError: one does.
        """
        users, items = (self.interactions[side].to_numpy() for side in ("user", "item"))
        repeated = [place for span in user_spans(users) for place in _repeats(users, items, span)]
        if repeated:
            user, item = int(users[repeated[0]]), int(items[repeated[0]])
            raise LeakError(
                f"{self.folder}: {len(repeated)} interactions stand in the split more than once, the first "
                f"is user {self.users[user]!r} with item {self.item_ids[item]!r}; prepare the dataset again"
            )


def user_spans(users: NDArray[np.integer]) -> Iterator[slice]:
    """Yield slices of rows that hold all rows of their users, some million rows each; users ascend."""
    start = 0
    while start < len(users):
        stop = min(start + _SLICE, len(users))
        if stop < len(users):
            stop = int(np.searchsorted(users, users[stop - 1], side="right"))
        yield slice(start, stop)
        start = stop


def _repeats(users: NDArray[np.integer], items: NDArray[np.integer], span: slice) -> list[int]:
    """Return the rows of a span whose user and item stand in another of its rows, ascending."""
    pairs = np.sort(users[span].astype(np.int64) << 32 | items[span])  # a third of the time of ordering the rows
    if (pairs[1:] != pairs[:-1]).all():
        return []
    order = np.lexsort((items[span], users[span]))
    same = (np.diff(users[span][order]) == 0) & (np.diff(items[span][order]) == 0)
    return sorted({span.start + int(place) for n in np.flatnonzero(same) for place in order[n : n + 2]})


def _find(ids: pl.Series, name: str, kind: str) -> int:
    places = (ids == name).arg_true()
    if len(places) == 0:
        raise InputError(f"there is no {kind} {name!r}{near_miss(name, ids.to_list())}")
    return int(places[0])

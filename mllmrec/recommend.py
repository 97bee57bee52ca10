"""Stage 7: top-N for users and similar items for items, in the shop's own ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from mllmrec_kernels import topk_dot
from numpy.typing import NDArray

from mllmrec.config import RecommendConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError, near_miss
from mllmrec.foundation import storage
from mllmrec.models.baselines import popularity
from mllmrec.training.trainer import Fitted

TABLES = ("recommendations", "similar_items")


@dataclass(frozen=True, slots=True)
class Recommendations:
    """What the shop shows.

    Attributes:
        users: user, rank (from 1), item, score, source: "model", or "popularity" for users who have no
            training item to know them by.
        items: item, rank (from 1), similar, score: the cosine of trained item vectors, or
            the weight of an item-item model.
        suffix: "parquet" or "jsonl".
    """

    users: pl.DataFrame
    items: pl.DataFrame
    suffix: str

    @property
    def summary(self) -> str:
        """One line for a person."""
        return f"{len(self.users):,} recommendations to {self.users['user'].n_unique():,} users"

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write recommendations and similar_items, as parquet or as JSON lines."""
        names = [f"{table}.{self.suffix}" for table in TABLES]
        for name, table in zip(names, (self.users, self.items), strict=True):
            if self.suffix == "parquet":
                storage.write_table(path(name), table)
            else:
                with storage.atomic(path(name)) as temporary:
                    table.write_ndjson(temporary)
        return names

    @staticmethod
    def load(path: Callable[[str], Path]) -> Recommendations:
        """Read what save wrote."""
        suffix = "parquet" if path(f"{TABLES[0]}.parquet").exists() else "jsonl"
        read = pl.read_parquet if suffix == "parquet" else pl.read_ndjson
        users, items = (read(path(f"{table}.{suffix}")) for table in TABLES)
        return Recommendations(users, items, suffix)


def recommend_items(trained: Fitted, dataset: Dataset, config: RecommendConfig) -> Recommendations:
    """Top-N of every user (or of `config.users`), and the items most similar to each item.

    Nobody is shown an item that they are known to have: held-out interactions are used to leave items out
    here, and for nothing else.

    Raises:
        InputError: a named user is not in the dataset.
    """
    users = _chosen(dataset, config.users)
    histories = dataset.histories("train")
    known = dataset.histories("all").user_items().take_rows(users)
    ids, scores = trained.scorer.top(users, config.top, known)
    unknown = np.diff(histories.indptr)[users] == 0
    if unknown.any():
        popular, rows = popularity(histories), np.flatnonzero(unknown)
        ids[rows], scores[rows] = topk_dot(
            popular.users[users[rows]], popular.items, config.top, exclude=known.take_rows(rows)
        )
    similar_ids, similar_scores = trained.similar(config.similar)
    shown = _lists("user", dataset.users.gather(users), ids, scores, "item", dataset.item_ids)
    source = np.where(unknown, "popularity", "model")[_owners(ids)]
    return Recommendations(
        users=shown.with_columns(source=pl.Series(source)),
        items=_lists("item", dataset.item_ids, similar_ids, similar_scores, "similar", dataset.item_ids),
        suffix=config.format,
    )


def _chosen(dataset: Dataset, named: tuple[str, ...]) -> NDArray[np.int64]:
    if not named:
        return np.arange(dataset.n_users)
    index = {user: n for n, user in enumerate(dataset.users.to_list())}
    for user in named:
        if user not in index:
            raise InputError(f"{dataset.folder} has no user {user!r}{near_miss(user, index)}")
    return np.array([index[user] for user in named], dtype=np.int64)


def _owners(ids: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.nonzero(ids >= 0)[0]


def _lists(
    owner: str,
    owners: pl.Series,
    ids: NDArray[np.int32],
    scores: NDArray[np.float32],
    other: str,
    names: pl.Series,
) -> pl.DataFrame:
    """Neighbour lists, -1 padded, as a long table: owner, rank, other, score."""
    rows, places = np.nonzero(ids >= 0)
    return pl.DataFrame(
        {
            owner: owners.gather(rows),
            "rank": pl.Series(places + 1, dtype=pl.Int32),
            other: names.gather(ids[rows, places]),
            "score": scores[rows, places],
        }
    )

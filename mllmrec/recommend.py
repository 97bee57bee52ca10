"""Recommend: top-N for users and similar items for items, in the shop's own ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.config import RecommendConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.growth import changed_rows
from mllmrec.errors import InputError, MismatchError, near_miss
from mllmrec.evaluation.new_users import are_new
from mllmrec.foundation import storage
from mllmrec.foundation.memory import release_memory
from mllmrec.foundation.progress import Progress, silent
from mllmrec.foundation.tables import read_table, write_any
from mllmrec.models.base import Recommender
from mllmrec.models.baselines import popularity
from mllmrec.models.fitted_ensemble import FittedEnsemble
from mllmrec.models.gpu_parts import list_users
from mllmrec.models.list_update import update_lists
from mllmrec.models.scoring import Lists
from mllmrec.models.user_blocks import similar_items, top_in_blocks

if TYPE_CHECKING:
    import torch

_NOTES = "lists.json"
TABLES = ("recommendations", "similar_items")
COLUMNS: Mapping[str, Mapping[str, pl.DataType]] = {
    "recommendations": {
        "user": pl.String(),
        "rank": pl.Int32(),
        "item": pl.String(),
        "score": pl.Float32(),
        "source": pl.String(),
    },
    "similar_items": {"item": pl.String(), "rank": pl.Int32(), "similar": pl.String(), "score": pl.Float32()},
}


@dataclass(frozen=True, slots=True)
class Recommendations:
    """The lists of a run.

    Attributes:
        users: user, rank (from 1), item, score, source. The source is "model", or "popularity" for users who have
            no training item.
        items: item, rank (from 1), similar, score. The score is the cosine of trained item vectors, or the weight
            of an item-item model.
        suffix: "parquet" or "jsonl".
        note: a line of how lists of an earlier run were brought up to date; empty if all were made anew.
    """

    users: pl.DataFrame
    items: pl.DataFrame
    suffix: str
    note: str = ""

    @property
    def summary(self) -> str:
        """One line about the lists."""
        note = f"; {self.note}" if self.note else ""
        return f"{len(self.users):,} recommendations to {int((self.users['rank'] == 1).sum()):,} users{note}"

    @property
    def sources(self) -> str:
        """One line about where the lists come from."""
        counts = dict(self.users.group_by("source").agg(pl.col("user").n_unique()).iter_rows())
        popular = counts.get("popularity", 0)
        texts = counts.get("text", 0)
        near = f"; {texts:,} users without a known item get the items nearest to their text" if texts else ""
        fallback = f"; {popular:,} users without a known item get the most popular ones" if popular else ""
        return f"{counts.get('model', 0):,} users by the model{near}{fallback}"

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write recommendations and similar_items, as parquet or as JSON lines."""
        names = [f"{table}.{self.suffix}" for table in TABLES]
        for name, table in zip(names, (self.users, self.items), strict=True):
            write_any(path(name), table)
        if self.note:
            storage.write_json(path(_NOTES), {"note": self.note})
            names.append(_NOTES)
        return names

    @staticmethod
    def no_items() -> pl.DataFrame:
        """Return an empty table of similar items."""
        return pl.DataFrame(schema=COLUMNS["similar_items"])

    @staticmethod
    def load(path: Callable[[str], Path]) -> Recommendations:
        """Read what save wrote."""
        suffix = "parquet" if path(f"{TABLES[0]}.parquet").exists() else "jsonl"
        users, items = (_read(path(f"{table}.{suffix}"), COLUMNS[table]) for table in TABLES)
        note = str(storage.read_json(path(_NOTES))["note"]) if path(_NOTES).is_file() else ""
        return Recommendations(users, items, suffix, note)


@dataclass(frozen=True, slots=True)
class EarlierLists:
    """The lists that a model's refitted items are joined with.

    Attributes:
        dataset: whose users they are for, the first of the dataset of today.
        users: their table; see Recommendations. Users and items are rows of the dataset.
    """

    dataset: Dataset
    users: pl.DataFrame

    @staticmethod
    def load(file: Path, dataset: Dataset) -> EarlierLists:
        """Read the recommendations that Recommendations.save wrote.

        Raises:
            MismatchError: a user or item is none of the dataset's, or a rank or score is no number of a list.
        """
        known = {"user": dataset.users, "item": dataset.item_ids}
        if file.suffix == ".parquet":
            columns = dict.fromkeys(("user", "rank", "item"), pl.Int32()) | {"score": pl.Float32()}
            users = read_table(file, columns, known)
        else:
            users = _read(file, COLUMNS["recommendations"]).with_columns(
                pl.col(name).replace_strict(ids, np.arange(len(ids)), default=-1, return_dtype=pl.Int32)
                for name, ids in known.items()
            )
        fits = (pl.min_horizontal(*known) >= 0) & (pl.col("rank") > 0) & pl.col("score").is_finite()
        if not users.select(fits.fill_null(False).all()).item():
            raise MismatchError(f"{file} names users or items that {dataset.folder} has not, or a wrong rank or score")
        return EarlierLists(dataset, users)

    def arrays(self, k: int) -> Lists:
        """Return ids int32 [U, k], padded with -1, and scores float32 [U, k], padded with -inf."""
        users = self.users.filter(pl.col("rank") <= k)
        rows, ids, ranks, scores = (users[name].to_numpy() for name in ("user", "item", "rank", "score"))
        shape = self.dataset.n_users, k
        lists = np.full(shape, -1, np.int32), np.full(shape, -np.inf, np.float32)
        lists[0][rows, ranks - 1], lists[1][rows, ranks - 1] = ids, scores
        return lists

    def changed(self, known: CSR) -> NDArray[np.bool_]:
        """Return bool [U]: users who have other items than before; new users are among them.

        Args:
            known: binary [U, I], what each user has today.
        """
        before, changed = self.dataset.histories("all").user_items(), np.ones(known.n_rows, bool)
        n = before.n_rows
        changed[:n] = changed_rows((before.indptr, before.indices), (known.indptr, known.indices))
        return changed


def _read(path: Path, columns: Mapping[str, pl.DataType]) -> pl.DataFrame:
    if path.suffix == ".parquet":
        return read_table(path, columns)
    with storage.open_regular(path) as file:
        lines = file.read()
    # An empty table has no line, and polars reads no table from nothing.
    return pl.read_ndjson(lines, schema=columns) if lines.strip() else pl.DataFrame(schema=columns)


def recommend_items(
    model: Recommender,
    dataset: Dataset,
    config: RecommendConfig,
    progress: Progress = silent,
    *,
    blocks: Blocks | None = None,
    earlier: EarlierLists | None = None,
    device: torch.device | None = None,
) -> Recommendations:
    """Return the top-N of every user (or of `config.users`), and the items most similar to each item.

    Nobody is shown an item that they have. Held-out interactions leave items out here, and do nothing else.

    Args:
        model: a fitted model.
        dataset: the users, the items and what each user has.
        config: how many of each, for whom, in which format.
        progress: called after each block of users.
        blocks: workers that list instead of this process.
        earlier: lists with these settings, kept where the model's fit did not change; None: all are made anew.
        device: the GPU that lists; None: the CPU does.

    Raises:
        InputError: a named user is not in the dataset.
    """
    users = _named_users(dataset, config.users)
    train = dataset.train
    known = dataset.histories("all").user_items().take_rows(users)

    def list_anew(rows: NDArray[np.int64]) -> Lists:
        taken = users[rows], config.top, known.take_rows(rows)
        return (top_in_blocks(model, *taken, blocks) if blocks else None) or list_users(model, *taken, device, progress)

    note = ""
    if earlier is not None and isinstance(model, FittedEnsemble) and model.refitted is not None:
        stale = earlier.changed(known)
        stale[model.refitted.users] = True
        (ids, scores), counts = update_lists(
            model.scorer, model.refitted.items, earlier.arrays(config.top), stale, known, list_anew, progress
        )
        note = str(counts)
    else:
        ids, scores = list_anew(np.arange(len(users)))
    unknown = are_new(train)[users]
    if unknown.any():
        popular, rows = popularity(train), np.flatnonzero(unknown)
        ids[rows], scores[rows] = popular.top(users[rows], config.top, known.take_rows(rows))
    model.release()
    release_memory()
    progress("similar items", 0, dataset.n_items)
    similar_ids, similar_scores = similar_items(model, dataset.n_items, config.similar, blocks)
    progress("similar items", dataset.n_items, dataset.n_items)
    shown = list_table("user", dataset.users.gather(users), ids, scores, "item", dataset.item_ids)
    return Recommendations(
        users=shown.with_columns(source=source_of(ids, unknown)),
        items=list_table("item", dataset.item_ids, similar_ids, similar_scores, "similar", dataset.item_ids),
        suffix=config.format,
        note=note,
    )


def _named_users(dataset: Dataset, named: tuple[str, ...]) -> NDArray[np.int64]:
    """Return the indices of the named users, or of all.

    Raises:
        InputError: some are not in the dataset; the line names the first and counts the others.
    """
    if not named:
        return np.arange(dataset.n_users)
    index = {user: n for n, user in enumerate(dataset.users.to_list())}
    unknown = [user for user in named if user not in index]
    if unknown:
        others = f", nor {len(unknown) - 1:,} more of the {len(named):,} in recommend.users" if len(unknown) > 1 else ""
        raise InputError(f"{dataset.folder} has no user {unknown[0]!r}{near_miss(unknown[0], index)}{others}")
    return np.array([index[user] for user in named], dtype=np.int64)


def source_of(
    ids: NDArray[np.int32], unknown: NDArray[np.bool_], described: NDArray[np.bool_] | None = None
) -> pl.Series:
    """Return the source of each entry of lists [B, k]: "model", "popularity" or "text".

    Args:
        ids: int32 [B, k], padded with -1.
        unknown: bool [B], users without a known item.
        described: bool [B], those of them whose list follows a text; None: no user's does.
    """
    source = np.where(unknown, 1, 0)
    if described is not None:
        source[described] = 2
    names = pl.Series("source", ["model", "popularity", "text"])
    return names.gather(source[np.nonzero(ids >= 0)[0]])  # views of three texts, not a text per entry


def list_table(
    owner: str,
    owners: pl.Series,
    ids: NDArray[np.int32],
    scores: NDArray[np.float32],
    other: str,
    names: pl.Series,
) -> pl.DataFrame:
    """Return lists as a long table: owner, rank, other, score.

    Args:
        owner: name of the column of owners.
        owners: [B], the owner of each list.
        ids: int32 [B, k], padded with -1.
        scores: float32 [B, k].
        other: name of the column of listed ones.
        names: [I], what an id stands for.
    """
    rows, places = np.nonzero(ids >= 0)
    return pl.DataFrame(
        {
            owner: owners.gather(rows),
            "rank": pl.Series(places + 1, dtype=pl.Int32),
            other: names.gather(ids[rows, places]),
            "score": scores[rows, places],
        }
    )

"""Lists for users that a run did not know, from a file of their interactions or of what the shop knows of them.

Files go through the readers of `mllmrec prepare`. Nothing is fitted: the model places each history in closed form. A
known user keeps the history that the run has, and is not shown its items.

A user without any known item gets the items of the highest cosine to a text and categories, which are encoded as an
item's document is; without a text the most popular items. The table says which.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.config import Config, EncodeConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.readers import text
from mllmrec.dataset.readers.files import check_format
from mllmrec.dataset.readers.formats import Reading, read_objects
from mllmrec.dataset.readers.interactions import InteractionFile, read_interactions
from mllmrec.dataset.readers.source import Rejects
from mllmrec.dataset.readers.values import id_fault, read_id
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.features.encoder import Encoder
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import Recommender
from mllmrec.models.baselines import popularity
from mllmrec.models.scoring import USERS, VectorScorer
from mllmrec.recommend import Recommendations, list_table, source_of
from mllmrec.runs import Run
from mllmrec.serving import require_encoder

TEXT, CATEGORIES = "text", "categories"  # columns
_NAMED = 3  # unknown items that a note names


@dataclass(frozen=True, slots=True)
class UserTexts:
    """Texts of a file.

    Attributes:
        table: columns user and text, a row per user, by first appearance.
        notes: one line each, of what was read and left out.
    """

    table: pl.DataFrame
    notes: tuple[str, ...]


def read_user_texts(file: Path, columns: Mapping[str, str] | None = None, *, max_rejected: float = 0.05) -> UserTexts:
    """Read what is known of users, from any format that `mllmrec prepare` reads.

    Args:
        file: columns user, and text or categories.
        columns: "user" names another column of users.
        max_rejected: share of the file's rows that may be left out, in [0, 1].

    Raises:
        InputError: the file cannot be read, lacks a column, or too many of its rows are left out.
    """
    check_format(file)
    rejects, user, known = Rejects(max_rejected), (columns or {}).get("user", "user"), dict[str, str]()
    read, header = 0, tuple[str, ...]()
    for line, row in read_objects(file, Reading(rejects)):
        header = header or tuple(row)
        who, words = read_id(row.get(user)), _words(row)
        if who is None or not words:
            reason = id_fault(row.get(user), "user") if who is None else f"neither {TEXT} nor {CATEGORIES}"
            rejects.add(file.name, line, reason)
        else:
            read += 1
            known.setdefault(who, words)
    if not known:
        raise InputError(
            f"{file.name} has no user with a text; columns {', '.join(map(repr, header)) or 'none'}; wanted {user!r}, "
            f"and {TEXT!r} or {CATEGORIES!r}; name the column of users with --column user=NAME"
        )
    rejects.check(file.name, read + rejects.counts[file.name])
    notes = [f"{len(known):,} users with a text in {file.name}", *rejects.notes(named=False)]
    if read > len(known):
        notes.append(f"{read - len(known):,} rows repeat a user; the first of each is kept")
    schema = {"user": pl.String, "text": pl.String}
    return UserTexts(pl.DataFrame({"user": list(known), "text": list(known.values())}, schema=schema), tuple(notes))


def encode_user_texts(texts: list[str], config: EncodeConfig, progress: Progress = silent) -> Vectors:
    """Return unit vectors of texts, float32 [B, d]; empty texts are zero.

    Args:
        texts: one per user.
        config: of the run.
        progress: called while it works.

    Raises:
        InputError: the run's item vectors came with its data, so that there is no encoder.
        EngineError: the encoder cannot be loaded.
    """
    require_encoder(config, "texts of users", "leave --about out")
    encoder = Encoder(config)
    with tempfile.TemporaryDirectory() as parts:
        return encoder.encode([encoder.fit([one])[0] for one in texts], Path(parts), progress, "encode users' texts")


def _words(row: Mapping[str, object]) -> str:
    """Return the text and the categories of a row, in this order; empty if there is neither."""
    sentence = text.clean(row.get(TEXT), text.DESCRIPTION_LENGTH)
    labels = text.parts(row.get(CATEGORIES))
    return ". ".join(part for part in (sentence, ", ".join(labels)) if part)


@dataclass(frozen=True, slots=True)
class NewUsers:
    """Users of a file, by the indices of a dataset.

    Attributes:
        ids: [B] the shop's user ids, by first appearance.
        histories: binary [B, I], what the model places them by.
        owned: binary [B, I], items that they are not shown: their histories, and what the dataset knows of them.
        notes: one line each, of what was left out or added, with its count.
    """

    ids: pl.Series
    histories: CSR
    owned: CSR
    notes: tuple[str, ...]


def read_new_users(
    file: Path, dataset: Dataset, columns: dict[str, str] | None = None, *, max_rejected: float = 0.05
) -> NewUsers:
    """Read histories from a file of interactions, of any format that `mllmrec prepare` reads.

    Args:
        file: columns of user and item; others may be there.
        dataset: whose items are known.
        columns: columns that the user named, of `parse_columns`.
        max_rejected: share of the file's rows that may be left out, in [0, 1].

    Raises:
        InputError: the file cannot be read, or too many of its rows cannot.
    """
    check_format(file)
    rejects = Rejects(max_rejected)
    rows = read_interactions([InteractionFile(file)], columns or {}, Reading(rejects)).table().select("user", "item")
    ids = rows["user"].unique(maintain_order=True)
    items = pl.DataFrame({"item": dataset.item_ids, "column": np.arange(dataset.n_items)})
    users = pl.DataFrame({"user": ids, "row": np.arange(len(ids))})
    placed = rows.join(users, on="user", maintain_order="left").join(items, on="item", how="left")
    known = placed.filter(pl.col("column").is_not_null())
    shape = len(ids), dataset.n_items
    read = CSR.from_pairs(known["row"].to_numpy(), known["column"].to_numpy(), shape)
    at, whole = _of_dataset(ids, dataset)
    histories = _union(read, at, dataset.train) if len(at) else read
    owned = _union(read, at, whole) if len(at) else read
    unknown = placed.filter(pl.col("column").is_null())["item"].unique(maintain_order=True)
    notes = [f"{len(rows):,} interactions of {len(ids):,} users in {file.name}"]
    notes += rejects.notes(named=False)
    if lost := len(placed) - len(known):
        some = ", ".join(repr(name) for name in unknown[:_NAMED])
        notes.append(f"{lost:,} interactions with {len(unknown):,} items that the run does not know, such as {some}")
    if len(at):
        notes.append(f"{len(at):,} users are known to the run: what it has of them was added")
    return NewUsers(ids, histories, owned, tuple(notes))


def join_texts(users: NewUsers | None, texts: UserTexts, n_items: int) -> tuple[NewUsers, list[str]]:
    """Return the users of both files, and a text of each; empty if there is none.

    Args:
        users: with histories; None: there is no such file.
        texts: of users, with or without a history.
        n_items: of the dataset.
    """
    empty = CSR.from_pairs(np.empty(0, np.int64), np.empty(0, np.int64), (0, n_items))
    before = users or NewUsers(pl.Series("user", [], pl.String), empty, empty, ())
    added = texts.table.filter(~pl.col("user").is_in(before.ids.implode()))["user"]
    ids = pl.concat([before.ids.rename("user"), added])
    histories, owned = (_with_empty_rows(matrix, len(added)) for matrix in (before.histories, before.owned))
    words = pl.DataFrame({"user": ids}).join(texts.table, on="user", how="left", maintain_order="left")["text"]
    joined = NewUsers(ids, histories, owned, (*before.notes, *texts.notes))
    return joined, words.fill_null("").to_list()


def _with_empty_rows(matrix: CSR, count: int) -> CSR:
    """Return a matrix with empty rows after its own."""
    indptr = np.concatenate([matrix.indptr, np.full(count, matrix.indptr[-1])])
    return CSR(indptr, matrix.indices, None, matrix.n_columns)


def _of_dataset(ids: pl.Series, dataset: Dataset) -> tuple[NDArray[np.int64], CSR]:
    """Return (row in `ids`, user of the dataset) of each known user, int64 [n, 2], and all that users have."""
    users = pl.DataFrame({"id": dataset.users, "user": np.arange(dataset.n_users)})
    both = pl.DataFrame({"id": ids, "row": np.arange(len(ids))}).join(users, on="id", maintain_order="left")
    return both.select("row", "user").to_numpy().astype(np.int64), dataset.histories("all").user_items()


def _union(read: CSR, at: NDArray[np.int64], known: CSR) -> CSR:
    """Return the rows of `read`, joined with those of `known` that belong to the same users.

    Args:
        read: binary [B, I].
        at: int64 [n, 2], rows of `read` and of `known`.
        known: binary [U, I].
    """
    added = known.take_rows(at[:, 1])
    rows = np.concatenate([read.rows(), at[added.rows(), 0]])
    return CSR.from_pairs(rows, np.concatenate([read.indices, added.indices]), read.shape)


def recommend_to_new_users(
    model: Recommender,
    dataset: Dataset,
    users: NewUsers,
    config: Config,
    progress: Progress = silent,
    nearest: VectorScorer | None = None,
) -> Recommendations:
    """Return the lists of users that the run did not know; the table of similar items is empty.

    Args:
        model: of the run.
        dataset: of the run.
        users: their histories.
        config: how many items per user, in which format.
        progress: called after each block of users.
        nearest: vectors of the users' texts, zero if there is none, and of the items; None: there are no texts.

    Raises:
        InputError: the model's kind cannot place new users.
    """
    settings, n = config.recommend, len(users.ids)
    scorer = model.fold_in(users.histories)
    ids = np.full((n, settings.top), -1, np.int32)
    scores = np.full(ids.shape, -np.inf, np.float32)
    for start in range(0, n, USERS):
        rows = np.arange(start, min(start + USERS, n))
        ids[rows], scores[rows] = scorer.top(rows, settings.top, users.owned.take_rows(rows))
        progress("recommend to users", int(rows[-1]) + 1, n)
    unknown = np.diff(users.histories.indptr) == 0
    described = unknown & (nearest.users.any(axis=1) if nearest else False)
    if nearest and (rows := np.flatnonzero(described)).size:
        ids[rows], scores[rows] = nearest.top(rows, settings.top, users.owned.take_rows(rows))
    if (rows := np.flatnonzero(unknown & ~described)).size:
        nobody = np.zeros(len(rows), np.int64)  # popularity is the same for everybody
        popular = popularity(dataset.train)
        ids[rows], scores[rows] = popular.top(nobody, settings.top, users.owned.take_rows(rows))
    table = list_table("user", users.ids, ids, scores, "item", dataset.item_ids)
    return Recommendations(
        users=table.with_columns(source=source_of(ids, unknown, described)),
        items=Recommendations.no_items(),
        suffix=settings.format,
    )


def serve_new_users(
    run: Run,
    file: Path | None,
    texts: Path | None,
    columns: dict[str, str],
    config: Config,
    progress: Progress = silent,
) -> tuple[Recommendations, tuple[str, ...]]:
    """Read users from files and list items for them; return the lists and lines of what was done.

    Args:
        run: finished up to its train stage.
        file: interactions; None: there are none.
        texts: what is known of users without history; None: nothing is.
        columns: columns that the user named, of `parse_columns`.
        config: settings of the run.
        progress: called while it works.

    Raises:
        MllmrecError: whatever a step refuses, or there is neither file.
    """
    users = read_new_users(file, run.dataset, columns) if file else None
    nearest: VectorScorer | None = None
    if texts:
        users, words = join_texts(users, read_user_texts(texts, columns), run.dataset.n_items)
        unknown = np.diff(users.histories.indptr) == 0
        used = [text if is_unknown else "" for text, is_unknown in zip(words, unknown, strict=True)]
        nearest = VectorScorer(encode_user_texts(used, config.encode, progress), run.features.items)
    if users is None:
        raise InputError("name a file of interactions, a file of texts, or both")
    lists = recommend_to_new_users(run.fitted, run.dataset, users, config, progress, nearest)
    return lists, (*users.notes, lists.sources)

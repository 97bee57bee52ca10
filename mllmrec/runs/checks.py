"""Check that a run's artefacts fit the dataset that the run was made from.

A seal says that a file is the one that its stage wrote. These checks hold where the seal was forged too: sizes,
columns, types and ids, so that no reader of a run meets an index out of range or a column of another type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from safetensors import SafetensorError

from mllmrec.dataset import Dataset
from mllmrec.errors import InputError, MismatchError
from mllmrec.evaluation.groups import GROUPS, Groups
from mllmrec.foundation import digests
from mllmrec.runs.record import Stage, read_seal

if TYPE_CHECKING:
    from mllmrec.runs import Run

# What reading a file of another format may raise; only `load` runs inside such a block.
SHAPE_ERRORS = (
    ArithmeticError, AttributeError, LookupError, TypeError, ValueError, OSError, EOFError, SafetensorError,
    pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException,
)  # fmt: skip
_TEXTS = {"id": pl.String(), "status": pl.String(), "reason": pl.String()}
_SPLITS = ("valid", "test")


def sealed_file(run: Run, stage: Stage, name: str) -> Path:
    """Return where a stage keeps one of its files, if it is the one that the stage wrote.

    Args:
        run: the run.
        stage: the stage, which is finished.
        name: of the file.

    Raises:
        InputError: it is another, or missing.
    """
    file = run.file(stage, name)
    if not digests.are_unchanged(file.parent, {file.name: read_seal(run.folder, stage).outputs.get(file.name, "")}):
        raise InputError(f"{file} was changed after it was written; redo it with {run.go_on}")
    return file


def check_texts(name: str, table: pl.DataFrame, ids: pl.Series, column: str) -> None:
    """Refuse a table of descriptions or profiles that is not one row per item or user of the dataset.

    Args:
        name: of the table, for the error.
        table: columns id, status, reason and `column`.
        ids: [rows] the dataset's ids.
        column: name of the text column.

    Raises:
        MismatchError: rows, ids or columns are others.
    """
    _check_columns(name, table, _TEXTS | {column: pl.String()})
    if len(table) != len(ids) or not (table["id"] == ids).all():
        raise MismatchError(f"{name} has rows of others than the {len(ids):,} of the dataset")


def check_vectors(name: str, vectors: Any, rows: int) -> None:
    """Refuse vectors that are not finite float32 of one row per item or user.

    Args:
        name: of the vectors, for the error.
        vectors: anything.
        rows: items or users of the dataset.

    Raises:
        MismatchError: dtype, shape or a value is another.
    """
    if not isinstance(vectors, np.ndarray) or vectors.dtype != np.float32 or vectors.ndim != 2:
        raise MismatchError(f"{name} holds no matrix of float32")
    if len(vectors) != rows or not vectors.shape[1]:
        raise MismatchError(f"{name} has shape {vectors.shape}; the dataset wants {rows:,} rows")
    if not np.isfinite(vectors).all():
        raise MismatchError(f"{name} holds numbers that are not finite")


def check_ids(name: str, values: NDArray[np.integer[Any]] | pl.Series, known: pl.Series) -> None:
    """Refuse ids that the dataset does not have.

    Args:
        name: of the column, for the error.
        values: [n] ids.
        known: the dataset's ids.

    Raises:
        MismatchError: one is unknown.
    """
    named = pl.Series(values).unique()
    unknown = named.filter(~named.is_in(known.implode()))
    if len(unknown):
        raise MismatchError(f"{name} names {len(unknown):,} ids that the dataset has not, such as {unknown[0]!r:.80}")


def check_lists(users: pl.DataFrame, items: pl.DataFrame, dataset: Dataset) -> None:
    """Refuse recommendations whose columns or ids are not those of the dataset.

    Args:
        users: table of recommendations.
        items: table of similar items.
        dataset: the dataset of the run.

    Raises:
        MismatchError: one is another.
    """
    tables = (("recommendations", users, "user", "item"), ("similar_items", items, "item", "similar"))
    for name, table, owner, other in tables:
        columns = {owner: pl.String(), other: pl.String(), "score": None, "rank": None}
        _check_columns(name, table, columns)
        check_ids(f"{name}.{owner}", table[owner], dataset.users if owner == "user" else dataset.item_ids)
        check_ids(f"{name}.{other}", table[other], dataset.item_ids)
    _check_columns("recommendations", users, {"source": pl.String()})


def check_evaluation(evaluation: Any, dataset: Dataset) -> None:
    """Refuse an evaluation whose tables are not split -> model -> metric -> number, or not of the dataset.

    Raises:
        MismatchError: a table, column or id is another.
    """
    means, users = evaluation.means, evaluation.users
    if not all(isinstance(table, Mapping) and set(_SPLITS) <= set(table) for table in (means, users)):
        raise MismatchError("metrics.json lacks the splits valid and test")
    if not all(isinstance(count, int) and 0 <= count <= dataset.n_users for count in users.values()):
        raise MismatchError("metrics.json counts other users than the dataset has")
    if not isinstance(evaluation.farthest, int) or evaluation.farthest < 0:
        raise MismatchError("metrics.json holds a farthest_rank that is no count")
    rows = [row for models in means.values() if isinstance(models, Mapping) for row in models.values()]
    if not rows or not all(isinstance(row, Mapping) and set(row) == set(rows[0]) for row in rows):
        raise MismatchError("metrics.json has not the same metrics for every model")
    if not all(_is_mean(value) for row in rows for value in row.values()) or len({*map(len, means.values())}) != 1:
        raise MismatchError("metrics.json holds a mean that is no number from 0 to 1")
    models, metrics = list(means["test"]), list(rows[0])
    text, number = pl.String(), pl.Float64()
    columns = {"id": text, "split": text, "model": text} | dict.fromkeys(metrics, number)
    _check_columns("per_user", evaluation.per_user, columns)
    _check_columns("heldout", evaluation.heldout, {"user": text, "item": text})
    _check_columns("heldout", evaluation.heldout, dict.fromkeys(models, None))
    check_ids("per_user.id", evaluation.per_user["id"], dataset.users)
    check_ids("heldout.user", evaluation.heldout["user"], dataset.users)
    check_ids("heldout.item", evaluation.heldout["item"], dataset.item_ids)
    if evaluation.groups.means:
        _check_groups(evaluation.groups, models, metrics, dataset)


def _check_groups(groups: Groups, models: Sequence[str], metrics: Sequence[str], dataset: Dataset) -> None:
    """Refuse groups of an evaluation that are others than evaluation.groups names, or of other models and metrics."""
    for counts, most in ((groups.users, dataset.n_users), (groups.heldout, len(dataset.interactions))):
        named = all(isinstance(counts.get(split), Mapping) and set(counts[split]) == set(GROUPS) for split in _SPLITS)
        if not named or not all(type(n) is int and 0 <= n <= most for split in _SPLITS for n in counts[split].values()):
            raise MismatchError("metrics.json counts other groups of users or items than an evaluation has")
    for split in _SPLITS:
        table = groups.means.get(split)
        rows = [row for group in GROUPS for row in table[group].values()] if table and set(table) == set(GROUPS) else []
        if len(rows) != len(GROUPS) * len(models) or not all(set(row) == set(metrics) for row in rows):
            raise MismatchError("metrics.json has groups of other models or metrics")
        if not all(_is_mean(value) for row in rows for value in row.values()):
            raise MismatchError("metrics.json holds a mean that is no number from 0 to 1")
    if groups.per_user.width:
        text, number = pl.String(), pl.Float64()
        columns = {"id": text, "split": text, "group": text, "model": text} | dict.fromkeys(metrics, number)
        _check_columns("groups", groups.per_user, columns)
        check_ids("groups.id", groups.per_user["id"], dataset.users)


def _is_mean(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and (math.isnan(value) or 0 <= value <= 1)


def _check_columns(name: str, table: pl.DataFrame, columns: Mapping[str, Any]) -> None:
    """Refuse a table without these columns; a dtype of None stands for any number."""
    for column, dtype in columns.items():
        found = table.schema.get(column)
        if found is None or not (found.is_numeric() if dtype is None else found == dtype):
            raise MismatchError(f"{name}: column {column!r} is {found or 'missing'}; wanted {dtype or 'numbers'}")
        if table[column].null_count():
            raise MismatchError(f"{name} has rows without {column!r}")


def check_artefact(stage: Stage, artefact: Any, dataset: Dataset) -> None:
    """Refuse an artefact of a stage that does not belong to the dataset.

    Args:
        stage: the stage that made it.
        artefact: what the stage's `load` returned.
        dataset: the dataset of the run.

    Raises:
        MismatchError: a size, column, type or id is another than the dataset's.
    """
    match stage:
        case "describe":
            check_texts("descriptions", artefact.table, dataset.item_ids, "description")
        case "profile":
            check_texts("profiles", artefact.table, dataset.users, "profile")
        case "encode":
            check_vectors("encode/items", artefact.items, dataset.n_items)
            check_vectors("encode/users", artefact.users, dataset.n_users)
            _check_counts("encode/encode.json", artefact.cuts)
        case "graph":
            _check_shape("graph", artefact.adjacency, (dataset.n_items, dataset.n_items))
            _check_counts("graph/graph.json", artefact.statistics)
            if artefact.lists is not None:
                _check_neighbors("graph/lists", artefact.lists, dataset.n_items)
        case "train":
            _check_model(artefact.model, dataset)
        case "evaluate":
            check_evaluation(artefact, dataset)
        case "recommend":
            check_lists(artefact.users, artefact.items, dataset)


def _check_counts(name: str, record: Any) -> None:
    for key, value in asdict(record).items():
        if type(value) is not int or value < 0:
            raise MismatchError(f"{name}: {key} is {value!r:.80}; wanted a count")


def _check_model(model: Any, dataset: Dataset) -> None:
    """Check what kinds of models may have: vectors of both sides, a matrix of users, weights between items."""
    for name, rows in (("users", dataset.n_users), ("items", dataset.n_items)):
        if (vectors := getattr(model, name, None)) is not None:
            check_vectors(f"train/{name}", vectors, rows)
    for name, rows in (("user_items", dataset.n_users), ("weights", dataset.n_items)):
        matrix = getattr(model, name, None)
        if isinstance(matrix, CSR | np.ndarray):
            _check_shape(f"train/{name}", matrix, (rows, dataset.n_items))
    if (inner := getattr(model, "ridge", None)) is not None:
        _check_model(inner, dataset)


def _check_neighbors(name: str, lists: tuple[Any, Any], n_items: int) -> None:
    ids, cosines = lists
    if ids.dtype != np.int32 or cosines.dtype != np.float32 or ids.shape != cosines.shape or ids.ndim != 2:
        raise MismatchError(f"{name} holds no lists of neighbors")
    if len(ids) != n_items or (ids.size and not (int(ids.min()) >= -1 and int(ids.max()) < n_items)):
        raise MismatchError(f"{name} names items that the dataset has not")


def _check_shape(name: str, matrix: Any, shape: tuple[int, int]) -> None:
    if matrix.shape != shape:
        raise MismatchError(f"{name} has shape {matrix.shape}; the dataset wants {shape}")

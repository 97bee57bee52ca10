"""The shape of a dataset folder, and what is refused of one that somebody else may have made."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mllmrec.dataset.dataset import SPLITS, Dataset
from mllmrec.dataset.readers.source import TimeUnit
from mllmrec.errors import InputError, MismatchError
from mllmrec.foundation import storage
from mllmrec.foundation.folders import is_bare_name

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
TABLES = ("interactions.parquet", "users.parquet", "items.parquet")
DATASET_NAMES = (MANIFEST, *TABLES, "rejected.jsonl", "images", "features")  # without the first, no dataset
USERS = {"id": pl.String()}
ITEMS = {
    "id": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "categories": pl.List(pl.String()),
    "description": pl.String(),
    "price": pl.Float64(),
    "images": pl.List(pl.String()),
    "image_urls": pl.List(pl.String()),
}
INTERACTIONS = {
    "user": pl.Int32(),
    "item": pl.Int32(),
    "rating": pl.Float64(),
    "timestamp": pl.Int64(),
    "split": pl.Int8(),
}
_IMAGE = r"^images/[0-9a-f]{64}(\.[a-z0-9]{1,7})?$"
_NAME = 200  # characters of a dataset's name
_SHA = re.compile(r"[0-9a-f]{64}")
_STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
_Count = Annotated[int, Field(ge=0)]


class _ReadFile(BaseModel):
    model_config = _STRICT
    name: str
    columns: dict[str, str]
    rows: _Count
    rejected: _Count


class _Times(BaseModel):
    model_config = _STRICT
    unit: TimeUnit = "s"
    form: str = ""


class _Read(BaseModel):
    model_config = _STRICT
    files: list[_ReadFile] = []
    unread: list[str] = []
    time: _Times = _Times()


class _Options(BaseModel):
    model_config = _STRICT
    min_rating: float | None = None


class _Manifest(BaseModel):
    model_config = _STRICT
    schema_version: int
    name: str
    kind: str
    category: str
    options: _Options
    split: dict[str, str | int | float | None]
    steps: dict[str, _Count]
    rejected: _Count
    warnings: list[str]
    files: dict[str, str]
    read: _Read = _Read()
    updates: _Count = 0


def file_name(name: str) -> str:
    """Return a dataset's name as it can stand in the name of a file, without separators and control characters."""
    return "".join(c if c.isprintable() and c not in "/\\" else "_" for c in name)[:_NAME] or "shop"


def find_dataset_problems(folder: Path) -> Iterator[str]:
    """Yield one line for each part of the manifest that is not as `mllmrec prepare` writes it."""
    try:
        manifest = _Manifest.model_validate(storage.read_json(folder / MANIFEST))
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part)[:80] for part in detail["loc"]) or "the whole"
        yield f"{MANIFEST} is not in the format of a dataset: {key}: {detail['msg']}"
        return
    except InputError as error:
        yield str(error)
        return
    if manifest.name != file_name(manifest.name):
        yield f"{MANIFEST} gives the name {manifest.name[:200]!r}, which is no name of a file"
    for name, sha in manifest.files.items():
        feature = name.startswith("features/") and name.endswith(".npy") and is_bare_name(name[len("features/") :])
        if name not in TABLES and not feature:
            yield f"{MANIFEST} lists {name[:200]!r}, which no dataset has"
        elif not _SHA.fullmatch(sha):
            yield f"{MANIFEST} gives {name} a hash that is no SHA-256"
    for name in set(TABLES) - manifest.files.keys():
        yield f"{MANIFEST} does not list {name}"


def find_problems_of_version(folder: Path) -> Iterator[str]:
    """Yield as `find_dataset_problems` does, where the dataset has this version's schema.

    Raises:
        MismatchError: it has another.
    """
    value = storage.read_json(folder / MANIFEST)
    found = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(found, int) and found != SCHEMA_VERSION:
        raise MismatchError(
            f"{folder} has dataset schema {found}, this version of mllmrec reads {SCHEMA_VERSION}; prepare it again"
        )
    yield from find_dataset_problems(folder)


def check_tables(dataset: Dataset) -> None:
    """Refuse tables whose ids, indices, splits or picture names no dataset has.

    Raises:
        InputError: a picture's name leads elsewhere, or a feature is no matrix of an item a row.
        MismatchError: ids repeat or are null, or an index is out of range.
    """
    for name, ids in (("users", dataset.users), ("items", dataset.item_ids)):
        if ids.null_count() or ids.n_unique() != len(ids):
            raise MismatchError(f"{dataset.folder / name}.parquet has ids that are null or repeat; prepare it again")
    _check_interactions(dataset)
    names = dataset.items["images"].explode().drop_nulls()
    strange = names.filter(~names.str.contains(_IMAGE))
    if len(strange):
        raise InputError(
            f"{dataset.folder} is refused: items.parquet names {len(strange):,} pictures that prepare does not write, "
            f"such as {strange[0][:200]!r}"
        )
    for name, path in dataset.features.items():
        array = storage.read_array(path)
        if array.ndim != 2 or len(array) != dataset.n_items or array.dtype.kind != "f":
            raise MismatchError(f"feature {name!r} has shape {array.shape}; wanted {dataset.n_items:,} rows of floats")


def _check_interactions(dataset: Dataset) -> None:
    table = dataset.interactions
    for column, size in (("user", dataset.n_users), ("item", dataset.n_items), ("split", len(SPLITS))):
        values = table[column]
        low, high = (-1, -1) if values.null_count() else (values.min(), values.max())
        if len(values) and not (int(np.int64(low)) >= 0 and int(np.int64(high)) < size):  # type: ignore[arg-type]
            raise MismatchError(f"{dataset.folder}: interactions have a {column} outside 0 to {size - 1:,}")
    if not table["user"].is_sorted():
        raise MismatchError(f"{dataset.folder}: interactions are not sorted by user; prepare the dataset again")

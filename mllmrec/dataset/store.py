"""A dataset's folder: open formats and a manifest with the content hash of every table.

    manifest.json  interactions.parquet  users.parquet  items.parquet  rejected.jsonl
    images/<sha256>.<ending>   pictures by content: ids are never paths, equal pictures are kept once
    features/<name>.npy        item features that came with the data

The folder is built beside its place and renamed into it; a kill leaves the old dataset or none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.dataset import Dataset
from mllmrec.dataset.readers.source import Rejected
from mllmrec.errors import InputError, MismatchError, StorageError
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_TABLES = ("interactions.parquet", "users.parquet", "items.parquet")
_ENDING = 8  # characters of a picture's ending that are kept


def save(
    out: Path,
    *,
    users: pl.Series,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
    features: Mapping[str, NDArray[np.float32]],
    rejected: Sequence[Rejected],
    facts: Mapping[str, Any],
    force: bool,
    progress: Progress,
) -> None:
    """Write a dataset folder.

    Raises:
        StorageError: `out` exists and is no dataset, or is one and `force` is off, or the disk refuses.
    """
    check_free(out, force=force)
    building = out.with_name(f".{out.name}.partial")
    with storage.storage_errors("write", out):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir(parents=True)
        try:
            _fill(building, users, items, interactions, features, rejected, facts, progress)
            if out.exists():
                shutil.rmtree(out)
            building.rename(out)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to overwrite what is no dataset, or a dataset without `force`."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / MANIFEST).is_file():
        raise StorageError(f"{out} exists and is no dataset; choose another --out")
    if not force:
        raise StorageError(f"{out} holds a dataset already; replace it with --force, or choose another --out")


def _fill(
    folder: Path,
    users: pl.Series,
    items: pl.DataFrame,
    interactions: pl.DataFrame,
    features: Mapping[str, NDArray[np.float32]],
    rejected: Sequence[Rejected],
    facts: Mapping[str, Any],
    progress: Progress,
) -> None:
    images, missing = _copy_images(items["images"], folder / "images", progress)
    storage.write_table(folder / "items.parquet", items.with_columns(images=images))
    storage.write_table(folder / "users.parquet", pl.DataFrame({"id": users}))
    storage.write_table(folder / "interactions.parquet", interactions)
    for name, array in features.items():
        storage.write_array(folder / "features" / f"{name}.npy", array)
    lines = (json.dumps({"where": row.where, "reason": row.reason}, ensure_ascii=False) for row in rejected)
    storage.write_text(folder / "rejected.jsonl", "".join(f"{line}\n" for line in lines))
    listed = [*_TABLES, *(f"features/{name}.npy" for name in features)]
    files = {name: storage.hash_file(folder / name) for name in listed}
    warnings = [*facts["warnings"], *([f"{missing} image files are missing"] if missing else [])]
    storage.write_json(
        folder / MANIFEST,
        {"schema_version": SCHEMA_VERSION, **facts, "warnings": warnings, "files": files},
    )


def _copy_images(lists: pl.Series, folder: Path, progress: Progress) -> tuple[pl.Series, int]:
    """Copy pictures under the hash of their content; missing files are counted and left out."""
    rows, missing = lists.to_list(), 0
    copied = []
    for n, row in enumerate(rows, start=1):
        names = []
        for file in map(Path, row or ()):
            if not file.is_file():
                missing += 1
                continue
            name = f"{storage.hash_file(file)}{_ending(file)}"
            folder.mkdir(exist_ok=True)
            if not (folder / name).exists():
                shutil.copyfile(file, folder / name)
            names.append(f"images/{name}")
        copied.append(names)
        if n % 100 == 0 or n == len(rows):
            progress("copy images", n, len(rows))
    return pl.Series("images", copied, dtype=pl.List(pl.String)), missing


def _ending(file: Path) -> str:
    ending = file.suffix.lower()
    return ending if ending[1:].isalnum() and ending.isascii() and len(ending) <= _ENDING else ""


def load(folder: Path) -> Dataset:
    """Read a dataset folder, and check it against its manifest.

    Raises:
        InputError: it is no dataset.
        MismatchError: it has another schema version, or a table was changed after it was written.
        LeakError: its split has an interaction twice.
    """
    if not (folder / MANIFEST).is_file():
        if (folder / "run.json").is_file():
            raise InputError(f"{folder} is no dataset but a run; name the dataset that it was made from")
        raise InputError(
            f"{folder} is no dataset: it has no {MANIFEST}; make one with mllmrec prepare SHOP --out DATASET"
        )
    manifest = storage.read_json(folder / MANIFEST)
    if manifest.get("schema_version") != SCHEMA_VERSION:
        raise MismatchError(
            f"{folder} has dataset schema {manifest.get('schema_version')}, this version of mllmrec reads "
            f"{SCHEMA_VERSION}; prepare it again"
        )
    for name, sha in manifest["files"].items():
        if not (folder / name).is_file() or storage.hash_file(folder / name) != sha:
            raise MismatchError(f"{folder / name} is not what prepare wrote; prepare the dataset again")
    dataset = Dataset(
        name=manifest["name"],
        users=pl.read_parquet(folder / "users.parquet")["id"],
        items=pl.read_parquet(folder / "items.parquet"),
        interactions=pl.read_parquet(folder / "interactions.parquet"),
        manifest=manifest,
        folder=folder,
        features={Path(n).stem: folder / n for n in manifest["files"] if n.startswith("features/")},
    )
    dataset.check_split()
    return dataset

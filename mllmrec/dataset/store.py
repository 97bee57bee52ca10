"""A dataset's folder: open formats and a manifest with the content hash of every table.

    manifest.json  interactions.parquet  users.parquet  items.parquet  rejected.jsonl
    images/<sha256>.<ending>   pictures by content: ids are never paths, equal pictures are kept once
    features/<name>.npy        item features that came with the data

The folder is built beside its place, or inside it if nothing can be renamed beside it. The old dataset stays until
the new one is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.dataset import Dataset
from mllmrec.dataset.picture_store import copy_pictures
from mllmrec.dataset.readers.source import Rejected
from mllmrec.dataset.store_checks import (
    DATASET_NAMES,
    INTERACTIONS,
    ITEMS,
    MANIFEST,
    SCHEMA_VERSION,
    TABLES,
    USERS,
    check_tables,
    file_name,
    find_problems_of_version,
)
from mllmrec.errors import InputError, MismatchError, StorageError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import is_temporary, open_foreign, replaced_folder
from mllmrec.foundation.progress import Progress
from mllmrec.foundation.tables import read_table


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
    """Write a dataset folder; a dataset that it replaces stays until the new one is whole.

    Args:
        out: the folder; also a link to one, a mounted one, or the current one.
        users: [U] ids.
        items: [I] rows, with `images` as paths of files.
        interactions: rows of user and item indices.
        features: float32 [I, d] each, by name.
        rejected: rows that were left out.
        facts: what the manifest says beside the hashes.
        force: replace a dataset.
        progress: called while pictures are copied.

    Raises:
        StorageError: `out` exists and is no dataset, or is one and `force` is off, or the disk refuses, or another
            process writes it.
    """
    with replaced_folder(out, DATASET_NAMES) as building:
        check_free(out, force=force)
        _fill(building, users, items, interactions, features, rejected, facts, progress)


def check_free(out: Path, *, force: bool) -> None:
    """Refuse to overwrite what is no dataset, or a dataset without `force`.

    Raises:
        StorageError: `out` holds something else, or a dataset and `force` is off.
    """
    with storage.storage_errors("read", out):
        names = {path.name for path in out.iterdir()} if out.exists() else set()
    names = {name for name in names if not is_temporary(name)}
    if not names:
        return
    if MANIFEST not in names and names - set(DATASET_NAMES):
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
    images, left_out = copy_pictures(items["images"], folder / "images", progress)
    storage.write_table(folder / "items.parquet", items.with_columns(images=images))
    storage.write_table(folder / "users.parquet", pl.DataFrame({"id": users}))
    storage.write_table(folder / "interactions.parquet", interactions)
    for name, array in features.items():
        storage.write_array(folder / "features" / f"{name}.npy", array)
    lines = (json.dumps({"where": row.where, "reason": row.reason}, ensure_ascii=False) for row in rejected)
    storage.write_text(folder / "rejected.jsonl", "".join(f"{line}\n" for line in lines))
    listed = [*TABLES, *(f"features/{name}.npy" for name in features)]
    files = dict(zip(listed, digests.hash_files(folder / name for name in listed), strict=True))
    warnings = [*facts["warnings"], *left_out]
    storage.write_json(
        folder / MANIFEST,
        {
            "schema_version": SCHEMA_VERSION,
            **facts,
            "name": file_name(facts["name"]),
            "warnings": warnings,
            "files": files,
        },
    )


def _check_hashes(folder: Path, hashes: Mapping[str, str]) -> None:
    """Refuse files that are not those of the manifest.

    Raises:
        MismatchError: one is missing, or was changed.
    """
    files = [folder / name for name in hashes]
    gone = [file for file in files if not file.is_file()]
    found = [] if gone else zip(files, digests.hash_files(files), hashes.values(), strict=True)
    changed = [file for file, sha, written in found if sha != written]
    for file in (*gone, *changed):
        raise MismatchError(f"{file} is not what prepare wrote; prepare the dataset again")


def load(folder: Path, *, verified: bool = True) -> Dataset:
    """Read a dataset folder from any source and check it against its manifest.

    Args:
        folder: of the dataset.
        verified: off: files are not hashed and interactions not compared, for a prediction that nothing is made from.

    Raises:
        InputError: it is no dataset, or holds what no dataset holds.
        MismatchError: it has another schema version, or a table was changed after it was written.
        LeakError: its split has an interaction twice.
    """
    if not (folder / MANIFEST).is_file():
        if (folder / "run.json").is_file():
            raise InputError(f"{folder} is a run, not a dataset; name the dataset that it was made from")
        raise InputError(
            f"{folder} is no dataset: it has no {MANIFEST}; make one with mllmrec prepare SHOP --out DATASET"
        )
    open_foreign(folder, find_problems_of_version)  # before the manifest is read: it may be a link
    manifest = storage.read_json(folder / MANIFEST)
    if verified:
        _check_hashes(folder, manifest["files"])
    dataset = Dataset(
        name=manifest["name"],
        users=read_table(folder / "users.parquet", USERS)["id"],
        items=read_table(folder / "items.parquet", ITEMS),
        interactions=read_table(folder / "interactions.parquet", INTERACTIONS),
        manifest=manifest,
        folder=folder,
        features={Path(name).stem: folder / name for name in manifest["files"] if name.startswith("features/")},
    )
    check_tables(dataset)
    if verified:
        dataset.check_split()
    return dataset

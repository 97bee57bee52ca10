"""Add new files to a dataset: ids stay, the catalogue and the splits grow.

| part | rule |
|---|---|
| users, items | those of the dataset keep their index; new ones follow, by first appearance |
| an item that the dataset has | what the new row says replaces what the old one said; what it leaves open stays |
| interactions | new pairs go to train, or where a split column of the files says; held-out rows stay as they are |
| a pair that the dataset has, in any part | left out and counted: a held-out pair never reaches training |
| the minimum rating | that of the dataset; no k-core, for nobody may lose their index |
| item features of the dataset | a folder may hold NAME.npy beside its item table: its rows are those of the table |
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset import clean, splits, store
from mllmrec.dataset.dataset import Dataset
from mllmrec.dataset.new_files import NewFiles, read_new_files
from mllmrec.dataset.readers.times import PER_SECOND
from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent

_LISTS = ("categories", "images", "image_urls")


def update(
    dataset: Dataset | Path | str,
    files: Sequence[Path | str],
    out: Path | str,
    *,
    columns: Mapping[str, str] | None = None,
    max_rejected: float = 0.05,
    force: bool = False,
    progress: Progress = silent,
) -> Dataset:
    """Make a dataset of a dataset and new files; see the module.

    Args:
        dataset: the dataset, or its folder; it stays as it is.
        files: tables of interactions or items, told apart by their columns; a folder stands for its tables.
        out: folder of the new dataset.
        columns: columns by role, as `parse_columns` returns them.
        max_rejected: share of a file's rows that may be left out, in [0, 1].
        force: replace an existing dataset.
        progress: called while it works.

    Returns:
        The new dataset, as loaded from `out`.

    Raises:
        InputError: a file cannot be read, nothing in the files is new, or interactions lack the time that the others
            have.
        StorageError: `out` is taken or cannot be written.
    """
    old = dataset if isinstance(dataset, Dataset) else store.load(Path(dataset))
    if Path(out).resolve() == old.folder.resolve():
        raise InputError(f"{out} is the dataset itself; write the new one to another folder")
    store.check_free(Path(out), force=force)
    new = read_new_files([Path(file) for file in files], dict(columns or {}), max_rejected, progress)
    items, item_notes = _join_items(old, new)
    rows, counts, notes = _new_rows(old, new)
    users = pl.concat([old.users, rows["user"].unique(maintain_order=True).rename(old.users.name)]).unique(
        maintain_order=True
    )
    if not len(rows) and not item_notes:
        raise InputError(f"there is nothing new in {', '.join(str(file) for file in files)}: {counts or 'no rows'}")
    features, feature_notes = _grown_features(old, new, items["id"])
    warnings = [*old.manifest["warnings"], *item_notes, *notes, *feature_notes, *new.warnings, *new.rejects.notes()]
    store.save(
        Path(out),
        users=users,
        items=items,
        interactions=_merged(old, rows, users, items["id"]),
        features=features,
        rejected=new.rejects.listed,
        facts=_facts(old, new, counts, warnings),
        force=force,
        progress=progress,
    )
    return store.load(Path(out))


def _join_items(old: Dataset, new: NewFiles) -> tuple[pl.DataFrame, list[str]]:
    """Return the items of both, pictures as paths of files, and lines of what is new."""
    folder, table = str(old.folder), new.items.rename({"item": "id"})
    known = old.items.with_columns(images=pl.col("images").list.eval(pl.lit(folder + "/") + pl.element()))
    replaced = known.join(table, on="id", how="left", suffix="_new", maintain_order="left")
    merged = []
    for name in known.columns[1:]:
        is_given = pl.col(f"{name}_new").is_not_null()
        is_given = is_given & (pl.col(f"{name}_new").list.len() > 0) if name in _LISTS else is_given
        merged.append(pl.when(is_given).then(pl.col(f"{name}_new")).otherwise(pl.col(name)).alias(name))
    new_items = table.filter(~pl.col("id").is_in(known["id"].implode()))
    sold = new.interactions["item"].unique(maintain_order=True)
    listed = pl.concat([known["id"], new_items["id"]])
    unlisted = sold.filter(~sold.is_in(listed.implode()))
    items = pl.concat(
        [replaced.select("id", *merged), new_items, pl.DataFrame({"id": unlisted}, schema={"id": pl.String})],
        how="diagonal",
    )
    changed = len(table) - len(new_items)
    notes = [f"{len(new_items) + len(unlisted):,} items are new"] if len(new_items) or len(unlisted) else []
    notes += (
        [f"{len(unlisted):,} of them stand in interactions alone: they have neither text nor pictures"]
        if len(unlisted)
        else []
    )
    notes += (
        [f"{changed:,} rows are of items that the dataset has, and replace what it says of them"] if changed else []
    )
    notes += [warning for catalogue in new.catalogues for warning in catalogue.warnings]
    return items, notes


def _new_rows(old: Dataset, new: NewFiles) -> tuple[pl.DataFrame, dict[str, int], list[str]]:
    """Return the interactions that are new, by ids, with their split; counts of steps, and lines of what was done."""
    table = new.interactions
    single, counts = _single_rows(old, new)
    before = old.interactions.select(
        user=old.users.gather(old.interactions["user"]), item=old.item_ids.gather(old.interactions["item"])
    )
    rows = single.join(before, on=["user", "item"], how="anti", maintain_order="left")
    known = len(single) - len(rows)
    counts["dropped as repeats"] += known
    times, notes = _times(old, new, rows)
    parts = splits.assign(rows.with_columns(pl.col("split").fill_null("train")), "given", 0)
    rows = rows.with_columns(timestamp=times, split=pl.Series("split", parts, dtype=pl.Int8))
    held = int((parts > 0).sum())
    notes.insert(0, f"{len(rows):,} interactions are new, {len(rows) - held:,} for training and {held:,} held out")
    if known:
        notes.append(f"{known:,} interactions are left out: the dataset has these pairs, in training or held out")
    if old.manifest["split"].get("rule") == "global-time" and len(rows) > held:
        notes.append(
            "the split is by time, and new training rows are newer than its test rows: lists are right, metrics know "
            "the future; prepare the whole again to measure"
        )
    return rows, counts, notes if len(table) else []


def _single_rows(old: Dataset, new: NewFiles) -> tuple[pl.DataFrame, dict[str, int]]:
    """Return the new rows that are rated well enough, one for each user and item, and counts of those left out."""
    if new.read is None:
        return new.interactions, {"interactions read": 0, "dropped by rating": 0, "dropped as repeats": 0}
    rated = clean.oldest_first(new.read, old.manifest["options"].get("min_rating"))
    single = clean.drop_repeats(new.read, rated, given=True)
    counts = {
        "interactions read": len(new.interactions),
        "dropped by rating": len(new.interactions) - len(rated),
        "dropped as repeats": len(rated) - len(single),
    }
    return new.read.table(single), counts


def _times(old: Dataset, new: NewFiles, rows: pl.DataFrame) -> tuple[pl.Series, list[str]]:
    """Return the times of new rows in the dataset's unit.

    Raises:
        InputError: all interactions of the dataset have a time, and some new ones do not.
    """
    times = rows["timestamp"]
    timed = len(old.interactions) > 0 and old.interactions["timestamp"].null_count() == 0
    if timed and times.null_count():
        raise InputError(
            f"{times.null_count():,} of {len(times):,} new interactions have no time, and all of the "
            "dataset's have one; name their column with --column timestamp=NAME"
        )
    unit = new.read.time_unit if new.read else "s"
    ticks, own = PER_SECOND[unit], old.ticks_per_second
    finer = int((times * own % ticks != 0).sum()) if ticks > own else 0
    notes = [f"{finer:,} times are cut to the dataset's unit of 1/{own} s"] if finer else []
    return (times * own // ticks).cast(pl.Int64), notes


def _merged(old: Dataset, rows: pl.DataFrame, users: pl.Series, items: pl.Series) -> pl.DataFrame:
    """Return all interactions by indices, by user and oldest first."""
    mapped = rows.select(
        pl.col("user").replace_strict(users, np.arange(len(users)), return_dtype=pl.Int32),
        pl.col("item").replace_strict(items, np.arange(len(items)), return_dtype=pl.Int32),
        "rating",
        "timestamp",
        "split",
    )
    whole = pl.concat([old.interactions.select(mapped.columns), mapped])
    return whole.sort("timestamp", maintain_order=True, nulls_last=False).sort("user", maintain_order=True)


def _grown_features(old: Dataset, new: NewFiles, ids: pl.Series) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Return the item features of the dataset with the new vectors, and zeros for a new item without one.

    Raises:
        InputError: new vectors are of another width.
    """
    grown, notes = {}, []
    for name, path in old.features.items():
        before = storage.read_array(path)
        array = np.zeros((len(ids), before.shape[1]), np.float32)
        array[: len(before)] = before
        if name in new.features:
            named, vectors = new.features[name]
            if vectors.shape[1] != array.shape[1]:
                raise InputError(
                    f"{name}.npy has {vectors.shape[1]} columns, the dataset's {array.shape[1]}; use the same encoder"
                )
            array[named.replace_strict(ids, np.arange(len(ids)), return_dtype=pl.Int64).to_numpy()] = vectors
            notes.append(f"{len(named):,} items have new vectors in the feature {name}")
        if zeros := int((~array[old.n_items :].any(axis=1)).sum()):
            notes.append(f"{zeros:,} new items have zeros in the feature {name}")
        grown[name] = array
    unknown = sorted(new.features.keys() - grown.keys())
    notes += [f"{', '.join(unknown)} is not read: the dataset has no feature of this name"] if unknown else []
    return grown, notes


def _facts(old: Dataset, new: NewFiles, counts: dict[str, int], warnings: list[str]) -> dict[str, Any]:
    """Return what the manifest says beside the hashes: the old one's facts, and what was added."""
    before = {key: value for key, value in old.manifest.items() if key not in ("schema_version", "files")}
    steps = {**before["steps"]}
    for name, count in counts.items():
        steps[name] = steps.get(name, 0) + count
    files = [*(new.read.files if new.read else ()), *(catalogue.file for catalogue in new.catalogues)]
    read = dict(before.get("read", {}))
    read["files"] = [*read.get("files", []), *(asdict(file) for file in files)]
    return {
        **before,
        "steps": steps,
        "read": read,
        "rejected": before["rejected"] + new.rejects.counts.total(),
        "warnings": warnings,
        "updates": int(before.get("updates", 0)) + 1,
    }

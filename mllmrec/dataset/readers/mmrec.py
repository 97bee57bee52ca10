"""Read what a folder of the MMRec toolbox has beside its .inter file: feature arrays and maps of ids.

An item's number is its itemID, with or without interactions, for the feature rows go by it. Ids of the shop come from
u_id_mapping.csv and i_id_mapping.csv; without them the numbers are the ids.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.readers.delimited import read_delimited
from mllmrec.dataset.readers.reading import LINE_BYTES, open_text
from mllmrec.dataset.readers.rows import Rows
from mllmrec.dataset.readers.source import ITEMS, Rejects
from mllmrec.dataset.readers.values import read_ids
from mllmrec.errors import InputError, near_miss
from mllmrec.foundation import storage

USER_PROFILES = "user_preferences_feat"
_MAP = "{}_id_mapping.csv"
_HEADER = ("userID", "itemID", "x_label")
_MOST_UNNAMED = 1_000_000  # items that may come into being only by their numbers, whatever the rows


def is_numbered(folder: Path, path: Path) -> bool:
    """Return whether the ids of a .inter file are the toolbox's numbers; otherwise they are the shop's ids.

    Raises:
        InputError: a column of the toolbox's header is missing.
    """
    with open_text(path) as file:
        header = file.readline(LINE_BYTES).decode("utf-8", "replace").strip().split("\t")
    if not {"userID", "itemID"} & set(header):
        return any(folder.glob("*_feat.npy")) or any((folder / _MAP.format(side)).is_file() for side in "ui")
    for name in _HEADER:
        if name not in header:
            there = ", ".join(header)
            raise InputError(f"{path.name}:1: no column {name!r}{near_miss(name, header)}; there are: {there}")
    return True


def name_ids(folder: Path, rows: Rows, features: dict[str, NDArray[np.float32]]) -> tuple[Rows, pl.Series]:
    """Replace the toolbox's numbers by the shop's ids.

    Args:
        folder: where the maps lie.
        rows: interactions; the ids of users and items are numbers from 0, as text.
        features: float32 [I, d] each; their rows are the items.

    Returns:
        The interactions, and the ids of all items by number.

    Raises:
        InputError: a number has no id, an id has two numbers, or the sizes do not agree.
    """
    users, items = (_read_map(folder / _MAP.format(side)) for side in "ui")
    largest = int(rows.items.cast(pl.Int64).max() or 0)  # type: ignore[arg-type]
    n_items = next((len(array) for array in features.values()), len(items) if items is not None else largest + 1)
    for name, array in features.items():
        if len(array) != n_items or largest >= n_items:
            size = max(largest + 1, n_items)
            raise InputError(
                f"{name}.npy has {len(array)} rows, but there are {size} items; row n must belong to itemID n"
            )
    if largest >= n_items:
        raise InputError(f"an interaction has the itemID {largest}, but i_id_mapping.csv has {n_items} ids")
    if not features and items is None and n_items > max(_MOST_UNNAMED, 10 * len(rows.user)):
        raise InputError(
            f"the largest itemID is {largest} in {len(rows.user)} rows; ids must be numbers from 0 without large gaps"
        )
    if items is None:
        items = {str(n): str(n) for n in range(n_items)}
    elif items.keys() != {str(n) for n in range(n_items)}:
        raise InputError(f"i_id_mapping.csv maps {len(items)} ids; wanted one for each number below {n_items}")
    names = pl.Series("item", [items[str(n)] for n in range(n_items)], ITEMS["item"])
    return replace(rows, users=_named(rows.users, users, "u"), items=_named(rows.items, items, "i")), names


def _named(numbers: pl.Series, names: dict[str, str] | None, side: str) -> pl.Series:
    if names is None:
        return numbers
    missing = [number for number in numbers.to_list() if number not in names]
    if missing:
        raise InputError(
            f"{side}_id_mapping.csv has no id for {len(missing)} numbers of the .inter file, as {missing[0]}"
        )
    return numbers.replace_strict(names, return_dtype=pl.String)


def _read_map(path: Path) -> dict[str, str] | None:
    """Return the shop's id of each number, or None without a file."""
    if not path.is_file():
        return None
    rejects = Rejects()
    with open_text(path) as file:
        is_comma = b"\t" not in (header := file.readline(LINE_BYTES)) and b"," in header
    cells = read_delimited(path, "," if is_comma else "\t", rejects)
    if len(cells.names) < 2:
        raise InputError(
            f"{path.name}:1: one column, {cells.names[0]!r}; wanted the id and its number, divided by a tab"
        )
    number_at = next((n for n, name in enumerate(cells.names) if name in ("userID", "itemID")), 1)
    ids = read_ids(cells.frame[str(1 - number_at if number_at < 2 else 0)])
    numbers = read_ids(cells.frame[str(number_at)], numbered=True)
    names: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, number, name in zip(cells.lines, numbers, ids, strict=True):
        if number is None or name is None:
            rejects.add(path.name, line, "no id and number")
        elif name in lines or number in names:
            twice = f"the id {name!r}" if name in lines else f"the number {number}"
            raise InputError(f"{path.name}:{line}: {twice} stands twice; one id has one number")
        else:
            names[number], lines[name] = name, line
    if rejects.listed:
        raise InputError(f"{rejects.listed[0].where}: {rejects.listed[0].reason}")
    return names


def read_features(folder: Path) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """Return the feature arrays of a folder and warnings; profiles of users are left where they are.

    Raises:
        InputError: an array is no table of finite numbers.
    """
    features, warnings = {}, []
    if (folder / f"{USER_PROFILES}.npy").exists():
        warnings.append(f"{USER_PROFILES}.npy is not read: its profiles may have seen held-out items")
    for path in sorted(folder.glob("*_feat.npy")):
        if path.stem == USER_PROFILES:
            continue
        array = storage.read_array(path)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise InputError(f"{path.name} holds {array.dtype} of shape {array.shape}; wanted floats, a row per item")
        narrow, n_scaled = _narrow(array)
        if n_scaled:
            warnings.append(
                f"{path.name}: {n_scaled} rows exceed the range of float32; each was divided by its largest number"
            )
        bad = np.flatnonzero(~np.isfinite(narrow).all(axis=1))
        if len(bad):
            raise InputError(f"{path.name}: {len(bad)} rows hold NaN or infinity, the first is item {bad[0]}")
        if zeros := int((~narrow.any(axis=1)).sum()):
            warnings.append(f"{path.name}: {zeros} of {len(narrow)} rows are zero; these items have no feature")
        features[path.stem] = narrow
    return features, warnings


def _narrow(array: NDArray[np.floating[Any]]) -> tuple[NDArray[np.float32], int]:
    """Return float32 rows, and the number of those that were scaled into its range; only their direction counts."""
    limits = np.finfo(np.float32)
    if array.dtype.itemsize <= limits.dtype.itemsize:
        return np.asarray(array, dtype=np.float32), 0
    largest = np.maximum(array.max(axis=1, initial=0), -array.min(axis=1, initial=0)).astype(np.float64)
    is_odd = np.isfinite(largest) & (largest > 0) & ((largest > limits.max) | (largest < limits.tiny))
    with np.errstate(over="ignore", under="ignore"):
        narrow = np.array(array, dtype=np.float32)
        narrow[is_odd] = array[is_odd].astype(np.float64) / largest[is_odd, None]
    return narrow, int(is_odd.sum())

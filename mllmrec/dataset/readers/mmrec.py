"""Reader of the MMRec toolbox's layout (method section 5): a .inter file, feature arrays, id maps.

An item's index is its itemID, with or without interactions, for the feature rows go by it. Ids of the shop
come from u_id_mapping.csv and i_id_mapping.csv where they lie beside; otherwise the numbers are the ids.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.readers.reading import read_table
from mllmrec.dataset.readers.source import INTERACTIONS, ITEMS, Source
from mllmrec.errors import InputError, near_miss
from mllmrec.foundation import storage

_COLUMNS = ("userID", "itemID", "x_label")
_SPLITS = {"0": "train", "1": "valid", "2": "test"}
USER_PROFILES = "user_preferences_feat"


def looks_like_mmrec(folder: Path) -> bool:
    """Whether the folder holds a .inter file."""
    return any(folder.glob("*.inter"))


def read_mmrec(folder: Path) -> Source:
    """A folder of the MMRec toolbox.

    `user_preferences_feat.npy` is left where it is: nothing shows that its profiles saw training items only.

    Raises:
        InputError: there is no .inter file, a column is missing, ids are no numbers, or features do not fit.
    """
    path = next(iter(sorted(folder.glob("*.inter"))), None)
    if path is None:
        raise InputError(f"{folder} holds no .inter file")
    raw = read_table(path)
    for name in _COLUMNS:
        if name not in raw.columns:
            raise InputError(
                f"{path.name}:1: no column {name!r}{near_miss(name, raw.columns)}; there are: {', '.join(raw.columns)}"
            )
    numbers = {name: _numbers(raw[name], path.name) for name in _COLUMNS}
    features = _features(folder)
    n_items = max([int(numbers["itemID"].max()) + 1, *(len(array) for array in features.values())])
    for name, array in features.items():
        if len(array) != n_items:
            raise InputError(f"{name}.npy has {len(array)} rows for {n_items} items; rows go by itemID")
    user_names = _names(folder / "u_id_mapping.csv", int(numbers["userID"].max()) + 1)
    item_names = _names(folder / "i_id_mapping.csv", n_items)
    profiles = (folder / f"{USER_PROFILES}.npy").exists()
    return Source(
        name=path.stem,
        kind="mmrec",
        interactions=_interactions(raw, numbers, user_names, item_names),
        items=pl.DataFrame({"item": item_names}, schema={"item": ITEMS["item"]}).with_columns(
            pl.lit(None, dtype).alias(name) for name, dtype in ITEMS.items() if name != "item"
        ),
        features=features,
        rows_read=len(raw),
        warnings=(f"{USER_PROFILES}.npy is not read: its profiles may have seen held-out items",) if profiles else (),
    )


def _interactions(
    raw: pl.DataFrame, numbers: dict[str, NDArray[np.int64]], users: list[str], items: list[str]
) -> pl.DataFrame:
    def optional(name: str, dtype: pl.DataType) -> pl.Series:
        given = raw[name].cast(pl.Float64, strict=False) if name in raw.columns else pl.Series([None] * len(raw))
        return given.cast(dtype, strict=False)

    return pl.DataFrame(
        {
            "user": [users[n] for n in numbers["userID"]],
            "item": [items[n] for n in numbers["itemID"]],
            "rating": optional("rating", pl.Float64()),
            "timestamp": optional("timestamp", pl.Int64()),
            "split": [_SPLITS.get(str(n), str(n)) for n in numbers["x_label"]],
        },
        schema=INTERACTIONS,
    )


def _numbers(column: pl.Series, where: str) -> NDArray[np.int64]:
    values = column.cast(pl.Int64, strict=False)
    bad = column.filter(values.is_null() | (values < 0))
    if len(bad):
        raise InputError(f"{where}: {column.name} holds {bad[0]!r}; wanted numbers from 0")
    return values.to_numpy()


def _features(folder: Path) -> dict[str, NDArray[np.float32]]:
    found = {}
    for path in sorted(folder.glob("*_feat.npy")):
        if path.stem == USER_PROFILES:
            continue
        array = storage.read_array(path)
        if array.ndim != 2 or array.dtype.kind != "f":
            raise InputError(f"{path.name} holds {array.dtype} of shape {array.shape}; wanted floats, a row an item")
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))
        if len(bad):
            raise InputError(f"{path.name}: {len(bad)} rows hold NaN or infinity, the first is item {bad[0]}")
        found[path.stem] = np.asarray(array, dtype=np.float32)
    return found


def _names(path: Path, n: int) -> list[str]:
    """[n] the shop's ids by number: a mapping's first column is the id, its second the number."""
    if not path.is_file():
        return [str(number) for number in range(n)]
    table = read_table(path, delimiter="\t")
    names, numbers = table[table.columns[0]].to_list(), _numbers(table[table.columns[1]], path.name)
    found = {int(number): name for name, number in zip(names, numbers, strict=True)}
    if sorted(found) != list(range(n)):
        raise InputError(f"{path.name} maps {len(found)} ids; wanted one for each number below {n}")
    return [found[number] for number in range(n)]

"""Write a dataset in the MMRec toolbox's layout, so that its models can be run on the very same split.

    <name>.inter  i_id_mapping.csv  u_id_mapping.csv  <feature>.npy ...

Times are seconds, with a fraction where the dataset has finer ones. The mapping files hold the shop's ids exactly
as they are, for they are read back. For eyes and a spreadsheet,
`spreadsheet=True` puts an apostrophe before ids that a spreadsheet would run as a formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

from mllmrec.dataset import Dataset
from mllmrec.errors import MismatchError
from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.foundation.tables import escape_formula


def export_mmrec(
    dataset: Dataset, out: Path, *, item_features: Mapping[str, Vectors], spreadsheet: bool = False
) -> list[Path]:
    """Write the layout.

    Args:
        dataset: what to write; its own item features go along.
        out: folder.
        item_features: more features, float32 [I, d], by file stem.
        spreadsheet: defuse ids that begin like a formula; such a mapping is not for reading back.

    Returns:
        The paths of the files.

    Raises:
        MismatchError: a feature has not one row per item.
        StorageError: the folder cannot be written.
    """
    given = {name: np.asarray(storage.read_array(path)) for name, path in dataset.features.items()}
    features = given | dict(item_features)
    for name, array in features.items():
        if len(array) != dataset.n_items:
            raise MismatchError(f"feature {name!r} has {len(array)} rows, the dataset {dataset.n_items} items")
    storage.make_folder(out)
    # A name with a dot in front would hide the file.
    written = [_write_tsv(out / f"{dataset.name.lstrip('.') or 'dataset'}.inter", _inter(dataset))]
    for side, ids, column in (("u", dataset.users, "userID"), ("i", dataset.item_ids, "itemID")):
        shown = [escape_formula(name) for name in ids] if spreadsheet else ids
        mapping = pl.DataFrame({"id": shown, column: np.arange(len(ids))}, schema_overrides={"id": pl.String})
        written.append(_write_tsv(out / f"{side}_id_mapping.csv", mapping))
    for name, array in features.items():
        storage.write_array(out / f"{name}.npy", np.asarray(array, dtype=np.float32))
        written.append(out / f"{name}.npy")
    return written


def _inter(dataset: Dataset) -> pl.DataFrame:
    return dataset.interactions.select(
        userID="user", itemID="item", rating="rating", timestamp=_seconds(dataset.ticks_per_second), x_label="split"
    )


def _seconds(per_second: int) -> pl.Expr:
    """Return the timestamps in seconds, as exact decimal text if they are finer."""
    ticks = pl.col("timestamp")
    if per_second == 1:
        return ticks
    sign = pl.when(ticks < 0).then(pl.lit("-")).otherwise(pl.lit(""))
    whole, rest = ticks.abs() // per_second, ticks.abs() % per_second
    return pl.format("{}{}.{}", sign, whole, rest.cast(pl.String).str.zfill(len(str(per_second)) - 1))


def _write_tsv(path: Path, table: pl.DataFrame) -> Path:
    with storage.atomic(path) as temporary:
        table.write_csv(temporary, separator="\t")
    return path

"""Read the files that a dataset grows by: tables of interactions and items, and vectors beside the items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.readers import mmrec
from mllmrec.dataset.readers.columns import TableColumns, check_assignments
from mllmrec.dataset.readers.files import check_format, tables_in
from mllmrec.dataset.readers.formats import Reading, read_objects
from mllmrec.dataset.readers.interactions import InteractionFile, Interactions, read_interactions
from mllmrec.dataset.readers.items import Items, read_items
from mllmrec.dataset.readers.source import INTERACTIONS, ITEMS, Rejects
from mllmrec.errors import InputError
from mllmrec.foundation.progress import Progress

ItemVectors = tuple[pl.Series, NDArray[np.float32]]  # ids, and a row for each


@dataclass(frozen=True, slots=True)
class NewFiles:
    """The content of new files.

    Attributes:
        interactions: columns INTERACTIONS; no rows if there are no such files.
        items: columns ITEMS, a row per item.
        read: the files of interactions; None if there are none.
        catalogues: the item tables.
        rejects: rows that were left out.
        features: by name, the ids of items and their vectors, float32 [n, d].
        warnings: lines about the vectors.
    """

    interactions: pl.DataFrame
    items: pl.DataFrame
    read: Interactions | None
    catalogues: tuple[Items, ...]
    rejects: Rejects
    features: Mapping[str, ItemVectors]
    warnings: tuple[str, ...]


def read_new_files(
    paths: Sequence[Path], columns: Mapping[str, str], max_rejected: float, progress: Progress
) -> NewFiles:
    """Read all files, each as what its columns say.

    Args:
        paths: tables of interactions or items; a folder stands for its tables.
        columns: columns by role, as `parse_columns` returns them.
        max_rejected: share of a file's rows that may be left out, in [0, 1].
        progress: called while it reads.

    Raises:
        InputError: a file cannot be read, or vectors beside an item table do not fit it.
    """
    rejects = Rejects(max_rejected)
    reading = Reading(rejects, progress=progress)
    files = [file for path in paths for file in (tables_in(path) if path.is_dir() else [path])]
    histories: list[InteractionFile] = []
    catalogues: list[Items] = []
    features: dict[str, ItemVectors] = {}
    warnings: list[str] = []
    for file in files:
        check_format(file)
        header = next((tuple(row) for _, row in read_objects(file, Reading(Rejects()))), ())
        if TableColumns("interactions", f"{file.name}:1", columns).roles(header)["user"]:
            histories.append(InteractionFile(file))
        else:
            catalogues.append(read_items(file, file.parent, columns, reading))
            if file.parent in paths:
                beside, notes = _read_features(catalogues[-1], file.parent)
                features |= beside
                warnings += notes
    read = read_interactions(histories, columns, reading) if histories else None
    check_assignments(columns, [*(read.columns if read else ()), *(catalogue.columns for catalogue in catalogues)])
    items = pl.concat([pl.DataFrame(schema=ITEMS), *(catalogue.table for catalogue in catalogues)])
    return NewFiles(
        interactions=read.table() if read else pl.DataFrame(schema=INTERACTIONS),
        items=items.unique("item", keep="first", maintain_order=True),
        read=read,
        catalogues=tuple(catalogues),
        rejects=rejects,
        features=features,
        warnings=tuple(warnings),
    )


def _read_features(catalogue: Items, folder: Path) -> tuple[dict[str, ItemVectors], list[str]]:
    """Return the feature arrays beside an item table with the ids of their rows, and warnings.

    Raises:
        InputError: an array does not have a row for each row of the table.
    """
    ids, n_rows = catalogue.table["item"], catalogue.file.rows
    features, warnings = mmrec.read_features(folder)
    for name, array in features.items():
        if not len(array) == len(ids) == n_rows:
            raise InputError(
                f"{name}.npy has {len(array):,} rows, {catalogue.file.name} has {n_rows:,} of {len(ids):,} items; give "
                "a vector for each row, and each item once"
            )
    return {name: (ids, array) for name, array in features.items()}, warnings

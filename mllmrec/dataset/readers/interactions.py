"""Read the interactions of a shop, from one file or from several, into one table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.dataset.readers.columns import TableColumns
from mllmrec.dataset.readers.delimited import Cells
from mllmrec.dataset.readers.formats import OBJECTS, Reading, read_cells, read_objects
from mllmrec.dataset.readers.reading import suffix
from mllmrec.dataset.readers.source import FileRead, TimeUnit
from mllmrec.dataset.readers.times import read_times
from mllmrec.dataset.readers.values import id_fault, read_ids, read_numbers, show, without_missing

_ROLES = ("user", "item", "rating", "timestamp", "split")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class InteractionFile:
    """Name a file of interactions.

    Attributes:
        path: the file.
        part: "train", "valid" or "test", where the file is that part of a given split; otherwise "".
        header: names of the columns, where the file has no header.
    """

    path: Path
    part: str = ""
    header: tuple[str, ...] = ()


@dataclass(frozen=True)
class Interactions:
    """Hold all interactions of a shop.

    Attributes:
        table: columns INTERACTIONS, in the order of the files.
        files: what was read.
        columns: the columns of each file.
        time_unit: unit of the timestamps.
        time_form: the form that the timestamps had, in words.
    """

    table: pl.DataFrame
    files: tuple[FileRead, ...]
    columns: tuple[TableColumns, ...]
    time_unit: TimeUnit
    time_form: str


def read_interactions(
    files: Sequence[InteractionFile], assignments: Mapping[str, str], reading: Reading, *, numbered: bool = False
) -> Interactions:
    """Read files of interactions as one table.

    Args:
        files: in the order in which their rows are kept.
        assignments: columns that the user named, of `parse_columns`.
        reading: limits, and the place of the rows that are left out.
        numbered: ids must be numbers from 0, as in the MMRec toolbox.

    Returns:
        The rows whose user, item, rating and time can be read.

    Raises:
        InputError: a file cannot be read, a column is missing, or too many rows of a file are left out.
    """
    columns = tuple(TableColumns("interactions", f"{file.path.name}:1", assignments) for file in files)
    texts = [_read(file, chosen, reading) for file, chosen in zip(files, columns, strict=True)]
    rows = pl.concat([text.with_columns(file=pl.lit(n)) for n, text in enumerate(texts)])
    times, ratings = read_times(rows["timestamp"]), without_missing(rows["rating"])
    values = rows.select(
        user=read_ids(rows["user"], numbered=numbered),
        item=read_ids(rows["item"], numbered=numbered),
        rating=read_numbers(ratings),
        timestamp=times.values,
        split="split",
    )
    faults = pl.DataFrame(
        {
            "user": values["user"].is_null(),
            "item": values["item"].is_null(),
            "rating": ratings.is_not_null() & values["rating"].is_null(),
            "timestamp": times.unreadable,
        }
    )
    is_faulty = faults.select(pl.any_horizontal(pl.all())).to_series()
    for row, fault in zip(
        rows.filter(is_faulty).iter_rows(named=True), faults.filter(is_faulty).iter_rows(named=True), strict=True
    ):
        role = next(role for role in faults.columns if fault[role])
        reading.rejects.add(files[row["file"]].path.name, row["line"], _reason(role, row[role], numbered=numbered))
    counts = dict(rows.filter(~is_faulty)["file"].value_counts().iter_rows())
    facts = [
        _facts(file.path.name, counts.get(n, 0), chosen, reading)
        for n, (file, chosen) in enumerate(zip(files, columns, strict=True))
    ]
    return Interactions(values.filter(~is_faulty), tuple(facts), columns, times.unit, times.form)


def _read(file: InteractionFile, columns: TableColumns, reading: Reading) -> pl.DataFrame:
    """Return line and text cells of each role, null if the file has none."""
    if suffix(file.path) in OBJECTS:
        frame = _object_cells(file.path, columns, reading)
    else:
        cells = read_cells(file.path, reading, columns.roles, file.header)
        frame = pl.DataFrame({"line": cells.lines} | {role: _cells(cells, columns, role) for role in _ROLES})
    columns.check()
    return frame.with_columns(split=pl.lit(file.part)) if file.part else frame


def _cells(cells: Cells, columns: TableColumns, role: str) -> pl.Series:
    """Return the cells of a role: of its first column that is not empty."""
    chosen = [cells.frame[str(cells.names.index(name))] for name in columns.roles(cells.names)[role]]
    filled = (column for column in chosen if column.null_count() < len(column))
    empty = pl.Series(role, [None], pl.String).new_from_index(0, len(cells.lines))
    return next(filled, empty)


def _object_cells(path: Path, columns: TableColumns, reading: Reading) -> pl.DataFrame:
    # Lists of text, not of objects: a dump may have tens of millions of rows.
    lines: list[int] = []
    texts: dict[str, list[str | None]] = {role: [] for role in _ROLES}
    for line, row in read_objects(path, reading):
        cells = columns.roles(tuple(row))
        values = [_first(row, cells[role]) for role in _ROLES]
        if _is_id(values[0]) and _is_id(values[1]):
            lines.append(line)
            for role, value in zip(_ROLES, values, strict=True):
                texts[role].append(value if value is None else str(value).strip())
        else:
            role, value = ("item", values[1]) if _is_id(values[0]) else ("user", values[0])
            reading.rejects.add(path.name, line, id_fault(value, role))
    return pl.DataFrame({"line": pl.Series(lines, dtype=pl.UInt32)} | {role: _series(texts[role]) for role in _ROLES})


def _is_id(value: Any) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    if len(names) == 1:
        return row[names[0]]
    return next((value for name in names if (value := row[name]) is not None and value != ""), None)


def _series(texts: list[str | None]) -> pl.Series:
    try:
        return pl.Series(texts, dtype=pl.String)
    except UnicodeEncodeError:  # half of a surrogate pair; no id may hold the zero byte
        return pl.Series([text and _SURROGATE.sub("\x00", text) for text in texts], dtype=pl.String)


def _reason(role: str, cell: str | None, *, numbered: bool) -> str:
    if role in ("user", "item"):
        return f"{role} {show(cell)} is no number from 0" if cell and numbered else id_fault(cell, role)
    kind = "number, such as 4.5" if role == "rating" else "time, such as 1600000000 or 2020-09-13 12:26:40"
    return f"{role} is no {kind}: {show(cell)}"


def _facts(name: str, n_read: int, columns: TableColumns, reading: Reading) -> FileRead:
    rejected = reading.rejects.counts[name]
    reading.rejects.check(name, n_read + rejected)
    return FileRead(name, columns.table, n_read + rejected, rejected, columns.used_names())

"""Read the interactions of a shop, from one file or from several, into one table."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.readers.columns import TableColumns
from mllmrec.dataset.readers.formats import OBJECTS, Reading, read_cells, read_objects
from mllmrec.dataset.readers.reading import suffix
from mllmrec.dataset.readers.rows import NO_TIME, Pieces, Rows, TextCodes, read_rows
from mllmrec.dataset.readers.source import INTERACTIONS, FileRead, Rejects, TimeUnit
from mllmrec.dataset.readers.times import TimeForms
from mllmrec.dataset.readers.values import id_fault

_PIECE_ROWS = 500_000  # of objects that are held at a time
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
    """Hold all interactions of a shop, in the order of the files.

    Attributes:
        rows: users, items, ratings and times as numbers.
        parts: names of the parts of a given split, each once; none where the source gives no split.
        files: what was read.
        columns: the columns of each file.
        time_unit: unit of the timestamps.
        time_form: the form that the timestamps had, in words.
    """

    rows: Rows
    parts: pl.Series
    files: tuple[FileRead, ...]
    columns: tuple[TableColumns, ...]
    time_unit: TimeUnit
    time_form: str

    def table(self, places: NDArray[np.integer] | None = None) -> pl.DataFrame:
        """Return rows in columns INTERACTIONS; None: all."""
        rows, every = self.rows, np.arange(len(self.rows.user)) if places is None else places
        return pl.DataFrame(
            {
                "user": rows.users.gather(rows.user[every]),
                "item": rows.items.gather(rows.item[every]),
                "rating": rating_column(rows.ratings.read()[every]),
                "timestamp": time_column(rows.times.read()[every]),
                "split": self.split_column(every),
            },
            schema=INTERACTIONS,
        )

    def split_column(self, places: NDArray[np.integer]) -> pl.Series:
        """Return the source's name of each row's part, null if it has none."""
        split = pl.Series(self.rows.split.read()[places])
        return self.parts.gather(split.set(split < 0, None))


def rating_column(ratings: NDArray[np.float64]) -> pl.Series:
    """Return ratings, null if there is none."""
    missing = np.isnan(ratings)
    column = pl.Series("rating", ratings)
    return column.set(pl.Series(missing), None) if missing.any() else column


def time_column(times: NDArray[np.int64]) -> pl.Series:
    """Return times, null if there is none."""
    missing = times == NO_TIME
    column = pl.Series("timestamp", times)
    return column.set(pl.Series(missing), None) if missing.any() else column


def read_interactions(
    files: Sequence[InteractionFile], assignments: Mapping[str, str], reading: Reading, *, numbered: bool = False
) -> Interactions:
    """Read files of interactions as one table, some rows at a time.

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
    codes = {role: TextCodes() for role in ("user", "item", "split")}
    pieces, forms = Pieces(reading.scratch), TimeForms()
    for n, (file, chosen) in enumerate(zip(files, columns, strict=True)):
        for cells in _cell_pieces(file, chosen, reading):
            forms.add(cells["timestamp"])
            numbers = (code.encode(cells[role]).alias(role) for role, code in codes.items())
            pieces.append(cells.with_columns(*numbers, file=pl.lit(n)))
        chosen.check()
    texts = {role: code.texts() for role, code in codes.items()}
    rows = read_rows(pieces, texts, forms, reading, [file.path.name for file in files], numbered=numbered)
    facts = [
        _facts(file.path.name, rows.counts[n], chosen, reading)
        for n, (file, chosen) in enumerate(zip(files, columns, strict=True))
    ]
    return Interactions(rows, texts["split"], tuple(facts), columns, forms.unit, forms.form)


def _cell_pieces(file: InteractionFile, columns: TableColumns, reading: Reading) -> Iterator[pl.DataFrame]:
    """Yield line and text cells of each role, null if the file has none, some rows at a time."""
    if suffix(file.path) in OBJECTS:
        pieces = _object_cells(file.path, columns, reading)
    else:
        pieces = _table_cells(file, columns, reading)
    for piece in pieces:
        yield piece.with_columns(split=pl.lit(file.part)) if file.part else piece


def _table_cells(file: InteractionFile, columns: TableColumns, reading: Reading) -> Iterator[pl.DataFrame]:
    chosen: dict[str, str] | None = None
    for cells in read_cells(file.path, reading, columns.roles, file.header):
        if chosen is None:
            named = columns.roles(cells.names)
            columns.check()
            chosen = _filled_columns(file, named, columns, reading)
        empty = pl.Series([None], dtype=pl.String).new_from_index(0, len(cells.lines))
        found = {role: cells.frame[str(cells.names.index(name))] for role, name in chosen.items()}
        yield pl.DataFrame({"line": cells.lines} | {role: found.get(role, empty) for role in _ROLES})


def _filled_columns(
    file: InteractionFile, named: Mapping[str, Sequence[str]], columns: TableColumns, reading: Reading
) -> dict[str, str]:
    """Return the column of each role: of several the first that is not empty in the whole file."""
    several = [names for role in _ROLES if len(names := named[role]) > 1]
    filled: set[str] = set()
    if several:
        with closing(read_cells(file.path, replace(reading, rejects=Rejects()), columns.roles, file.header)) as pieces:
            for cells in pieces:
                tried = ((name, cells.frame[str(cells.names.index(name))]) for names in several for name in names)
                filled |= {name for name, column in tried if column.null_count() < len(column)}
                if all(names[0] in filled for names in several):
                    break
    first = {role: next((name for name in named[role] if name in filled), named[role][:1]) for role in _ROLES}
    return {role: name if isinstance(name, str) else name[0] for role, name in first.items() if name}


def _object_cells(path: Path, columns: TableColumns, reading: Reading) -> Iterator[pl.DataFrame]:
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
        if len(lines) == _PIECE_ROWS:
            yield _objects_frame(lines, texts)
            for column in (lines, *texts.values()):
                column.clear()  # type: ignore[attr-defined]
    yield _objects_frame(lines, texts)


def _objects_frame(lines: list[int], texts: Mapping[str, list[str | None]]) -> pl.DataFrame:
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


def _facts(name: str, n_read: int, columns: TableColumns, reading: Reading) -> FileRead:
    rejected = reading.rejects.counts[name]
    reading.rejects.check(name, n_read + rejected)
    return FileRead(name, columns.table, n_read + rejected, rejected, columns.used_names())

"""Turn a file of any format into text columns or into objects, each row with its line.

| format | line of a row |
|---|---|
| csv, tsv, inter, item | its first line |
| jsonl, ndjson, json | its line; a json file is one array, or has an object in each line |
| parquet | its number, from 1 |

An object may also be a Python literal, as in the Amazon meta files of 2014; it is never evaluated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mllmrec.dataset.readers.delimited import Cells, delimited_pieces
from mllmrec.dataset.readers.reading import lines, open_text, refuse_unpacked, suffix, unpacked_limit
from mllmrec.dataset.readers.source import Rejects
from mllmrec.dataset.readers.values import parse_literal
from mllmrec.errors import InputError, first_line
from mllmrec.foundation.progress import Progress, silent
from mllmrec.foundation.storage import open_regular
from mllmrec.foundation.tables import unpacked_bytes

DELIMITERS = {"csv": ",", "tsv": "\t", "inter": "\t", "item": "\t"}
OBJECTS = ("jsonl", "ndjson", "json")
FORMATS = ("parquet", *DELIMITERS, *OBJECTS)
_BATCH_ROWS = 1024
_PIECE_ROWS = 500_000  # of a parquet file that are read at a time
_PROGRESS_LINES = 20_000  # between two calls of progress
_CELL_BYTES = 16  # that an unpacked cell takes at least
_BLANKS = re.compile(r"\s*")
_JSON = json.JSONDecoder(parse_constant=lambda _: None)  # NaN and Infinity
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")  # of an object of this process, which no two runs share
_KINDS = {"rating": "numbers", "timestamp": "numbers, or dates with the time of day"}
Roles = Callable[[Sequence[str]], Mapping[str, Sequence[str]]]
"""Called with the names of a header; returns the names that are read, by role."""


@dataclass(frozen=True)
class Reading:
    """Set limits for reading a shop, and collect the rows that are left out.

    Attributes:
        rejects: takes the rows that are left out.
        max_bytes: limit of one file's unpacked bytes; None: by its size.
        max_rows: limit of one file's rows.
        progress: called while long files are read.
        scratch: folder for temporary files; None: the system's place for them.
    """

    rejects: Rejects
    max_bytes: int | None = None
    max_rows: int = 500_000_000
    progress: Progress = silent
    scratch: Path | None = None

    def check_rows(self, path: Path, rows: int) -> None:
        """Refuse a file of too many rows.

        Raises:
            InputError: it has more than `max_rows`.
        """
        if rows > self.max_rows:
            raise InputError(f"{path.name} has over {self.max_rows:,} rows; permit more with --max-rows")


def read_cells(path: Path, reading: Reading, roles: Roles, header: Sequence[str] = ()) -> Generator[Cells, None, None]:
    """Yield the text cells of a csv, tsv or parquet file, some of its rows at a time; at least once.

    Args:
        path: the file.
        reading: limits, and the place of the rows that are left out.
        roles: chooses the columns of a parquet file.
        header: names of the columns, where a csv or tsv file has no header.

    Raises:
        InputError: it cannot be read, or unpacks to too much.
    """
    rows, is_parquet = 0, suffix(path) == "parquet"
    for cells in _parquet_cells(path, reading, roles) if is_parquet else _delimited(path, reading, header):
        rows += len(cells.lines)
        reading.check_rows(path, rows)
        reading.progress(f"read {path.name}", rows, None)
        yield cells


def _delimited(path: Path, reading: Reading, header: Sequence[str] = ()) -> Iterator[Cells]:
    return delimited_pieces(path, DELIMITERS[suffix(path)], reading.rejects, header=header, max_bytes=reading.max_bytes)


def read_objects(path: Path, reading: Reading) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (line, row by column name) of a file of any format; values keep their types.

    Raises:
        InputError: it cannot be read, or unpacks to too much.
    """
    if suffix(path) in OBJECTS:
        rows = _array_rows(path, reading) if _is_array(path, reading) else _line_rows(path, reading)
    elif suffix(path) == "parquet":
        rows = _parquet_rows(path, reading)
    else:
        rows = _cell_rows(path, reading)
    for count, row in enumerate(rows, start=1):
        reading.check_rows(path, count)
        if count % _PROGRESS_LINES == 0:
            reading.progress(f"read {path.name}", count, None)
        yield row


def _cell_rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    for cells in _delimited(path, reading):
        for line, row in zip(cells.lines, cells.frame.iter_rows(), strict=True):
            yield line, dict(zip(cells.names, row, strict=True))


def _is_array(path: Path, reading: Reading) -> bool:
    with open_text(path, reading.max_bytes) as file:
        return suffix(path) == "json" and file.read(1 << 16).lstrip()[:1] == b"["


def _line_rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path, reading.rejects, reading.max_bytes):
        try:
            value = parse_object(line)
        except (ValueError, RecursionError) as error:
            if number == 1 and line.strip() in (b"{", b"["):
                raise InputError(
                    f"{path.name}:1: JSON over several lines; wanted an object in each line, or one array of objects "
                    "in a file named .json"
                ) from error
            is_foreign = isinstance(error, UnicodeDecodeError)
            reason = "not UTF-8 text; save the file as UTF-8" if is_foreign else _ADDRESS.sub("", first_line(error))
            reading.rejects.add(path.name, number, reason)
            continue
        yield number, value


def parse_object(line: bytes) -> dict[str, Any]:
    """Return the object that a line writes, as JSON or as a Python literal; NaN and Infinity are None.

    Raises:
        ValueError: it is neither, or is too large or too deep to try.
        RecursionError: it is too deep.
    """
    literal = line.decode("utf-8").strip()
    try:
        value = _JSON.decode(literal)
    except json.JSONDecodeError:
        value = parse_literal(literal)
    if not isinstance(value, dict):
        hint = "; name a file that is one array .json" if isinstance(value, list) else ""
        raise ValueError(f"wanted an object, got {type(value).__name__}{hint}")
    return value


def _array_rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path, reading.max_bytes) as file:
        data = file.read()
    try:
        array = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path.name}:{line}: not UTF-8 text; save the file as UTF-8") from error
    end = _BLANKS.match(array, array.index("[") + 1).end()  # type: ignore[union-attr]
    line = 1 + array.count("\n", 0, end)
    while array[end : end + 1] != "]":
        try:
            value, after = _JSON.raw_decode(array, end)
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"{path.name}:{line}: the array is cut off or no JSON here: {first_line(error)}"
            ) from error
        if isinstance(value, dict):
            yield line, value
        else:
            reading.rejects.add(path.name, line, f"wanted an object, got {type(value).__name__}")
        start, end = end, _BLANKS.match(array, after).end()  # type: ignore[union-attr]
        line += array.count("\n", start, end)
        if array[end : end + 1] == ",":
            start, end = end, _BLANKS.match(array, end + 1).end()  # type: ignore[union-attr]
            line += array.count("\n", start, end)
        elif array[end : end + 1] != "]":
            raise InputError(f"{path.name}:{line}: the array is cut off or no JSON here: wanted a comma or ]")
    after = _BLANKS.match(array, end + 1).end()  # type: ignore[union-attr]
    if after < len(array):
        line += array.count("\n", end, after)
        raise InputError(f"{path.name}:{line}: text follows the end of the array; wanted one array in a file")


@contextmanager
def _open_parquet(path: Path, reading: Reading) -> Iterator[pq.ParquetFile]:
    """Open a parquet file, and refuse it by its metadata before anything is unpacked.

    Raises:
        InputError: the file cannot be read, or unpacks to too much.
    """
    try:
        # By its handle: Arrow takes no path that is not UTF-8.
        with open_regular(path) as handle:
            file = pq.ParquetFile(handle)
            _check_size(path, handle, file.metadata, reading)
            yield file
    except (pa.ArrowException, pl.exceptions.PolarsError, OSError, ValueError, OverflowError) as error:
        raise InputError(f"{path.name} cannot be read as parquet: {first_line(error)}") from error


def _check_size(path: Path, file: BinaryIO, facts: pq.FileMetaData, reading: Reading) -> None:
    reading.check_rows(path, facts.num_rows)
    most = unpacked_limit(path, reading.max_bytes)
    size = facts.num_rows * min(facts.num_columns, 5) * _CELL_BYTES
    size = size if size > most else max(size, unpacked_bytes(file, facts, most))
    if size > most:
        raise refuse_unpacked(path, f"over {size >> 20:,} MiB in {facts.num_rows:,} rows")


def _parquet_cells(path: Path, reading: Reading, roles: Roles) -> Iterator[Cells]:
    with _open_parquet(path, reading) as file:
        names = tuple(file.schema_arrow.names)
        chosen = [(role, name) for role, columns in roles(names).items() for name in columns]
        read_names, rows = [*dict.fromkeys(name for _, name in chosen)], 0
        if not read_names:
            yield Cells(names, pl.DataFrame(), pl.Series("line", dtype=pl.UInt32))
            return
        some = file.metadata.num_rows > 0
        for batch in file.iter_batches(_PIECE_ROWS, columns=read_names) if some else [file.read(columns=read_names)]:
            columns = {}
            for role, name in chosen:
                column = pl.Series(_valid(batch.column(batch.schema.get_field_index(name))))
                columns[str(names.index(name))] = _as_text(column, role, f"{path.name}: the {role} column {name!r}")
            lines = pl.Series("line", range(rows + 1, rows + batch.num_rows + 1), dtype=pl.UInt32)
            rows += batch.num_rows
            yield Cells(names, pl.DataFrame(columns), lines)
        _check_whole(file, rows)


def _parquet_rows(path: Path, reading: Reading) -> Iterator[tuple[int, dict[str, Any]]]:
    with _open_parquet(path, reading) as file:
        number = 0
        for row in (row for batch in file.iter_batches(_BATCH_ROWS) for row in batch.to_pylist()):
            number += 1
            yield number, row
        _check_whole(file, number)


def _check_whole(file: pq.ParquetFile, rows: int) -> None:
    if rows != file.metadata.num_rows:
        raise ValueError(f"it is damaged: {rows} rows where its metadata has {file.metadata.num_rows}")


def _valid(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Return a column whose text is UTF-8: polars takes Arrow's word for it, a damaged file breaks it."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
            raise
        return column.cast(pa.large_binary())
    return column


def _as_text(column: pl.Series, role: str, where: str) -> pl.Series:
    """Return a column of a parquet file as text cells.

    Raises:
        InputError: its type can hold no value of the role.
    """
    dtype = column.dtype
    whole = dtype.is_integer() or (isinstance(dtype, pl.Decimal) and not dtype.scale)
    if role in ("user", "item") and (dtype.is_float() or isinstance(dtype, pl.Decimal)) and not whole:
        raise InputError(f"{where} is {dtype}: it cannot hold ids above 2^53 exactly; save ids as text or integers")
    text = dtype in (pl.String, pl.Binary, pl.Categorical, pl.Enum, pl.Null)
    number = whole or (role not in ("user", "item") and dtype.is_numeric())
    date = role == "timestamp" and dtype in (pl.Date, pl.Datetime)
    if not (text or number or date):
        raise InputError(f"{where} is {dtype}; wanted {_KINDS.get(role, 'text or integers')}")
    if isinstance(dtype, pl.Datetime) and dtype.time_zone:
        column = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    if dtype == pl.Binary:
        column = pl.Series([None if value is None else _decoded(value) for value in column], dtype=pl.String)
    cells = column.cast(pl.String, strict=False).str.strip_chars()
    return cells.set(cells == "", None)


def _decoded(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return f"{value.decode('utf-8', 'backslashreplace')}\x00"  # no id may hold the zero byte

"""Tables from disk as strings: csv, tsv, parquet, JSON lines, each also gzipped where it is text.

Nothing is guessed from values: every id stays the string that it was, "007" is not 7.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import polars as pl

from mllmrec.dataset.readers.source import Rejected
from mllmrec.errors import InputError

LINE_BYTES = 4 << 20  # a longer line is no row of a table
_DELIMITERS = ",\t;|"


def suffix(path: Path) -> str:
    """The kind of a file by its name, .gz set aside: "csv", "tsv", "parquet", "jsonl", "json" ..."""
    parts = path.name.lower().split(".")
    return parts[-2] if parts[-1] == "gz" and len(parts) > 1 else parts[-1]


def open_text(path: Path) -> IO[bytes]:
    """The bytes of a text file, unpacked where it is gzipped."""
    return gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb")  # type: ignore[return-value]


def read_table(path: Path, delimiter: str | None = None) -> pl.DataFrame:
    """A table; text columns as strings, parquet columns with their types.

    The delimiter goes by the file's name where it is not given.

    Raises:
        InputError: the file cannot be read as what its name says; file:line where it is a row.
    """
    try:
        if suffix(path) == "parquet":
            return pl.read_parquet(path)
        return _read_csv(path, delimiter or ("\t" if suffix(path) in ("tsv", "inter") else ","))
    except (pl.exceptions.PolarsError, OSError, EOFError) as error:
        raise InputError(f"{path.name} cannot be read: {str(error).splitlines()[0]}") from error


def _read_csv(path: Path, delimiter: str) -> pl.DataFrame:
    with open_text(path) as file:
        data = file.read()
    if not data.strip():
        raise InputError(f"{path.name} is empty")
    try:
        header = data[: data.find(b"\n") if b"\n" in data else None].decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InputError(f"{path.name}:1: not UTF-8 text ({error.reason})") from error
    if delimiter not in header:
        other = max(_DELIMITERS, key=header.count)
        if header.count(other):
            raise InputError(
                f"{path.name}:1: wanted columns divided by {delimiter!r}, but the header has {other!r}; "
                f"save it with {delimiter!r}, or rename it to .{'tsv' if other == chr(9) else 'csv'}"
            )
    try:
        return pl.read_csv(data, separator=delimiter, infer_schema=False, encoding="utf8", null_values=[""])
    except pl.exceptions.PolarsError as error:
        raise InputError(_locate(path, data, delimiter, error)) from error


def _locate(path: Path, data: bytes, delimiter: str, error: Exception) -> str:
    """The file:line of the first row that has too many fields or is not text."""
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig")), delimiter=delimiter)
        width = len(next(reader))
        for row in reader:
            if len(row) > width:
                return f"{path.name}:{reader.line_num}: {len(row)} fields, wanted {width}; quote or mend it"
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        return f"{path.name}:{line}: not UTF-8 text; save the file as UTF-8"
    except csv.Error as wrong:
        return f"{path.name}: {wrong}"
    return f"{path.name} cannot be read: {str(error).splitlines()[0]}"


def read_lines(path: Path, rejected: list[Rejected]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, object) of a JSON-lines file; what is no object goes to `rejected` with file:line."""
    for number, line in lines(path, rejected):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            rejected.append(Rejected(f"{path.name}:{number}", f"not JSON: {str(error)[:100]}"))
            continue
        if isinstance(value, dict):
            yield number, value
        else:
            rejected.append(Rejected(f"{path.name}:{number}", f"wanted an object, got {type(value).__name__}"))


def lines(path: Path, rejected: list[Rejected]) -> Iterator[tuple[int, bytes]]:
    """(line number, bytes) of a text file's lines that are not blank; over-long ones are rejected.

    Raises:
        InputError: the file is cut off, as a broken download is.
    """
    number = 0
    try:
        with open_text(path) as file:
            while line := file.readline(LINE_BYTES):
                number += 1
                if len(line) >= LINE_BYTES and not line.endswith(b"\n"):
                    rejected.append(Rejected(f"{path.name}:{number}", f"a line of over {LINE_BYTES >> 20} MiB"))
                    while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                        pass
                elif line.strip():
                    yield number, line.removeprefix(b"\xef\xbb\xbf")
    except (OSError, EOFError) as error:
        raise InputError(f"{path.name}:{number}: the file is cut off or damaged: {error}") from error

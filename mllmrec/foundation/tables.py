"""Tables that somebody else may have written, and text for a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mllmrec.errors import InputError, first_line
from mllmrec.foundation import storage
from mllmrec.foundation.storage import open_regular

MAX_UNPACKED_BYTES = 256 << 20  # a table may always unpack to so many bytes
MAX_UNPACKED_ROWS = 1_000_000  # and to so many rows
_BYTES_PER_BYTE, _ROWS_PER_BYTE = 200, 64  # beyond that, by the bytes of its file
_NESTED_BYTES = 16  # that a value inside a list takes at least, also a null
_BATCH_ROWS = 65_536
_UNREADABLE = (
    pa.ArrowException, ValueError, KeyError, OSError, TypeError, OverflowError, pl.exceptions.PolarsError,
    pl.exceptions.PanicException,
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_formula(cell: str) -> str:
    """Return the cell, with an apostrophe before it if a spreadsheet would run it as a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def write_any(path: Path, table: pl.DataFrame) -> None:
    """Write a table as JSON lines if the path ends in .jsonl, else as parquet."""
    if path.suffix == ".jsonl":
        with storage.atomic(path) as temporary:
            table.write_ndjson(temporary)
    else:
        storage.write_table(path, table)


def read_table(path: Path, columns: Mapping[str, Any], known: Mapping[str, pl.Series] | None = None) -> pl.DataFrame:
    """Read parquet whose columns are known; its metadata is checked before anything is unpacked.

    Args:
        path: the file.
        columns: polars dtype of each column that must be there; others are kept as they are, and not read beside
            `known`.
        known: the texts that some columns of texts may hold. Of these the place of each text is returned, int32, and
            -1 for any other text. Each text is then read once, not in every row.

    Raises:
        InputError: the file is missing or damaged, would unpack to far more than its size, or lacks a column.
    """
    named = known or {}
    try:
        with open_regular(path) as file:
            _check_unpacked(path, file)
            arrow = pq.read_table(file, columns=list(columns) if named else None, read_dictionary=list(named))
        arrow.validate(full=True)
        for name, texts in named.items():
            arrow = arrow.set_column(arrow.column_names.index(name), name, _places(arrow.column(name), texts))
        table = pl.DataFrame(pl.from_arrow(arrow))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except _UNREADABLE as error:
        raise InputError(f"{path} is not a table that can be read: {first_line(error)}") from error
    for name, dtype in columns.items():
        if table.schema.get(name) != dtype:
            raise InputError(f"{path}: column {name!r} is {table.schema.get(name, 'missing')}; wanted {dtype}")
    return table


def _places(column: pa.ChunkedArray, texts: pl.Series) -> pa.Array:
    """Return the place of each text of a dictionary column among some texts, int32; -1 where it is none of them.

    Raises:
        ValueError: the column holds no texts.
    """
    if not pa.types.is_dictionary(column.type):
        raise ValueError(f"a column is {column.type}; wanted texts")
    encoded = column.unify_dictionaries().combine_chunks()
    found = pl.Series(encoded.dictionary).replace_strict(
        texts, np.arange(len(texts)), default=-1, return_dtype=pl.Int32
    )
    places = np.append(found.to_numpy(), np.int32(-1))  # the last stands for no text
    return pa.array(places[encoded.indices.fill_null(len(found)).to_numpy()])


def _check_unpacked(path: Path, file: BinaryIO) -> None:
    metadata = pq.read_metadata(file)
    packed, rows = path.stat().st_size, metadata.num_rows
    most = max(MAX_UNPACKED_BYTES, _BYTES_PER_BYTE * packed)
    unpacked = unpacked_bytes(file, metadata, most)
    if unpacked > most or rows > max(MAX_UNPACKED_ROWS, _ROWS_PER_BYTE * packed):
        raise ValueError(f"{packed:,} bytes would unpack to {unpacked:,} bytes or more in {rows:,} rows")


def unpacked_bytes(file: BinaryIO, metadata: pq.FileMetaData, most: int) -> int:
    """Return the bytes that a parquet file takes in memory, at least; counting stops beyond `most`.

    The metadata counts a text of a million rows only once. So texts are read as references to their
    dictionaries, which stay small, and their lengths are summed.

    Args:
        file: the open file.
        metadata: its metadata.
        most: bytes beyond which the file will be refused.

    Raises:
        pa.ArrowException, OSError: it is damaged.
    """
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    columns = [metadata.schema.column(n) for n in range(metadata.num_columns)]
    size = sum(group.total_byte_size for group in groups)
    for n, column in enumerate(columns):
        width = _NESTED_BYTES if column.max_repetition_level else 0
        width += column.length if column.physical_type == "FIXED_LEN_BYTE_ARRAY" else 0
        size = max(size, width * sum(group.column(n).num_values for group in groups))
    texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
    if not texts or size > most:
        return int(size)
    read = 0
    for batch in pq.ParquetFile(file, read_dictionary=texts).iter_batches(_BATCH_ROWS, columns=texts):
        read += sum(map(_text_bytes, batch.columns))
        if read > most:
            break
    return int(max(size, read))


def _text_bytes(array: pa.Array) -> int:
    """Return the bytes of the texts in an array, each counted wherever it stands."""
    if isinstance(array, pa.DictionaryArray):
        lengths = pc.binary_length(array.dictionary).cast(pa.int64())
        return int(pc.sum(lengths.take(array.indices)).as_py() or 0)
    if isinstance(array, pa.StructArray):
        return sum(_text_bytes(field) for field in array.flatten())
    if isinstance(array, pa.MapArray):
        return _text_bytes(array.keys) + _text_bytes(array.items)
    if isinstance(array, pa.ListArray | pa.LargeListArray | pa.FixedSizeListArray):
        return _text_bytes(array.flatten())
    return int(array.nbytes)

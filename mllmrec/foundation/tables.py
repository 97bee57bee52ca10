"""Tables that somebody else may have written, and text for a spreadsheet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from mllmrec.errors import InputError, first_line
from mllmrec.foundation.storage import open_regular

MAX_UNPACKED_BYTES = 256 << 20  # a table may always unpack to so many bytes
MAX_UNPACKED_ROWS = 1_000_000  # and to so many rows
_BYTES_PER_BYTE, _ROWS_PER_BYTE = 200, 64  # beyond that, by the bytes of its file
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_formula(cell: str) -> str:
    """Return the cell, with an apostrophe before it where a spreadsheet would run it as a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def read_table(path: Path, columns: Mapping[str, Any]) -> pl.DataFrame:
    """Read parquet whose columns are known; its metadata is checked before anything is unpacked.

    Args:
        path: the file.
        columns: polars dtype of each column that must be there; others are kept as they are.

    Raises:
        InputError: the file is missing or damaged, would unpack to far more than its size, or lacks a column.
    """
    try:
        with open_regular(path):
            pass
        _check_unpacked(path, pq.read_metadata(path))
        arrow = pq.read_table(path)
        arrow.validate(full=True)
        table = pl.DataFrame(pl.from_arrow(arrow))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing") from error
    except (pa.ArrowException, ValueError, OSError, TypeError, OverflowError, pl.exceptions.PolarsError) as error:
        raise InputError(f"{path} is not a table that can be read: {first_line(error)}") from error
    for name, dtype in columns.items():
        if table.schema.get(name) != dtype:
            raise InputError(f"{path}: column {name!r} is {table.schema.get(name, 'missing')}; wanted {dtype}")
    return table


def _check_unpacked(path: Path, metadata: pq.FileMetaData) -> None:
    packed, rows = path.stat().st_size, metadata.num_rows
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > max(MAX_UNPACKED_BYTES, _BYTES_PER_BYTE * packed) or rows > max(
        MAX_UNPACKED_ROWS, _ROWS_PER_BYTE * packed
    ):
        raise ValueError(f"{packed:,} bytes would unpack to {unpacked:,} bytes in {rows:,} rows")

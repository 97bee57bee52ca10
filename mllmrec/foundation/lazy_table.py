"""Tables that are made, or read from their files, once they are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path

import polars as pl

from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.foundation.tables import read_table


class LazyTable:
    """A table whose rows are made once somebody looks at them; its file is written a slice at a time.

    Args:
        parts: returns the rows, a part after another; no part for a table without columns.
    """

    def __init__(self, parts: Callable[[], Iterable[pl.DataFrame]] = list) -> None:
        self._parts = parts
        self._rows: pl.DataFrame | None = None

    @staticmethod
    def of(table: pl.DataFrame) -> LazyTable:
        """Return a table that is in memory."""
        return LazyTable(lambda: [table])

    @staticmethod
    def in_file(path: Path) -> LazyTable:
        """Return the table of a parquet file, which is refused once it is read if it was replaced since this call.

        See `read_table` for what else is refused then.
        """
        file = path.absolute()
        return LazyTable(partial(_read, file, _version(file)))

    @property
    def rows(self) -> pl.DataFrame:
        """Return the whole table, which stays in memory until `release`."""
        rows = self._rows  # another thread may release them
        if rows is None:
            parts = list(self._parts())
            self._rows = rows = pl.concat(parts) if parts else pl.DataFrame()
        return rows

    def release(self) -> None:
        """Drop the rows that were looked at; they are made or read again."""
        self._rows = None

    def write(self, path: Path, *, notes: Mapping[str, str] | None = None) -> bool:
        """Write parquet as `storage.write_table` does, without ever holding the whole table.

        Args:
            path: the file.
            notes: key-value metadata of the file.

        Returns:
            Whether there is a file; a table without columns has none.
        """
        slices = _slices(self._parts() if self._rows is None else [self._rows])
        first = next(slices, None)
        if first is None or not first.width:
            return False
        storage.write_table(path, chain([first], slices), notes=notes)
        return True


def _version(file: Path) -> tuple[int, int, int] | None:
    """Return what tells one version of a file from another; None if there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _read(file: Path, version: tuple[int, int, int] | None) -> list[pl.DataFrame]:
    table = read_table(file, {})
    if _version(file) != version:
        raise InputError(f"{file} was replaced since it was opened, perhaps by another evaluation; load the run again")
    return [table]


def _slices(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Return the rows of parts, SLICE_ROWS at a time; of parts without rows, one slice."""
    rest: pl.DataFrame | None = None
    for part in parts:
        rest = part if rest is None else pl.concat([rest, part])
        while rest.height > storage.SLICE_ROWS:
            yield rest.head(storage.SLICE_ROWS)
            rest = rest.slice(storage.SLICE_ROWS)
    if rest is not None:
        yield rest

"""Keep rows that are being read on the disk: columns of numbers, and pieces of tables.

The files have no name, so nothing is left of them when the process ends, however it ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllmrec.foundation.storage import storage_errors


def _open(folder: Path | None) -> tuple[Path, IO[bytes]]:
    place = Path(tempfile.gettempdir()) if folder is None else folder
    with storage_errors("write temporary files in", place):
        return place, tempfile.TemporaryFile(dir=place)  # its owner closes it


def _close(writers: list[pq.ParquetWriter], file: IO[bytes]) -> None:
    with suppress(OSError):  # of a full disk, which is said where rows are written
        for writer in writers:
            writer.close()
        file.close()


class Column:
    """Keep the numbers of one column on the disk.

    Args:
        dtype: of the numbers.
        folder: where temporary files lie; None: the system's place for them.
    """

    def __init__(self, dtype: type[np.generic], folder: Path | None) -> None:
        self._dtype = np.dtype(dtype)
        self._folder, self._file = _open(folder)
        weakref.finalize(self, self._file.close)

    def append(self, numbers: NDArray[Any]) -> None:
        """Write numbers behind those that are there.

        Raises:
            StorageError: the disk is full.
        """
        with storage_errors("write temporary files in", self._folder):
            self._file.write(np.ascontiguousarray(numbers, self._dtype).data)

    def read(self) -> NDArray[Any]:
        """Return all numbers, in memory."""
        with storage_errors("read temporary files in", self._folder):
            self._file.flush()
            self._file.seek(0)
            return np.fromfile(self._file, self._dtype)


class Pieces:
    """Keep tables of one schema on the disk, and bring them back one by one.

    Args:
        folder: where temporary files lie; None: the system's place for them.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder, self._file = _open(folder)
        self._writers: list[pq.ParquetWriter] = []  # one, once the schema is known
        weakref.finalize(self, _close, self._writers, self._file)

    def append(self, piece: pl.DataFrame) -> None:
        """Write one table.

        Raises:
            StorageError: the disk is full.
        """
        arrow = piece.to_arrow()
        with storage_errors("write temporary files in", self._folder):
            if not self._writers:
                self._writers.append(pq.ParquetWriter(self._file, arrow.schema, compression="lz4"))
            self._writers[0].write_table(arrow, row_group_size=max(1, len(piece)))

    def read(self) -> Iterator[pl.DataFrame]:
        """Yield the tables in their order; no more can be written then."""
        if not self._writers:
            return
        with storage_errors("write temporary files in", self._folder):
            self._writers[0].close()
            file = pq.ParquetFile(self._file)
            for group in range(file.num_row_groups):
                yield pl.DataFrame(pl.from_arrow(file.read_row_group(group)))

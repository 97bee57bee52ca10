"""Turn cells of interactions into numbers, once the forms of all are known; rows that cannot be read are left out.

Rows are kept on the disk while they are read: columns of numbers, and pieces of tables. The files have no name, so
nothing is left of them when the process ends, however it ends.
"""

from __future__ import annotations

import tempfile
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllmrec.dataset.readers.formats import Reading
from mllmrec.dataset.readers.times import TimeForms
from mllmrec.dataset.readers.values import id_fault, read_ids, read_numbers, show, without_missing
from mllmrec.foundation.storage import storage_errors

NO_TIME = np.iinfo(np.int64).min  # sorts before every time
_FAULTS = ("user", "item", "rating", "timestamp")  # of several in a row the first is named


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


class TextCodes:
    """Number texts, each by its first appearance, over any number of columns."""

    def __init__(self) -> None:
        self._categories = pl.Categories.random()
        self._dtype = pl.Categorical(self._categories)
        self._anchor = pl.Series(dtype=self._dtype)  # polars forgets the texts with the last column of this type

    def encode(self, cells: pl.Series) -> pl.Series:
        """Return the numbers of texts, null for null."""
        return cells.cast(self._dtype).to_physical()

    def texts(self) -> pl.Series:
        """Return the texts by their numbers."""
        return self._categories.to_series()


@dataclass(frozen=True)
class Ids:
    """Hold the ids of one side.

    Attributes:
        cells: the texts of the files, each once.
        names: the ids, each once.
        places: int32, of each cell's id among `names`; -1 where the cell holds none.
    """

    cells: pl.Series
    names: pl.Series
    places: NDArray[np.int32]

    @staticmethod
    def of(cells: pl.Series, *, numbered: bool) -> Ids:
        """Read the ids of cells that differ."""
        ids = read_ids(cells, numbered=numbered)
        if ids is cells:
            return Ids(cells, cells, np.arange(len(cells), dtype=np.int32))
        names = ids.drop_nulls().unique(maintain_order=True)
        table = pl.DataFrame({"id": names}).with_row_index("place")
        places = pl.DataFrame({"id": ids}).join(table, on="id", how="left", maintain_order="left")["place"]
        return Ids(cells, names, _numbers(places))

    def find(self, codes: pl.Series) -> NDArray[np.int32]:
        """Return the places of cells that are given by their own places, null if there is no cell."""
        return np.append(self.places, np.int32(-1))[_numbers(codes)]


def _numbers(places: pl.Series) -> NDArray[np.int32]:
    """Return places, -1 for null."""
    return places.cast(pl.Int32).fill_null(-1).to_numpy()


@dataclass(frozen=True)
class Rows:
    """Hold the rows that could be read; see Interactions.

    Attributes:
        user, item: int32 [n], places among the ids that stand in a row.
        users, items: these ids.
        ratings, times, split: on the disk.
        counts: rows by the number of their file.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    users: pl.Series
    items: pl.Series
    ratings: Column
    times: Column
    split: Column
    counts: Counter[int]


def read_rows(
    pieces: Pieces,
    cells: Mapping[str, pl.Series],
    forms: TimeForms,
    reading: Reading,
    files: Sequence[str],
    numbered: bool,
) -> Rows:
    """Read all rows.

    Args:
        pieces: line, number of the file, places of user, item and split among `cells`, and text of rating and time.
        cells: the texts of each of these three, each once.
        forms: of all times.
        reading: the place of the rows that are left out, and of temporary files.
        files: names.
        numbered: ids must be numbers from 0.
    """
    ids = {role: Ids.of(cells[role], numbered=numbered) for role in ("user", "item")}
    places = {role: Column(np.int32, reading.scratch) for role in (*ids, "split")}
    ratings, times, counts = Column(np.float64, reading.scratch), Column(np.int64, reading.scratch), Counter[int]()
    for piece in filter(len, pieces.read()):
        found = {role: side.find(piece[role]) for role, side in ids.items()} | {"split": _numbers(piece["split"])}
        cells_of_ratings, read = without_missing(piece["rating"]), forms.read(piece["timestamp"])
        numbers = read_numbers(cells_of_ratings)
        faults = pl.DataFrame(
            {
                **{role: found[role] < 0 for role in ids},
                "rating": cells_of_ratings.is_not_null() & numbers.is_null(),
                "timestamp": read.unreadable,
            }
        )
        is_faulty = faults.select(pl.any_horizontal(pl.all())).to_series()
        if is_faulty.any():
            texts = piece.with_columns(cells[role].gather(piece[role]).alias(role) for role in ids)
            for file, line, reason in _reasons(texts.filter(is_faulty), faults.filter(is_faulty), numbered=numbered):
                reading.rejects.add(files[file], line, reason)
        kept = ~is_faulty.to_numpy()
        for role, column in places.items():
            column.append(found[role][kept])
        ratings.append(numbers.fill_null(np.nan).to_numpy()[kept])
        times.append(read.values.fill_null(NO_TIME).to_numpy()[kept])
        counts[piece["file"][0]] += int(kept.sum())
    user, users = _without_unused(places["user"].read(), ids["user"].names)
    item, items = _without_unused(places["item"].read(), ids["item"].names)
    return Rows(user, item, users, items, ratings, times, places["split"], counts)


def _without_unused(places: NDArray[np.int32], names: pl.Series) -> tuple[NDArray[np.int32], pl.Series]:
    """Leave out the names that no row has."""
    used = np.zeros(len(names), bool)
    used[places] = True
    if used.all():
        return places, names
    return (np.cumsum(used, dtype=np.int32) - 1)[places], names.filter(pl.Series(used))


def _reasons(rows: pl.DataFrame, faults: pl.DataFrame, *, numbered: bool) -> Iterator[tuple[int, int, str]]:
    """Yield number of the file, line and reason of rows that cannot be read."""
    for row, fault in zip(rows.iter_rows(named=True), faults.iter_rows(named=True), strict=True):
        role = next(role for role in _FAULTS if fault[role])
        yield row["file"], row["line"], _reason(role, row[role], numbered=numbered)


def _reason(role: str, cell: Any, *, numbered: bool) -> str:
    if role in ("user", "item"):
        return f"{role} {show(cell)} is no number from 0" if cell and numbered else id_fault(cell, role)
    kind = "number, such as 4.5" if role == "rating" else "time, such as 1600000000 or 2020-09-13 12:26:40"
    return f"{role} is no {kind}: {show(cell)}"

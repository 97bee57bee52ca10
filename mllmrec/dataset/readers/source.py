"""Define the result of reading: raw tables with string ids, and the rows that were left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.errors import InputError

if TYPE_CHECKING:
    from mllmrec.dataset.readers.interactions import Interactions

TableName = Literal["interactions", "items"]
TimeUnit = Literal["s", "ms", "us", "ns"]

INTERACTIONS: dict[str, pl.DataType] = {
    "user": pl.String(),
    "item": pl.String(),
    "rating": pl.Float64(),  # null if the source has none
    "timestamp": pl.Int64(),  # since 1970 in Source.time_unit, or a number that orders rows; null if unknown
    "split": pl.String(),  # as the source names it; null if it gives no split
}
ITEMS: dict[str, pl.DataType] = {
    "item": pl.String(),
    "title": pl.String(),
    "brand": pl.String(),
    "categories": pl.List(pl.String()),
    "description": pl.String(),
    "price": pl.Float64(),
    "images": pl.List(pl.String()),  # local files, absolute
    "image_urls": pl.List(pl.String()),  # not fetched
}
LISTED_REJECTS = 10_000
_HOPELESS_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Rejected:
    """Name a row that was left out, and the reason."""

    where: str  # file:line
    reason: str


class Rejects:
    """Collect the rows that are left out of each file: count all, list the first.

    Args:
        max_share: share of a file's rows that may be left out, in [0, 1].

    Attributes:
        listed: the first LISTED_REJECTS of them.
        counts: number by file.
        first: the first of each file.
    """

    def __init__(self, max_share: float = 1.0) -> None:
        self.listed: list[Rejected] = []
        self.counts: Counter[str] = Counter()
        self.first: dict[str, Rejected] = {}
        self._max_share = max_share

    def append(self, row: Rejected) -> None:
        """Count a row and list it.

        Raises:
            InputError: so many rows of the file cannot be read that going on is of no use.
        """
        file, _, line = row.where.rpartition(":")
        self.counts[file] += 1
        self.first.setdefault(file, row)
        if len(self.listed) < LISTED_REJECTS:
            self.listed.append(row)
        elif self._max_share < _HOPELESS_SHARE and self.counts[file] > _HOPELESS_SHARE * int(line):
            self.check(file, int(line), of="the first ")

    def add(self, file: str, line: int, reason: str) -> None:
        """Count and list the row of a line.

        Args:
            file: name of the file.
            line: of the file, from 1.
            reason: why it is left out.
        """
        self.append(Rejected(f"{file}:{line}", reason))

    def notes(self, *, named: bool = True) -> Iterator[str]:
        """Yield a line for each file with rows left out: their number, and the first; `named` says the file as well."""
        for file, count in self.counts.items():
            first, name = self.first[file], f" of {file}" if named else ""
            yield f"{count:,} rows{name} were left out, the first at {first.where}: {first.reason}"

    def check(self, file: str, rows: int, of: str = "") -> None:
        """Refuse a file with too many rows left out.

        Args:
            file: name of the file.
            rows: its rows, those left out included.
            of: words before the number of rows.

        Raises:
            InputError: more than the permitted share was left out.
        """
        count = self.counts[file]
        if count > self._max_share * rows:
            first = self.first[file]
            without = ", leave times out with --column timestamp=" if first.reason.startswith("timestamp") else ""
            raise InputError(
                f"{count:,} of {of}{rows:,} rows of {file} cannot be read, the first at {first.where}: {first.reason}; "
                f"correct them{without}, or permit more with --max-rejected"
            )


@dataclass(frozen=True, slots=True)
class FileRead:
    """Describe a file that was read.

    Attributes:
        name: path inside the shop's folder.
        table: "interactions" or "items".
        rows: data rows, those left out included.
        rejected: rows left out.
        columns: the file's column for each role.
    """

    name: str
    table: TableName
    rows: int
    rejected: int
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Source:
    """Hold a shop as its files describe it: two tables in file order.

    Attributes:
        name: short name of the data, from its folder.
        kind: "tables", "amazon" or "mmrec".
        interactions: rows in file order, form and unit of their times.
        items: columns ITEMS, one row per item, in file order; missing text is null.
        rejects: rows left out.
        files: the files that were read.
        unread: names of the other tables in the folder.
        features: item features that came with the data, float32 [rows of items, d] each.
        warnings: one line each, for the person who runs prepare.
    """

    name: str
    kind: str
    interactions: Interactions
    items: pl.DataFrame
    rejects: Rejects
    files: tuple[FileRead, ...]
    unread: tuple[str, ...] = ()
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

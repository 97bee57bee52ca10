"""What every reader hands over: raw tables with string ids, nothing filtered yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

INTERACTIONS: dict[str, pl.DataType] = {
    "user": pl.String(),
    "item": pl.String(),
    "rating": pl.Float64(),  # null where the source has none
    "timestamp": pl.Int64(),  # unix seconds, or any integer that orders a user's rows; null where unknown
    "split": pl.String(),  # as the source names it; null where it gives no split
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


@dataclass(frozen=True, slots=True)
class Rejected:
    """One row that was left out, and why."""

    where: str  # file:line
    reason: str


@dataclass(frozen=True, slots=True)
class Source:
    """A shop as it came: two tables in file order, and what had to be left out of them.

    Attributes:
        name: short name of the data, from its folder.
        kind: which reader read it: "tables", "amazon" or "mmrec".
        interactions: columns INTERACTIONS, rows in file order.
        items: columns ITEMS, one row an item, in file order; missing text is null.
        features: item features that came with the data, float32 [rows of items, d] each.
        rejected: rows left out by the reader.
        rows_read: data rows seen, rejected ones included.
        warnings: one line each, for the person who runs prepare.
    """

    name: str
    kind: str
    interactions: pl.DataFrame
    items: pl.DataFrame
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    rejected: tuple[Rejected, ...] = ()
    rows_read: int = 0
    warnings: tuple[str, ...] = ()

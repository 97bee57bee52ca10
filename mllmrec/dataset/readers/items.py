"""Read the item table of a shop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.dataset.readers import text
from mllmrec.dataset.readers.columns import TableColumns
from mllmrec.dataset.readers.formats import Reading, read_objects
from mllmrec.dataset.readers.pictures import Pictures
from mllmrec.dataset.readers.source import ITEMS, FileRead
from mllmrec.dataset.readers.values import MISSING, id_fault, parse_price, read_id

_PIECE_ROWS = 50_000  # that are held as objects


@dataclass(frozen=True)
class Items:
    """Hold the item table of a shop.

    Attributes:
        table: columns ITEMS, in file order.
        file: what was read.
        columns: the columns of the file.
        warnings: one line each.
    """

    table: pl.DataFrame
    file: FileRead
    columns: TableColumns
    warnings: tuple[str, ...]


def read_items(path: Path, folder: Path, assignments: Mapping[str, str], reading: Reading) -> Items:
    """Read an item table; of the rows of one id the first is kept.

    Args:
        path: the file, of any format.
        folder: the shop's folder, which pictures may lie in.
        assignments: columns that the user named, of `parse_columns`.
        reading: limits, and the place of the rows that are left out.

    Raises:
        InputError: the file cannot be read, has no column of ids, or too many of its rows are left out.
    """
    columns, pictures = TableColumns("items", f"{path.name}:1", assignments), Pictures(folder)
    seen: set[str] = set()
    rows: list[dict[str, Any]] = []
    tables, count = [pl.DataFrame(schema=ITEMS)], 0
    for line, row in read_objects(path, reading):
        roles = columns.roles(tuple(row))
        cell = next((_present(row[name]) for name in roles["item"]), None)
        item = read_id(cell)
        if item is None:
            reading.rejects.add(path.name, line, id_fault(cell, "item"))
            continue
        count += 1
        if item in seen:
            continue
        seen.add(item)
        rows.append(_item(item, row, roles, pictures))
        if len(rows) == _PIECE_ROWS:  # a table takes a fraction of the memory of Python's objects
            tables.append(pl.DataFrame(rows, schema=ITEMS))
            rows.clear()
    rejected = reading.rejects.counts[path.name]
    if columns.header:
        columns.check()
    reading.rejects.check(path.name, count + rejected)
    repeats = [f"{count - len(seen)} item rows repeat an id; the first of each is kept"] if count > len(seen) else []
    empty = [] if count else [f"{path.name} holds no items"]
    return Items(
        table=pl.concat([*tables, pl.DataFrame(rows, schema=ITEMS)], rechunk=True),
        file=FileRead(path.name, "items", count + rejected, rejected, columns.used_names()),
        columns=columns,
        warnings=(*repeats, *empty, *pictures.warnings()),
    )


def _item(
    item: str, row: Mapping[str, Any], roles: Mapping[str, tuple[str, ...]], pictures: Pictures
) -> dict[str, Any]:
    def cell(role: str) -> Any:
        return next((value for name in roles[role] if (value := _present(row[name])) is not None), None)

    images, addresses = pictures.find([row[name] for name in roles["images"]], item)
    description, features = cell("description"), cell("features")
    if features is not None:
        texts = (value if isinstance(value, list) else [value] for value in (description, features))
        description = [part for values in texts for part in values]
    return {
        "item": item,
        "title": text.clean(cell("title"), text.TITLE_LENGTH),
        "brand": text.clean(cell("brand"), text.TITLE_LENGTH),
        "categories": text.parts(cell("categories")),
        "description": text.clean(description, text.DESCRIPTION_LENGTH),
        "price": parse_price(cell("price")),
        "images": images,
        "image_urls": addresses,
    }


def _present(value: Any) -> Any:
    """Return a cell: bytes as text; None if it is empty or NaN, or its text says so."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str):
        return value if value.strip() and value.strip() not in MISSING else None
    return None if (isinstance(value, float) and math.isnan(value)) or value == [] else value

"""Write one shop in any form that the reader takes: formats, packing, encodings, names of columns, units, quoting."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DIGITS = {"s": 0, "ms": 3, "us": 6, "ns": 9}
USERS = ("user", "user_id", "userID", "customer", "Customer ID")
ITEMS = ("item", "item_id", "asin", "product_id", "sku")
TIMES = ("timestamp", "time", "unixReviewTime", "ts")


@dataclass(frozen=True)
class Purchase:
    """A row of a shop: time in milliseconds since 1970."""

    user: str
    item: str
    rating: float | None
    time: int | None


@dataclass(frozen=True)
class Form:
    """A way to write a shop.

    Attributes:
        kind: csv, tsv, jsonl, ndjson, json or parquet.
        packed: gzipped; of text only.
        encoding: of text only.
        end: of a line; of csv and tsv.
        quoting: of csv and tsv: csv.QUOTE_MINIMAL or csv.QUOTE_ALL.
        user, item, time: names of the columns.
        clock: "s.f" (seconds with a fraction), "ms", "us", "ns", "iso", "digits" or "datetime".
        integers: ids are numbers where the format has them.
        shout: the file's name is in capitals.
    """

    kind: str
    packed: bool
    encoding: str
    end: str
    quoting: int
    user: str
    item: str
    time: str
    clock: str
    integers: bool
    shout: bool


def write_shop(folder: Path, purchases: Sequence[Purchase], titles: Mapping[str, str], form: Form) -> None:
    """Write interactions and items in one form."""
    rows = [
        {
            form.user: _id(row.user, form),
            form.item: _id(row.item, form),
            "rating": row.rating,
            form.time: _time(row.time, form),
        }
        for row in purchases
    ]
    write_table(folder, "interactions", rows, form)
    write_table(folder, "items", [{form.item: _id(item, form), "title": title} for item, title in titles.items()], form)


def write_table(folder: Path, stem: str, rows: Sequence[Mapping[str, Any]], form: Form) -> None:
    """Write one table in one form."""
    name = f"{stem}.{form.kind}{'.gz' if form.packed and form.kind != 'parquet' else ''}"
    path = folder / (name.upper() if form.shout else name)
    if form.kind == "parquet":
        columns = {key: pl.Series([row[key] for row in rows], strict=False) for key in rows[0]}
        pl.DataFrame(columns).write_parquet(path)
        return
    data = _text(rows, form).encode(form.encoding)
    path.write_bytes(gzip.compress(data) if form.packed else data)


def _text(rows: Sequence[Mapping[str, Any]], form: Form) -> str:
    if form.kind == "json":
        return json.dumps(rows, indent=1 if form.shout else None, ensure_ascii=form.packed)
    if form.kind in ("jsonl", "ndjson"):
        return "".join(json.dumps(row, ensure_ascii=form.packed) + "\n" for row in rows)
    text = io.StringIO()
    delimiter = "\t" if form.kind == "tsv" else ","
    writer = csv.writer(text, delimiter=delimiter, quoting=form.quoting, lineterminator=form.end)  # type: ignore[arg-type]
    writer.writerow(rows[0])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()


def _id(name: str, form: Form) -> str | int:
    plain = name.isascii() and name.isdigit() and str(int(name)) == name
    return int(name) if form.integers and plain and form.kind != "parquet" else name


def _time(moment: int | None, form: Form) -> Any:
    if moment is None:
        return None
    date = EPOCH + timedelta(milliseconds=moment)
    if form.clock == "datetime":
        return date.replace(tzinfo=None) if form.kind == "parquet" else str(date)
    if form.clock == "iso":
        return date.isoformat(timespec="milliseconds")
    if form.clock == "digits":
        return date.strftime("%Y%m%d%H%M%S") + f"{moment % 1000:03d}"
    if form.clock == "s.f":
        return f"{moment // 1000}.{moment % 1000:03d}"
    number = moment * 10 ** (DIGITS[form.clock] - 3)
    return number if form.integers else str(number)

"""Reader of plain tables: interactions and items in any common form, pictures in a folder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.dataset.readers import columns as roles
from mllmrec.dataset.readers import text
from mllmrec.dataset.readers.reading import read_lines, read_table, suffix
from mllmrec.dataset.readers.source import INTERACTIONS, ITEMS, Rejected, Source
from mllmrec.errors import InputError

INTERACTION_STEMS = ("interactions", "ratings", "events", "orders")
ITEM_STEMS = ("items", "products", "catalogue", "catalog", "meta")
_TABLES = ("parquet", "csv", "tsv")
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")


def find_file(folder: Path, stems: Sequence[str], kinds: Sequence[str]) -> Path | None:
    """The first file of the folder with one of the names and kinds."""
    for stem in stems:
        for path in sorted(folder.glob(f"{stem}.*")):
            if suffix(path) in kinds:
                return path
    return None


def read_tables(folder: Path, chosen: Mapping[str, str], split_column: str | None) -> Source:
    """A shop's folder: interactions.{parquet,csv,tsv}, items.{jsonl,parquet,csv,tsv}, images/.

    Raises:
        InputError: there are no interactions, or a column is missing.
    """
    path = find_file(folder, INTERACTION_STEMS, _TABLES)
    if path is None:
        raise InputError(f"{folder} holds no interactions; wanted interactions.parquet, .csv or .tsv (or .gz)")
    rejected: list[Rejected] = []
    interactions = read_interactions(path, chosen, split_column, rejected)
    listed = find_file(folder, ITEM_STEMS, (*_TABLES, "jsonl"))
    items = _Items(folder, chosen)
    if listed:
        items.read(listed, rejected)
    return Source(
        name=folder.resolve().name,
        kind="tables",
        interactions=interactions,
        items=items.table(),
        rejected=tuple(rejected),
        rows_read=len(interactions) + len(items.rows) + len(rejected),
        warnings=tuple(items.warnings()),
    )


def read_interactions(
    path: Path, chosen: Mapping[str, str], split_column: str | None, rejected: list[Rejected]
) -> pl.DataFrame:
    """One table of interactions; rows without user or item, or with an unreadable number, are rejected."""
    raw = read_table(path)
    names, where = raw.columns, f"{path.name}:1"
    found = {role: roles.require(role, names, chosen, where) for role in ("user", "item")}
    optional = {role: roles.find(role, names, chosen) for role in ("rating", "timestamp", "split")}
    if split_column:
        optional["split"] = roles.find("split", names, {"split": split_column})
    columns = [_as_id(raw, found[role], role, path) for role in ("user", "item")]
    columns += [
        _as_number(raw, optional["rating"], "rating", pl.Float64()),
        _as_number(raw, optional["timestamp"], "timestamp", pl.Int64()),
        pl.Series("split", raw[optional["split"]].cast(pl.String)) if optional["split"] else _nulls("split", len(raw)),
    ]
    table = pl.DataFrame(columns, schema=INTERACTIONS).with_row_index("line", offset=2)
    bad = _unreadable(raw, table, optional)
    for line, reason in bad.iter_rows():
        rejected.append(Rejected(f"{path.name}:{line}", reason))
    return table.filter(~pl.col("line").is_in(bad["line"].implode())).drop("line")


def _unreadable(raw: pl.DataFrame, table: pl.DataFrame, optional: Mapping[str, str | None]) -> pl.DataFrame:
    """(line, reason) of the rows that cannot be used."""
    reasons = [pl.when(pl.col(role).is_null()).then(pl.lit(f"no {role}")) for role in ("user", "item")]
    for role in ("rating", "timestamp"):
        name = optional[role]
        if name:
            table = table.with_columns(raw[name].is_not_null().alias(f"has_{role}"))
            unread = pl.col(f"has_{role}") & pl.col(role).is_null()
            reasons.append(pl.when(unread).then(pl.lit(f"{role} is no number")))
    return table.select("line", reason=pl.coalesce(reasons)).drop_nulls()


def _as_id(raw: pl.DataFrame, name: str, role: str, path: Path) -> pl.Series:
    column = raw[name]
    if column.dtype.is_float() or column.dtype == pl.Boolean:
        raise InputError(
            f"{path.name}: the {role} column {name!r} is {column.dtype}: ids above 2^53 have lost digits; "
            "save them as text or integers"
        )
    return column.cast(pl.String).replace("", None).rename(role)


def _as_number(raw: pl.DataFrame, name: str | None, role: str, dtype: pl.DataType) -> pl.Series:
    if name is None:
        return _nulls(role, len(raw))
    column = raw[name]
    if column.dtype.is_temporal():
        column = column.dt.epoch("s")
    if column.dtype == pl.String:
        column = column.str.strip_chars().cast(pl.Float64 if dtype == pl.Float64 else pl.Int64, strict=False)
    finite = column.cast(pl.Float64, strict=False).is_finite()
    return column.cast(dtype, strict=False).set(~finite.fill_null(value=False), None).rename(role)


def _nulls(name: str, n: int) -> pl.Series:
    return pl.Series(name, [None] * n)


@dataclass
class _Items:
    """Items as they come in, in file order; the first of a repeated id stays."""

    folder: Path
    chosen: Mapping[str, str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    repeated: int = 0
    outside: int = 0

    def read(self, path: Path, rejected: list[Rejected]) -> None:
        seen: set[str] = set()
        # Rows of JSON lines need not have the same keys.
        known: dict[tuple[str, ...], dict[str, str | None]] = {}
        for number, row in _objects(path, rejected):
            keys = tuple(row)
            names = known.get(keys) or known.setdefault(keys, self._names(list(keys), f"{path.name}:{number}"))
            name = text_id(row, names["item"])
            if name is None:
                rejected.append(Rejected(f"{path.name}:{number}", "no usable item id"))
            elif name in seen:
                self.repeated += 1
            else:
                seen.add(name)
                self.rows.append(self._item(name, row, names))

    def _names(self, names: list[str], where: str) -> dict[str, str | None]:
        found: dict[str, str | None] = {"item": roles.require("item", names, self.chosen, where)}
        for role in ("title", "brand", "categories", "description", "price", "images"):
            found[role] = roles.find(role, names, self.chosen)
        return found

    def _item(self, name: str, row: Mapping[str, Any], names: Mapping[str, str | None]) -> dict[str, Any]:
        def value(role: str) -> Any:
            return row.get(names[role] or "")

        images, urls = self._pictures(name, value("images"))
        return {
            "item": name,
            "title": text.clean(value("title"), text.TITLE_LENGTH),
            "brand": text.clean(value("brand"), text.TITLE_LENGTH),
            "categories": text.parts(value("categories")),
            "description": text.clean(value("description"), text.DESCRIPTION_LENGTH),
            "price": text.price(value("price")),
            "images": images,
            "image_urls": urls,
        }

    def _pictures(self, name: str, value: Any) -> tuple[list[str], list[str]]:
        named = [v for v in ([value] if isinstance(value, str) else value or []) if isinstance(v, str) and v]
        urls = [v for v in named if v.lower().startswith(("http://", "https://"))]
        files = [path for v in named if v not in urls and (path := self._inside(v))]
        if not named and (path := self._by_id(name)):
            files = [path]
        return [str(path) for path in files], urls

    def _inside(self, name: str) -> Path | None:
        """A picture's path, where it stays within the source folder, links followed."""
        if "\x00" not in name and len(name) < 1000:
            root, path = self.folder.resolve(), (self.folder / name).resolve()
            if path.is_relative_to(root) and path != root:
                return path
        self.outside += 1
        return None

    def _by_id(self, name: str) -> Path | None:
        if name in (".", "..") or "/" in name or "\\" in name or len(name) > 200:
            return None  # an id is never a path
        candidates = (self.folder / "images" / f"{name}{ending}" for ending in _PICTURES)
        return next((path.resolve() for path in candidates if path.is_file() and not path.is_symlink()), None)

    def table(self) -> pl.DataFrame:
        return pl.DataFrame(self.rows, schema=ITEMS)

    def warnings(self) -> Iterable[str]:
        if self.repeated:
            yield f"{self.repeated} item rows repeat an id; the first of each is kept"
        if self.outside:
            yield f"{self.outside} image paths lead out of the source folder and are ignored"


def text_id(row: Mapping[str, Any], name: str | None) -> str | None:
    """The id in a row, as a string."""
    return text.identifier(row.get(name or ""))


def _objects(path: Path, rejected: list[Rejected]) -> Iterable[tuple[int, Mapping[str, Any]]]:
    if suffix(path) == "jsonl":
        return read_lines(path, rejected)
    return enumerate(read_table(path).iter_rows(named=True), start=2)

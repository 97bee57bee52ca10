"""Read a shop's folder, whatever its form: the files are chosen, read by one reader, and joined."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from mllmrec.dataset.readers import mmrec
from mllmrec.dataset.readers.columns import check_assignments
from mllmrec.dataset.readers.files import choose_files
from mllmrec.dataset.readers.formats import Reading
from mllmrec.dataset.readers.interactions import Interactions, read_interactions
from mllmrec.dataset.readers.items import Items, read_items
from mllmrec.dataset.readers.source import ITEMS, LISTED_REJECTS, Source
from mllmrec.errors import InputError

_FEW = 0.5  # share of the interacted items that an item table should have at least
_SPELLINGS: Mapping[str, Callable[[pl.Series], pl.Series]] = {
    "without zeros in front": lambda ids: ids.str.strip_chars_start("0"),
    "in small letters": lambda ids: ids.str.to_lowercase(),
    "without .0 at the end": lambda ids: ids.str.replace(r"\.0+$", ""),
    "without blanks and punctuation": lambda ids: ids.str.replace_all(r"[^\pL\pN]", ""),
}


def read_shop(
    folder: Path,
    assignments: Mapping[str, str],
    reading: Reading,
    *,
    form: str = "auto",
    interactions: str = "",
    items: str = "",
    split_column: str | None = None,
) -> Source:
    """Read the interactions and items of a folder.

    Args:
        folder: the shop's folder.
        assignments: columns that the user named, of `parse_columns`.
        reading: limits, and the place of the rows that are left out.
        form: "tables", "amazon" or "mmrec"; "auto": by the files.
        interactions: pattern of the files of interactions; "": by their usual names.
        items: name of the item table; "": by its usual names.
        split_column: column of a given split.

    Raises:
        InputError: the files cannot be chosen or read, or too many rows of one are left out.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; name the folder that holds the shop's files")
    if split_column:
        assignments = {**assignments, "interactions.split": split_column}
    files = choose_files(folder, form, interactions, items)
    numbered = files.kind == "mmrec" and mmrec.is_numbered(folder, files.interactions[0].path)
    rows = read_interactions(files.interactions, assignments, reading, numbered=numbered)
    catalog = read_items(files.items, folder, assignments, reading) if files.items else None
    check_assignments(assignments, [*rows.columns, *([catalog.columns] if catalog else [])])
    if not len(rows.rows.user):
        raise InputError(f"no interactions are left: {', '.join(file.name for file in rows.files)} has none")
    names = catalog.table if catalog else pl.DataFrame(schema=ITEMS)
    features, warnings = mmrec.read_features(folder) if numbered else ({}, [])
    if numbered:
        named, ids = mmrec.name_ids(folder, rows.rows, features)
        rows = replace(rows, rows=named)
        names = (
            pl.DataFrame({"item": ids}).join(names, on="item", how="left", maintain_order="left").select(ITEMS.keys())
        )
    warnings += [
        *_time_warnings(rows),
        *(_item_warnings(rows.rows.items, catalog, files.unread) if catalog or not numbered else ()),
    ]
    return Source(
        name=files.name.encode("utf-8", "replace").decode(),
        kind=files.kind,
        interactions=rows,
        items=names,
        rejects=reading.rejects,
        files=(*rows.files, *([catalog.file] if catalog else [])),
        unread=files.unread,
        features=features,
        warnings=(*warnings, *_reject_warnings(reading)),
    )


def _time_warnings(rows: Interactions) -> Iterator[str]:
    if "," in rows.time_form:
        yield f"the timestamps have several forms: {rows.time_form}; each was read as its size tells"


def _item_warnings(seen: pl.Series, catalog: Items | None, unread: Sequence[str]) -> Iterator[str]:
    """Yield what was counted while items were read, and whether the interacted items stand in their table."""
    if catalog is None:
        other = f"; is it one of {', '.join(unread[:4])}? Name it with --items {unread[0]}" if unread else ""
        yield f"there is no item table (items.jsonl, .csv, ...): items have neither text nor pictures{other}"
        return
    yield from catalog.warnings
    listed = catalog.table["item"]
    missing = seen.filter(~seen.is_in(listed.implode()))
    if not len(listed) or len(missing) <= (1 - _FEW) * len(seen):
        return
    some = " and ".join(repr(name) for name in missing[:2])
    others = " and ".join(repr(name) for name in listed[:2])
    alike = ((hint, seen.filter(change(seen).is_in(change(listed).implode()))) for hint, change in _SPELLINGS.items())
    spelling, matches = max(alike, key=lambda pair: len(pair[1]))
    hint = f"; {len(matches):,} would be, {spelling}" if len(matches) > len(seen) - len(missing) else ""
    yield (
        f"{len(seen) - len(missing):,} of {len(seen):,} interacted items are in {catalog.file.name}: the interactions "
        f"have {some}, the table has {others}{hint}"
    )


def _reject_warnings(reading: Reading) -> Iterator[str]:
    yield from reading.rejects.notes()
    if (total := reading.rejects.counts.total()) > LISTED_REJECTS:
        yield f"rejected.jsonl lists the first {LISTED_REJECTS:,} of {total:,} rows"

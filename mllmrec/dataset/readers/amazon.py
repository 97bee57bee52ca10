"""Reader of the Amazon review dumps of 2014, 2018 and 2023, streamed line by line.

| year | interactions | items |
|---|---|---|
| 2014 | reviews_X.json.gz, or ratings_X.csv without header: user, item, rating, time | meta: Python literals |
| 2018 | X.json.gz, or X.csv without header: item, user, rating, time | meta: JSON |
| 2023 | X.jsonl.gz, times in milliseconds | meta: JSON |

A Python literal is read by ast.literal_eval, below a limit of size and nesting; it is never evaluated.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from mllmrec.dataset.readers import text
from mllmrec.dataset.readers.reading import lines, open_text, read_table, suffix
from mllmrec.dataset.readers.source import INTERACTIONS, ITEMS, Rejected, Source
from mllmrec.errors import InputError
from mllmrec.foundation.progress import Progress, silent

_LITERAL_BYTES = 1 << 20
_LITERAL_DEPTH = 32
_TOLD = 20_000  # lines between two words of progress
_ASIN = 10  # characters; reviewer ids are longer
_REVIEWER = ("reviewerID", "user_id")
_PRODUCT = ("parent_asin", "asin")


def looks_like_amazon(folder: Path) -> bool:
    """Whether the folder holds a review dump."""
    return _interactions_file(folder) is not None


def read_amazon(folder: Path, progress: Progress = silent) -> Source:
    """A folder with one dump of reviews or ratings, and its meta file where there is one.

    Raises:
        InputError: there is no dump.
    """
    path = _interactions_file(folder)
    if path is None:
        raise InputError(f"{folder} holds no Amazon dump; wanted reviews_X.json.gz, X.jsonl.gz or ratings_X.csv")
    rejected: list[Rejected] = []
    interactions = _ratings(path) if suffix(path) == "csv" else _reviews(path, rejected, progress)
    meta = next((file for file in sorted(folder.glob("meta*")) if suffix(file) in ("json", "jsonl")), None)
    items = list(_items(meta, rejected, progress)) if meta else []
    unique = list({row["item"]: row for row in reversed(items)}.values())[::-1]
    return Source(
        name=path.name.split(".")[0].removeprefix("reviews_").removeprefix("ratings_"),
        kind="amazon",
        interactions=interactions,
        items=pl.DataFrame(unique, schema=ITEMS),
        rejected=tuple(rejected),
        rows_read=len(interactions) + len(items) + len(rejected),
    )


def _interactions_file(folder: Path) -> Path | None:
    files = [file for file in sorted(folder.iterdir()) if file.is_file() and not file.name.startswith("meta")]
    for kinds in (("json", "jsonl"), ("csv",)):
        for file in files:
            if suffix(file) in kinds and _begins_like_a_dump(file, kinds):
                return file
    return None


def _begins_like_a_dump(file: Path, kinds: tuple[str, ...]) -> bool:
    try:
        with open_text(file) as stream:
            first = stream.readline(1 << 16).decode("utf-8", "replace")
    except (OSError, EOFError):
        return False
    if kinds == ("csv",):
        fields = first.strip().split(",")
        return len(fields) == 4 and (_header(fields) or any(len(field) == _ASIN for field in fields[:2]))
    return any(f'"{name}"' in first for name in _REVIEWER)


def _header(fields: list[str]) -> bool:
    return "user_id" in fields and "parent_asin" in fields


def _ratings(path: Path) -> pl.DataFrame:
    """A ratings-only file; without a header, the column of 10-character ids is the item."""
    with open_text(path) as stream:
        first = stream.readline(1 << 16).decode("utf-8", "replace").strip().split(",")
    if _header(first):
        raw = read_table(path).select("user_id", "parent_asin", "rating", "timestamp")
    else:
        raw = pl.read_csv(path, has_header=False, infer_schema=False)
        if _is_asin(raw[raw.columns[0]]) and not _is_asin(raw[raw.columns[1]]):
            raw = raw.select(raw.columns[1], raw.columns[0], *raw.columns[2:])
    renamed = raw.rename(dict(zip(raw.columns, ("user", "item", "rating", "timestamp"), strict=True)))
    return renamed.select(
        "user",
        "item",
        pl.col("rating").cast(pl.Float64, strict=False),
        pl.col("timestamp").cast(pl.Int64, strict=False),
        split=pl.lit(None, pl.String),
    )


def _is_asin(ids: pl.Series) -> bool:
    lengths = ids.head(1000).str.len_chars()
    return bool((lengths == _ASIN).all())


def _reviews(path: Path, rejected: list[Rejected], progress: Progress) -> pl.DataFrame:
    # Columns, not rows: a dump of ten million reviews must not be held as objects.
    users: list[str] = []
    items: list[str] = []
    ratings: list[float | None] = []
    times: list[int | None] = []
    for number, row in _objects(path, rejected, progress):
        user, item = (_first_id(row, names) for names in (_REVIEWER, _PRODUCT))
        if user is None or item is None:
            rejected.append(Rejected(f"{path.name}:{number}", f"no {'user' if user is None else 'item'}"))
            continue
        users.append(user)
        items.append(item)
        ratings.append(_number(row.get("overall", row.get("rating"))))
        time = _number(row.get("unixReviewTime", row.get("timestamp")))
        times.append(None if time is None else int(time))
    columns = {
        "user": users,
        "item": items,
        "rating": ratings,
        "timestamp": times,
        "split": [None] * len(users),
    }
    return pl.DataFrame(columns, schema=INTERACTIONS)


def _first_id(row: dict[str, Any], names: tuple[str, ...]) -> str | None:
    return next((found for name in names if (found := text.identifier(row.get(name)))), None)


def _number(value: Any) -> float | None:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18:
        return float(value)
    return None


def _items(path: Path, rejected: list[Rejected], progress: Progress) -> Iterator[dict[str, Any]]:
    for number, row in _objects(path, rejected, progress):
        item = _first_id(row, _PRODUCT)
        if item is None:
            rejected.append(Rejected(f"{path.name}:{number}", "no item"))
            continue
        told = [part for part in (row.get("description"), row.get("features", row.get("feature"))) if part]
        words = " ".join(" ".join(map(str, part)) if isinstance(part, list) else str(part) for part in told)
        yield {
            "item": item,
            "title": text.clean(row.get("title"), text.TITLE_LENGTH),
            "brand": text.clean(row.get("brand") or row.get("store"), text.TITLE_LENGTH),
            "categories": text.parts(row.get("categories") or row.get("category") or row.get("main_category")),
            "description": text.clean(words, text.DESCRIPTION_LENGTH),
            "price": text.price(row.get("price")),
            "images": [],
            "image_urls": list(_urls(row)),
        }


def _urls(row: dict[str, Any]) -> Iterator[str]:
    named = row.get("imageURLHighRes") or row.get("imageURL") or row.get("imUrl") or row.get("images") or []
    for entry in [named] if isinstance(named, str) else named if isinstance(named, list) else []:
        sizes = entry if isinstance(entry, dict) else {}
        value = sizes.get("hi_res") or sizes.get("large") or sizes.get("thumb") if sizes else entry
        if isinstance(value, str) and value.startswith(("http://", "https://")):
            yield value


def _objects(path: Path, rejected: list[Rejected], progress: Progress) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in lines(path, rejected):
        if number % _TOLD == 0:
            progress(f"read {path.name}", number, None)
        try:
            value = parse_object(line)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
            reason = str(error)[:100] or type(error).__name__
            rejected.append(Rejected(f"{path.name}:{number}", f"neither JSON nor a Python literal: {reason}"))
            continue
        yield number, value


def parse_object(line: bytes) -> dict[str, Any]:
    """A JSON object, or a Python dict literal as in the 2014 meta files.

    Raises:
        ValueError, SyntaxError, RecursionError, MemoryError: it is neither, or is too large or deep to try.
    """
    try:
        value = json.loads(line)
    except json.JSONDecodeError:
        value = ast.literal_eval(_tame(line))
    if not isinstance(value, dict):
        raise ValueError(f"wanted an object, got {type(value).__name__}")
    return value


def _tame(line: bytes) -> str:
    if len(line) > _LITERAL_BYTES:
        raise ValueError(f"a literal of over {_LITERAL_BYTES >> 20} MiB")
    literal = line.decode("utf-8").strip()
    depth = deepest = 0
    for character in literal:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > _LITERAL_DEPTH:
        raise ValueError(f"a literal nested {deepest} deep")
    return literal

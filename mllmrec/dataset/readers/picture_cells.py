"""Take a table's cell apart into the pictures that it names, each with its candidates."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mllmrec.dataset.readers.values import unpack_cell

FILE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".jpe", ".jfif")
PICTURES_PER_ITEM = 100
_SIZES = ("hi_res", "hires", "large", "full", "original", "medium", "small", "thumb", "thumbnail")  # best first
_FIELDS = (*_SIZES, "url", "src", "href", "link", "path", "file", "filename", "file_name", "image", "images")
_EMPTY_WORDS = frozenset({"", "nan", "none", "null", "n/a", "na", "<na>", "-", "[]", "{}"})
ADDRESS = re.compile(r"(?:https?:)?//[^/\s]", re.IGNORECASE)
# A mark may be part of an address or of a file's name; it divides for sure only before another address.
_BEFORE_ADDRESS = re.compile(r"[\s,;]+(?=https?://)", re.IGNORECASE)
_NESTING = 8


def split_cell(value: object, depth: int = 0) -> Iterator[Sequence[object]]:
    """Yield each picture of a cell as its candidates, the best first; yield nothing for an empty cell.

    Args:
        value: text, bytes, a list, an object, or what else a row holds.
        depth: of the nesting around the value.

    Yields:
        Texts and bytes that may name or hold the picture; any other value if nothing can.
    """
    value = unpack_cell(value)
    if _is_empty(value):
        return
    if depth > _NESTING:
        yield [value]
    elif isinstance(value, str):
        yield from ([part] for part in _split_text(value))
    elif isinstance(value, dict):
        yield from _from_dict(value, depth)
    elif isinstance(value, (list, tuple, set)):
        for part in value:
            yield from split_cell(part, depth + 1)
    else:
        yield [value]


def _is_empty(value: object) -> bool:
    if isinstance(value, str):
        return value.strip().lower() in _EMPTY_WORDS
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, (list, tuple, set, dict, bytes)) and not value)
    )


def _split_text(text: str) -> Iterator[str]:
    """Yield the paths and addresses of one text."""
    if text.lstrip()[:5].lower() == "data:":
        yield text
        return
    for line in re.split(r"[|\n\r\t]", text):
        for part in _BEFORE_ADDRESS.split(line):
            pieces = [part] if ADDRESS.match(part.strip()) else _split_paths(part)
            yield from (piece.strip() for piece in pieces if piece.strip())


def _split_paths(text: str) -> list[str]:
    """Divide at marks or spaces where every piece is named like a picture: `a, b.jpg` is one file."""
    for marks in (r"[,;]", r"[,;\s]"):
        pieces = [piece.strip() for piece in re.split(marks, text) if piece.strip()]
        if len(pieces) > 1 and all(piece.lower().endswith(FILE_ENDINGS) for piece in pieces):
            return pieces
    return [text]


def _from_dict(value: dict[Any, Any], depth: int) -> Iterator[Sequence[object]]:
    """Yield the pictures of an object: one in several sizes, or a list for each size."""
    fields = {str(key).strip().lower(): unpack_cell(part) for key, part in value.items()}
    known = [fields[key] for key in ("bytes", *_FIELDS) if key in fields]
    lists = {key: part for key, part in fields.items() if isinstance(part, (list, tuple))}
    if lists and all(isinstance(part, (list, tuple)) or _is_empty(part) for part in known):
        yield from _from_lists(lists, depth)
    elif candidates := [entry for part in known for entry in split_cell(part, depth + 1)]:
        yield [candidate for entry in candidates for candidate in entry]
    elif not known:
        addresses = [key for key in value if isinstance(key, str) and ADDRESS.match(key.strip())]
        # As in {"https://img.example.org/1.jpg": [500, 500]}.
        yield from ([address] for address in addresses)
        if not addresses and not all(map(_is_empty, fields.values())):
            yield [value]


def _from_lists(lists: Mapping[str, Sequence[object]], depth: int) -> Iterator[Sequence[object]]:
    for n in range(min(max(map(len, lists.values())), PICTURES_PER_ITEM + 1)):
        row = {key: part[n] for key, part in lists.items() if n < len(part)}
        yield from split_cell(row, depth + 1)

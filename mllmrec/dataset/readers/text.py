"""Make a shop's text safe to keep: no control characters, no endless fields, lists where lists belong."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from mllmrec.dataset.readers.literals import unpack_cell
from mllmrec.dataset.readers.markup import strip_html
from mllmrec.dataset.readers.prices import parse_price as price

__all__ = ["DESCRIPTION_LENGTH", "TITLE_LENGTH", "clean", "identifier", "parts", "price"]

TITLE_LENGTH = 1_000
DESCRIPTION_LENGTH = 20_000
_MOST_PARTS = 50
_NESTING = 8
_MARKUP_LENGTH = 1 << 18  # characters; where a product page stands for a title, the title comes late
# Bidirectional overrides and isolates reorder what a person reads; they say nothing of an item.
_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF])


def clean(value: Any, most: int) -> str | None:
    """Return a value as one line of at most `most` characters; None where nothing readable is left.

    Lists of strings are joined. HTML becomes plain text. Control characters, NUL, lone surrogates and bidirectional
    overrides go. Objects, bytes, true and false, NaN and infinity are nothing readable.
    """
    listed = _unpack_texts(value)
    if isinstance(listed, (list, tuple)):
        value = " ".join(part for part in listed if isinstance(part, str))
    if not isinstance(value, str):
        value = str(value) if _is_readable(value) else ""
    # Control characters and surrogates become spaces, so that what stood apart stays apart.
    raw = strip_html(value[:_MARKUP_LENGTH])[: 4 * most].translate(_BIDI)
    printable = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in raw)
    return " ".join(printable.split())[:most].rstrip() or None


def _unpack_texts(value: Any) -> Any:
    """Return the list that a text writes, where it lists nothing but texts: `[1]` is a title."""
    listed = unpack_cell(value)
    texts = isinstance(listed, list) and all(isinstance(part, str) for part in listed)
    return listed if texts else value


def _is_readable(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is not None and not isinstance(value, (dict, bool, bytes, set))


def parts(value: Any) -> list[str]:
    """Return a category path as a list, each part once and at most 50.

    Lists stay, nested ones are laid flat, and so is a list that a text writes (`"['Home', 'Shades']"`). Other text
    is divided at | ; or >.
    """
    labels = (clean(part, TITLE_LENGTH) for part in _flat(unpack_cell(value)))
    return list(dict.fromkeys(label for label in labels if label))[:_MOST_PARTS]


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # Before the text is divided: entities end with a semicolon.
        yield from re.split(r"[|;>]", strip_html(value[:_MARKUP_LENGTH]))
    elif isinstance(value, (list, tuple)):
        yield from _strings(value, 0)


def _strings(values: Any, depth: int) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple)) and depth < _NESTING:
            yield from _strings(value, depth + 1)


def identifier(value: Any) -> str | None:
    """Return an id as a string without space around it; None for what cannot be an id.

    Integers are kept exactly. Floats are refused: above 2^53 they have lost digits, and 7.0 is no name. So are NUL
    and lone surrogates, which no file can hold.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    name = str(value).strip()
    if not name or len(name) > TITLE_LENGTH or any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in name):
        return None
    return name

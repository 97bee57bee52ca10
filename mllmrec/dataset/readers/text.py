"""Text from a shop made safe to keep: no control characters, no endless fields, lists where lists belong."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

TITLE_LENGTH = 1_000
DESCRIPTION_LENGTH = 20_000
_MOST_PARTS = 50
# Bidirectional overrides and isolates reorder what a person reads; they say nothing of an item.
_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF])
_PRICE = re.compile(r"\d+(?:[.,]\d{3})*(?:[.,]\d{1,2})?")


def clean(value: Any, most: int) -> str | None:
    """One line of at most `most` characters; None where nothing readable is left.

    Lists of strings are joined. Control characters, NUL, lone surrogates and bidirectional overrides go.
    """
    if isinstance(value, (list, tuple)):
        value = " ".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        value = "" if value is None or isinstance(value, (dict, bool)) else str(value)
    # Control characters and surrogates become spaces, so that what stood apart stays apart.
    raw = value[: 4 * most].translate(_BIDI)
    kept = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in raw)
    return " ".join(kept.split())[:most].rstrip() or None


def parts(value: Any) -> list[str]:
    """A category path as a list: lists stay, nested ones are laid flat, strings are split at | ; or >."""
    found = (clean(part, TITLE_LENGTH) for part in _flat(value))
    return list(dict.fromkeys(part for part in found if part))[:_MOST_PARTS]


def _flat(value: Any) -> Iterable[Any]:
    if isinstance(value, str):
        yield from re.split(r"[|;>]", value)
    elif isinstance(value, (list, tuple)):
        for part in value:
            if isinstance(part, (list, tuple)):
                yield from (inner for inner in part if isinstance(inner, str))
            elif isinstance(part, str):
                yield part


def price(value: Any) -> float | None:
    """A price as a number; "$1,299.00" is 1299.0, and what holds no number is None."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return float(value) if 0 <= value < 1e12 else None
    found = _PRICE.search(str(value)[:100])
    if not found:
        return None
    whole, mark, cents = re.match(r"(.*?)(?:([.,])(\d{1,2}))?$", found.group()).groups()  # type: ignore[union-attr]
    return float(re.sub(r"[.,]", "", whole) + (f".{cents}" if mark else ""))


def identifier(value: Any) -> str | None:
    """An id as a string: integers exactly, strings as they are; None for what cannot be an id.

    Floats are refused: above 2^53 they have lost digits, and 7.0 is no name.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    text = str(value)
    return text if text.strip() and len(text) <= TITLE_LENGTH and "\x00" not in text else None

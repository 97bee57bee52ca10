"""Text from data in a CSV: a cell that a spreadsheet would run as a formula is defused."""

from __future__ import annotations

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def defused(cell: str) -> str:
    """The cell, with an apostrophe before it where it begins like a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell

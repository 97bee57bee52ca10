"""Read ids and numbers from cells, the same way for every format."""

from __future__ import annotations

import re

import polars as pl

from mllmrec.dataset.readers import text

# Other programs write these where a value is missing: an id would join unrelated rows, a title would be a word.
MISSING = frozenset({"\\N", "nan", "NaN", "null", "Null", "NULL", "None", "<NA>", "#N/A", "N/A", "n/a"})
_MISSING_NUMBERS = ("", "na", "n/a", "nan", "nat", "null", "none", "-", "\\n", "<na>", "#n/a")
# What divides lines and columns in the files that ids are written to, and what no file can hold.
_DIVIDING = re.compile("[\x00\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
_WHOLE = r"^\d{1,18}(?:\.0*)?$"
_SHOWN = 40  # characters of a value in a message


def read_id(value: object) -> str | None:
    """Return the id in a cell: text without outer blanks, or an integer's digits; None where there is none."""
    name = text.identifier(value.strip() if isinstance(value, str) else value)
    return None if name is None or name in MISSING or _DIVIDING.search(name) else name


def id_fault(value: object, role: str) -> str:
    """Return the reason why a cell holds no id."""
    if value is None or value == "" or (isinstance(value, str) and not value.strip()):
        return f"no {role}"
    if isinstance(value, float):
        return f"{role} {value} is a float: ids above 2^53 have lost digits; save them as text or integers"
    if isinstance(value, (dict, list)):
        return f"{role} is {'an object' if isinstance(value, dict) else 'a list'}, {show(value)}; wanted the id itself"
    return f"{role} {show(value)} cannot be an id"


def show(value: object) -> str:
    """Return a value for a message, quoted and of bounded length."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]}..."


def read_ids(cells: pl.Series, *, numbered: bool = False) -> pl.Series:
    """Return the ids of text cells, null where there is none; `numbered` ids are whole numbers from 0."""
    if numbered:
        numbers = cells.set(~cells.str.contains(_WHOLE).fill_null(value=False), None)
        return numbers.str.replace(r"\.0*$", "").cast(pl.Int64).cast(pl.String)
    distinct = cells.drop_nulls().unique()
    changes = {cell: name for cell in distinct.to_list() if (name := read_id(cell)) != cell}
    return cells.replace(changes) if changes else cells


def without_missing(cells: pl.Series) -> pl.Series:
    """Return cells of numbers or times, null where the text says that there is no value."""
    return cells.set(cells.str.to_lowercase().is_in(_MISSING_NUMBERS).fill_null(value=False), None)


def read_numbers(cells: pl.Series) -> pl.Series:
    """Return text cells as Float64: null where they hold anything but one finite number with a decimal point."""
    numbers = cells.set(~cells.str.contains(_NUMBER).fill_null(value=False), None).cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite().fill_null(value=False), None)

"""Read ids, numbers, prices and literals from cells, the same way for every format.

A list or an object that a text cell holds is written as JSON or as a Python literal. Size and nesting are limited
before either parser sees it; `ast.literal_eval` evaluates nothing.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
import unicodedata
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import polars as pl

# Other programs write these where a value is missing: an id would join unrelated rows, a title would be a word.
MISSING = frozenset({"\\N", "nan", "NaN", "null", "Null", "NULL", "None", "<NA>", "#N/A", "N/A", "n/a"})
_MISSING_NUMBERS = ("", "na", "n/a", "nan", "nat", "null", "none", "-", "\\n", "<na>", "#n/a")
# What divides lines and columns in the files that ids are written to, and what no file can hold.
_DIVIDING = re.compile("[\x00\t\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029\ud800-\udfff]")
_PLAIN = r"^[!-~](?:[ -~]*[!-~])?$"  # a text that is an id as it stands, if it is short
_NUMBER = r"^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$"
_WHOLE = r"^\d{1,18}(?:\.0*)?$"
_ID_LENGTH = 1_000  # characters
_SHOWN = 40  # characters of a value in a message


def read_id(value: object) -> str | None:
    """Return the id in a cell: text without outer blanks, or an integer's digits; None if there is none.

    Floats are refused: above 2^53 they have lost digits, and 7.0 is no name.
    """
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return None
    name = str(value).strip()
    return None if not 0 < len(name) <= _ID_LENGTH or name in MISSING or _DIVIDING.search(name) else name


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
    """Return the ids of text cells, null if there is none; `numbered` ids are whole numbers from 0."""
    if numbered:
        numbers = cells.set(~cells.str.contains(_WHOLE).fill_null(value=False), None)
        return numbers.str.replace(r"\.0*$", "").cast(pl.Int64).cast(pl.String)
    distinct = cells.drop_nulls().unique()
    plain = distinct.str.contains(_PLAIN) & (distinct.str.len_bytes() <= _ID_LENGTH) & ~distinct.is_in(MISSING)
    changes = {cell: name for cell in distinct.filter(~plain).to_list() if (name := read_id(cell)) != cell}
    return cells.replace(changes) if changes else cells


def without_missing(cells: pl.Series) -> pl.Series:
    """Return cells of numbers or times, null if the text says that there is no value."""
    return cells.set(cells.str.to_lowercase().is_in(_MISSING_NUMBERS).fill_null(value=False), None)


def read_numbers(cells: pl.Series) -> pl.Series:
    """Return text cells as Float64: null if they hold anything but one finite number with a decimal point."""
    numbers = cells.set(~cells.str.contains(_NUMBER).fill_null(value=False), None).cast(pl.Float64, strict=False)
    return numbers.set(~numbers.is_finite().fill_null(value=False), None)


_MOST_PRICE = 1e12
_PRICE_CHARACTERS = 100
_CURRENCY_CODES = (
    "aed ars aud bdt bgn brl cad chf clp cny cop czk dkk egp eur gbp hkd huf idr ils inr isk jpy kes krw mxn myr ngn "
    "nok nzd pen php pkr pln qar ron rsd rub sar sek sgd thb try twd uah usd vnd zar"
)
_CURRENCY_NAMES = (
    "us ca a au c hk nt nz r s mx rs rp rm kr zł zl kč kc ft lei din tl fr sfr р руб грн лв ден "  # noqa: RUF001
    "euro euros dollar dollars cents rupees yen yuan won pound pounds"
)
_CURRENCIES = frozenset((*_CURRENCY_CODES.split(), *_CURRENCY_NAMES.split()))
_LEADS = frozenset({"price", "from", "ab", "only", "now", "approx", "ca"})
_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*\.?")
_SPACES = re.compile(r"[\s_]+")
_RANGE = re.compile(r"(?<=[\d.,])\s*(?:-|~|\bto\b|\bbis\b)\s*(?=[\d.,])", re.I)
_DECIMAL = re.compile(r"\d*\.?\d*(?:e[+-]?\d{1,2})?", re.I)
_WESTERN = re.compile(r"\d{1,3}(?:(\D)\d{3})(?:\1\d{3})*")
_INDIAN = re.compile(r"\d{1,2}(?:(\D)\d{2})(?:\1\d{2})*\1\d{3}")
_AMOUNT = re.compile(r"\d[\d., ']*|[.,]\d+")


def parse_price(value: Any) -> float | None:
    """Return a price as a number, None if the cell holds no single price.

    A mark is read by these rules, the first that holds:

    1. A number as programs write it is that number: `19.9900`, `0.125`, `1.299`, `1e3`.
    2. With both a point and a comma, the last is the decimal mark: `1,299.00`, `1.299,00`.
    3. Spaces and apostrophes divide thousands: `1 299,00`, `1'299.00`.
    4. A mark that comes twice divides groups, in Western or Indian steps: `1,299,000`, `1,29,900`.
    5. A single mark before exactly three digits divides thousands, unless a zero or more than three digits stand
       before it: `1,299` is 1299, and so is `1.299 €`; `0,125` is 0.125.
    6. Any other single mark is the decimal mark: `1,29` is 1.29.

    A range gives its lower end. Negative numbers, and text around the number other than a currency, give None.
    """
    if isinstance(value, (list, tuple)) and len(value) == 1:
        return parse_price(value[0])
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _from_number(value)
    if not isinstance(value, str) or len(value) > _PRICE_CHARACTERS:
        return None
    text = unicodedata.normalize("NFKC", value).strip().casefold()
    text = text.translate({0x2019: "'", 0x2018: "'", 0x2013: "-", 0x2014: "-", 0x2212: "-"})
    if any(character.isdigit() for character in text) and _DECIMAL.fullmatch(text):
        return _within(float(text))
    ends = [_parse_end(end) for end in _RANGE.split(_without_currency(text), maxsplit=1)]
    prices = [end for end in ends if end is not None]
    return min(prices) if prices and len(prices) == len(ends) else None


def _from_number(value: float | Decimal) -> float | None:
    try:
        return _within(float(value))
    except (OverflowError, ValueError):  # an integer of 400 digits; a signalling NaN
        return None


def _within(price: float) -> float | None:
    return price if math.isfinite(price) and 0 <= price < _MOST_PRICE else None


def _without_currency(text: str) -> str:
    """Drop currency signs and names; any other word stays, and makes the text no price."""
    signs = "".join(" " if unicodedata.category(character) == "Sc" else character for character in text)
    words = _WORD.sub(lambda word: " " if word[0].rstrip(".") in _CURRENCIES else word[0], signs).strip()
    head = _WORD.match(words)
    if head and head[0].rstrip(".") in _LEADS:
        words = words[head.end() :].lstrip(" :")
    words = re.sub(r"(?<=\d)\s*[.,:]-{1,2}$", "", words)  # 129:- and 19,- as Swedes and Germans write
    return _SPACES.sub(" ", words).strip()


def _parse_end(text: str) -> float | None:
    text = text.strip().removesuffix(".").rstrip()
    if not _AMOUNT.fullmatch(text) or not text.isascii():
        return None
    whole, mark, cents = _divide(text)
    if not whole.isdigit() and whole:
        if not (_WESTERN.fullmatch(whole) or _INDIAN.fullmatch(whole)):
            return None
        whole = re.sub(r"\D", "", whole)
    if mark and not cents.isdigit():
        return None
    return _within(float(f"{whole or 0}.{cents or 0}"))


def _divide(text: str) -> tuple[str, str, str]:
    """Return the whole part with its marks of thousands, the decimal mark and the digits behind it."""
    marks = [character for character in text if character in ".,"]
    if not marks:
        return text, "", ""
    whole, mark, cents = text.rpartition(marks[-1])
    if len(set(marks)) == 2:
        return whole, mark, cents
    divided = len(marks) > 1 or (len(cents) == 3 and re.fullmatch(r"[1-9]\d{0,2}", whole))
    return (text, "", "") if divided else (whole, mark, cents)


LITERAL_CHARACTERS = 1 << 20
LITERAL_DEPTH = 32
_CELL_CHARACTERS = 1 << 16  # the tokenizer takes 10 us a string
_NEIGHBORS = re.compile(r"['\"]\s+[bBuU]?['\"]")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_BLANK_TOKENS = frozenset({tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT})


def parse_literal(text: str) -> Any:
    """Return the value that a text writes as JSON or as a Python literal.

    Raises:
        ValueError: the text is neither, or is too long or too deep to try.
    """
    check_literal(text)
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"neither JSON nor a Python literal: {str(error)[:100] or type(error).__name__}") from error


def check_literal(text: str) -> None:
    """Refuse a text that is too long or nested too deep for a parser.

    Raises:
        ValueError: it is.
    """
    if len(text) > LITERAL_CHARACTERS:
        raise ValueError(f"a literal of over {LITERAL_CHARACTERS >> 20} MiB")
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > LITERAL_DEPTH:
        raise ValueError(f"a literal nested {deepest} deep")


def unpack_cell(value: Any) -> Any:
    """Return the list or dict that a text cell writes, and any other value as it is.

    Cells as `"['Home', 'Shades']"`, `'["Home"]'` and NumPy's `"['Home' 'Shades']"` are lists. A text in brackets
    that cannot be read stays the text.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return value
    try:
        parsed = parse_literal(_separate_strings(text))
    except ValueError:
        return value
    if isinstance(parsed, (tuple, set)):
        return list(parsed)
    return parsed if isinstance(parsed, (list, dict)) else value


def _separate_strings(text: str) -> str:
    """Put commas between neighboring strings: Python would join `['a' 'b']`, NumPy's print of two, into one."""
    if not _NEIGHBORS.search(text):
        return text
    if len(text) > _CELL_CHARACTERS:
        raise ValueError(f"a list of over {_CELL_CHARACTERS >> 10} KiB without commas")
    lines = text.splitlines(keepends=True)
    for row, column in reversed(list(_string_gaps(text))):
        lines[row - 1] = f"{lines[row - 1][:column]}, {lines[row - 1][column:]}"
    return "".join(lines)


def _string_gaps(text: str) -> Iterator[tuple[int, int]]:
    """Yield (line, column) of each string that follows a string without a comma."""
    after_string = False
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in _BLANK_TOKENS:
                continue
            if after_string and token.type == tokenize.STRING:
                yield token.start
            after_string = token.type == tokenize.STRING
    except (tokenize.TokenError, SyntaxError):
        return

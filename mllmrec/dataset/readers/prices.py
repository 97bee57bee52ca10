"""Read a price from a cell: a number in any common notation, with or without a currency."""

from __future__ import annotations

import math
import re
import unicodedata
from decimal import Decimal
from typing import Any

_MOST = 1e12
_CHARACTERS = 100
_CODES = (
    "aed ars aud bdt bgn brl cad chf clp cny cop czk dkk egp eur gbp hkd huf idr ils inr isk jpy kes krw mxn myr ngn "
    "nok nzd pen php pkr pln qar ron rsd rub sar sek sgd thb try twd uah usd vnd zar"
)
_NAMES = (
    "us ca a au c hk nt nz r s mx rs rp rm kr zł zl kč kc ft lei din tl fr sfr р руб грн лв ден "  # noqa: RUF001
    "euro euros dollar dollars cents rupees yen yuan won pound pounds"
)
_CURRENCIES = frozenset((*_CODES.split(), *_NAMES.split()))
_LEADS = frozenset({"price", "from", "ab", "only", "now", "approx", "ca"})
_WORD = re.compile(r"[^\W\d_]+(?:\.[^\W\d_]+)*\.?")
_SPACES = re.compile(r"[\s_]+")
_RANGE = re.compile(r"(?<=[\d.,])\s*(?:-|~|\bto\b|\bbis\b)\s*(?=[\d.,])", re.I)
_LITERAL = re.compile(r"\d*\.?\d*(?:e[+-]?\d{1,2})?", re.I)
_WESTERN = re.compile(r"\d{1,3}(?:(\D)\d{3})(?:\1\d{3})*")
_INDIAN = re.compile(r"\d{1,2}(?:(\D)\d{2})(?:\1\d{2})*\1\d{3}")
_NUMBER = re.compile(r"\d[\d., ']*|[.,]\d+")


def parse_price(value: Any) -> float | None:
    """Return a price as a number, None where the cell holds no single price.

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
    if not isinstance(value, str) or len(value) > _CHARACTERS:
        return None
    text = unicodedata.normalize("NFKC", value).strip().casefold()
    text = text.translate({0x2019: "'", 0x2018: "'", 0x2013: "-", 0x2014: "-", 0x2212: "-"})
    if any(character.isdigit() for character in text) and _LITERAL.fullmatch(text):
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
    return price if math.isfinite(price) and 0 <= price < _MOST else None


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
    if not _NUMBER.fullmatch(text) or not text.isascii():
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

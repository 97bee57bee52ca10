"""Divide a budget of tokens among the parts of a text, so that none crowds out another."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Protocol

_BYTES_PER_TOKEN = 3
_LONGEST_WORD = 30  # characters; a longer run without a space is a script that does not part its words
_TEXTS = 1 << 16  # texts whose tokens are remembered: histories share their items


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text without a tokenizer: a third of its UTF-8 bytes, rounded up.

    The estimate is on the safe side for current vocabularies. English prose has four to five bytes a token;
    titles full of numbers and most other scripts have about three.
    """
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


class Measure(Protocol):
    """Count the tokens of a text, and cut it to a number of them."""

    def count(self, text: str) -> int:
        """Return the tokens of a text."""
        ...

    def shorten(self, text: str, tokens: int) -> str:
        """Return the beginning of a text with at most so many tokens, ended at a word if there is one."""
        ...


class Estimate:
    """Measure texts by their bytes, where no tokenizer is at hand."""

    def count(self, text: str) -> int:
        """Return the estimated tokens of a text."""
        return estimate_tokens(text)

    def shorten(self, text: str, tokens: int) -> str:
        """Return the beginning of a text with at most so many estimated tokens."""
        return shorten(text, tokens)


class TokenizerMeasure:
    """Measure texts by the tokenizer of a model.

    Args:
        tokenizer: of transformers, one that gives the place of each token.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._ends = lru_cache(maxsize=_TEXTS)(self._read)

    def count(self, text: str) -> int:
        """Return the tokens of a text."""
        return len(self._ends(text))

    def shorten(self, text: str, tokens: int) -> str:
        """Return the beginning of a text with at most so many tokens, one of them for the sign of the cut."""
        ends = self._ends(text)
        if len(ends) <= tokens:
            return text
        return _ended_at_a_word(text[: ends[tokens - 2]] if tokens > 1 else "")

    def _read(self, text: str) -> tuple[int, ...]:
        read = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        return tuple(end for _, end in read["offset_mapping"])


def measure_of(tokenizer: Any) -> Measure:
    """Return the measure of a tokenizer; an estimate where it does not give the place of each token."""
    return TokenizerMeasure(tokenizer) if getattr(tokenizer, "is_fast", False) else Estimate()


def characters_for(tokens: int) -> int:
    """Return more characters than a text of so many estimated tokens can have, spaces included."""
    return 4 * _BYTES_PER_TOKEN * (tokens + 1)


def shorten(text: str, tokens: int) -> str:
    """Return the beginning of a text with at most `tokens` estimated tokens, ended at a word if there is one."""
    room = tokens * _BYTES_PER_TOKEN
    raw = text.encode("utf-8", "replace")
    if len(raw) <= room:
        return text
    kept = raw[: max(room - len("\u2026".encode()), 0)].decode("utf-8", "ignore")
    return _ended_at_a_word(kept)


def _ended_at_a_word(kept: str) -> str:
    """Return what a cut left of a text, without the part of a word, and with the sign of the cut."""
    head, _, tail = kept.rpartition(" ")
    whole = head if head and len(tail) < _LONGEST_WORD else kept
    return f"{whole.rstrip()}\u2026" if whole else ""


def fair_shares(lengths: Sequence[int], budget: int) -> list[int]:
    """Return how many pieces each part keeps, by the max-min fair division.

    A short part keeps all of it. The others share the rest equally; pieces that do not divide go to the longest.

    >>> fair_shares([10, 3, 400, 60], 100)
    [10, 3, 44, 43]
    """
    shares = [0] * len(lengths)
    shortest_first = sorted(range(len(lengths)), key=lambda n: (lengths[n], -n))
    for done, n in enumerate(shortest_first):
        shares[n] = min(lengths[n], budget // (len(lengths) - done))
        budget -= shares[n]
    return shares


def recency_shares(count: int, half_life: float, budget: int, most: int, least: int) -> list[int]:
    """Return the tokens that each item of a history may take, oldest first; the newest items survive.

    An item's share is in proportion to 2^(-age / half_life), its age being the number of newer items. The oldest
    items go until no share is below `least`; the newest always stays.

    >>> recency_shares(4, 0, 100, most=40, least=20)
    [25, 25, 25, 25]
    >>> recency_shares(4, 1, 100, most=40, least=20)
    [28, 40]

    Args:
        count: items of the history.
        half_life: newer items that halve a weight; 0: all weigh the same.
        budget: tokens of all items together.
        most: tokens per item, at most.
        least: tokens per item, at least.
    """
    weights = recency_weights(count, half_life)
    while True:
        total = sum(weights)
        shares = [min(most, int(budget * weight / total)) for weight in weights]
        if len(weights) <= 1 or shares[0] >= least:
            return shares
        weights = weights[1:]


def recency_weights(count: int, half_life: float) -> list[float]:
    """Return 2^(-age / half_life) of each item, oldest first; all 1 without a half-life."""
    return [0.5 ** (age / half_life) if half_life else 1.0 for age in range(count - 1, -1, -1)]

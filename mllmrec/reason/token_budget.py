"""Divide a budget of tokens among the parts of a text, so that none crowds out another."""

from __future__ import annotations

from collections.abc import Sequence

_BYTES_PER_TOKEN = 3


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text without a tokenizer: a third of its UTF-8 bytes, rounded up.

    The estimate is on the safe side for current vocabularies. English prose has four to five bytes a token;
    titles full of numbers and most other scripts have about three.
    """
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def characters_for(tokens: int) -> int:
    """Return more characters than a text of so many estimated tokens can have, spaces included."""
    return 4 * _BYTES_PER_TOKEN * (tokens + 1)


def shorten(text: str, tokens: int) -> str:
    """Return the beginning of a text with at most `tokens` estimated tokens, ended at a word where there is one."""
    room = tokens * _BYTES_PER_TOKEN
    raw = text.encode("utf-8", "replace")
    if len(raw) <= room:
        return text
    kept = raw[: max(room - len("\u2026".encode()), 0)].decode("utf-8", "ignore")
    head, _, tail = kept.rpartition(" ")
    whole = head if head and len(tail) < 30 else kept
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

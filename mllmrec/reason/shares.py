"""How a budget is divided among parts of a text, so that none crowds out another."""

from __future__ import annotations

from collections.abc import Sequence


def fair_shares(lengths: Sequence[int], budget: int) -> list[int]:
    """How many pieces each part keeps: all of it where it is short, an equal share of the rest where not.

    The max-min fair division: no part gets more than it has, and no part that is cut gets less than
    another, but for the pieces that do not divide, which go to the longer ones.

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
    """The tokens that each item of a history may take, oldest first; the newest items survive.

    An item's share is in proportion to 2^(-age / half_life), its age being the number of newer items; without a
    half-life (0) all are equal. No share is above `most`; the oldest items go until none is below `least`, but
    for the newest, which always stays.

    >>> recency_shares(4, 0, 100, most=40, least=20)
    [25, 25, 25, 25]
    >>> recency_shares(4, 1, 100, most=40, least=20)
    [28, 40]
    """
    weights = recency_weights(count, half_life)
    while True:
        total = sum(weights)
        shares = [min(most, int(budget * weight / total)) for weight in weights]
        if len(weights) <= 1 or shares[0] >= least:
            return shares
        weights = weights[1:]


def recency_weights(count: int, half_life: float) -> list[float]:
    """2^(-age / half_life) of each item, oldest first; all 1 without a half-life."""
    return [0.5 ** (age / half_life) if half_life else 1.0 for age in range(count - 1, -1, -1)]

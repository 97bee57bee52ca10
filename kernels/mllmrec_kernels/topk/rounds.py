"""Rounds of pairs of panels in which no panel appears twice, so that threads never write to one list."""

from __future__ import annotations

import numpy as np

from mllmrec_kernels.base.arrays import Int32Array


def circle(players: int) -> list[Int32Array]:
    """Return rounds in which every two of the panels meet once, by the circle method of tournaments.

    The first round is each panel with itself.

    Returns:
        int32 [pairs, 2] per round.
    """
    seats = players + players % 2
    rounds = [np.repeat(np.arange(players), 2).reshape(-1, 2)]
    for shift in range(seats - 1):
        moving = (np.arange(seats - 1) + shift) % (seats - 1)
        ring = np.concatenate([[seats - 1], moving])
        pairs = np.stack([ring[: seats // 2], ring[: seats // 2 - 1 : -1]], axis=1)
        rounds.append(pairs[(pairs < players).all(axis=1)])
    return [pairs.astype(np.int32) for pairs in rounds]


def shifts(left: int, right: int) -> list[Int32Array]:
    """Return rounds in which every left panel meets every right one once; int32 [pairs, 2] per round."""
    longer = max(left, right)
    panels = np.arange(left)
    rounds = [np.stack([panels, (panels + shift) % longer], axis=1) for shift in range(longer)]
    return [pairs[pairs[:, 1] < right].astype(np.int32) for pairs in rounds]

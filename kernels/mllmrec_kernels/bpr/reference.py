"""The contract of bpr_loss: loss and gradient as a textbook writes them, in float64."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Ids = NDArray[np.integer]


def bpr_loss(
    users: Floats, items: Floats, of_user: Ids, positives: Ids, negatives: Ids
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return (loss, gradient by users [U, d], gradient by items [I, d]).

    Args:
        users: [U, d].
        items: [I, d].
        of_user: int64 [B], rows of `users`.
        positives: int64 [B], rows of `items`.
        negatives: int64 [B], likewise.
    """
    u, p, n = users[of_user].astype(float), items[positives].astype(float), items[negatives].astype(float)
    x = (u * (p - n)).sum(axis=1)  # [B]
    slope = -1 / (1 + np.exp(x)) / len(x)  # of -log sigma(x) / B
    by_users, by_items = np.zeros(users.shape), np.zeros(items.shape)
    np.add.at(by_users, of_user, slope[:, None] * (p - n))
    np.add.at(by_items, positives, slope[:, None] * u)
    np.add.at(by_items, negatives, -slope[:, None] * u)
    return float(np.logaddexp(0, -x).mean()), by_users, by_items

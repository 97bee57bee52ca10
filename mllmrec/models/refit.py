"""Change an earlier fit of the ensemble only where the data changed, on a dataset that grew.

    users  that are new, have another history, or own an item with another vector: their vectors are solved again
    items  that are new, have another vector, or have over GROWTH more training users than when they were last fitted:
           their columns of W and their vectors are solved again
    kept   every other number, bit for bit, and all that was chosen: weights, strengths, half-lives, the projection,
           the prediction and the offset of new items

So an item's parameters are at most GROWTH of its training users behind: growth adds up over days until the item is
fitted again. Nothing is searched or validated. Whether the choices still are the best, only a fit from nothing tells.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.dataset import Histories
from mllmrec.dataset.growth import changed_rows
from mllmrec.models.base import FitData, Refitted
from mllmrec.models.fitted_ensemble import EnsembleConfig, FittedEnsemble

GROWTH = 0.1  # share of an item's training users


def can_go_on(earlier: object, config: EnsembleConfig, data: FitData, histories: Histories | None = None) -> bool:
    """Tell whether an earlier fit has what a refit needs, for the same settings and fewer or as many users and items.

    Args:
        earlier: any model, or None.
        config: of the refit.
        data: of the refit.
        histories: its training histories; None: no order is known.
    """
    if not isinstance(earlier, FittedEnsemble) or earlier.config != config or not earlier.keeps_refits:
        return False
    assert earlier.first_settings is not None
    reads_order = earlier.first_settings.reads_order or earlier.content_half_life
    if reads_order and (histories is None or histories.times is None):
        return False
    before, now = earlier.ridge.sums.user_items.shape, data.user_items.shape
    items, users = data.items_or_zeros(), data.users
    for name in ("content", "profile"):
        if earlier.widths.get(name, items.shape[1]) != items.shape[1]:
            return False
    if earlier.projection is not None and len(earlier.projection.mean) != items.shape[1]:
        return False
    if earlier.item_features is not None and earlier.item_features.shape[1] != items.shape[1]:
        return False
    has_profiles = users is not None and users.shape[1] == items.shape[1]
    grown = before[0] <= now[0] and before[1] <= now[1]
    return grown and ("profile" not in earlier.widths or has_profiles)


def find_changes(earlier: FittedEnsemble, data: FitData) -> Refitted:
    """Return the users and items of the module that are fitted again.

    Args:
        earlier: checked by `can_go_on`.
        data: of the refit.
    """
    R, before = data.user_items, earlier.ridge.known_interactions()
    items, users = np.ones(R.n_columns, bool), np.ones(R.n_rows, bool)
    assert earlier.fitted_users is not None
    counts, fitted = count_users(R)[: before.n_columns], earlier.fitted_users
    items[: before.n_columns] = np.abs(counts - fitted) > GROWTH * fitted
    users[: before.n_rows] = changed_rows((before.indptr, before.indices), (R.indptr, R.indices))
    if data.items is not None and earlier.item_features is not None:
        n = before.n_columns
        moved = np.flatnonzero((data.items[:n] != earlier.item_features[:n]).any(axis=1))
        items[moved] = True
        users[R.rows()[np.isin(R.indices, moved)]] = True
    return Refitted(np.flatnonzero(users), np.flatnonzero(items))


def lengthen(table: NDArray[Any], rows: int) -> NDArray[Any]:
    """Return a copy of a table with rows of zeros up to a number of rows."""
    return np.concatenate([table, np.zeros((rows - len(table), *table.shape[1:]), table.dtype)])


def count_users(user_items: CSR) -> NDArray[np.int64]:
    """Return the number of users of each item, int64 [I]."""
    return np.bincount(user_items.indices, minlength=user_items.n_columns)


def grow_counts(earlier: FittedEnsemble, user_items: CSR, items: NDArray[np.int64]) -> NDArray[np.int32]:
    """Return the training users of each item when it was last fitted, int32 [I].

    Args:
        earlier: checked by `can_go_on`.
        user_items: R, binary [U, I].
        items: int64, fitted today; new items are among them.
    """
    counts = count_users(user_items).astype(np.int32)
    assert earlier.fitted_users is not None
    kept = np.setdiff1d(np.arange(len(earlier.fitted_users)), items)
    counts[kept] = earlier.fitted_users[kept]
    return counts

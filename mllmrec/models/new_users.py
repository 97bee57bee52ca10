"""Place users that a fit did not know: each part's vector of a user, only from the history and the items' side.

Nothing is trained. With the items' side fixed, a refit with the user in it would solve the same equations. But a refit
also moves the items' side, by one user more.

    factors       p = (Q_S^T Q_S + a Q^T Q + lambda (n + a I) 1)^-1 Q_S^T 1 over the n items S of the history
    graph filter  R_u D_I^-1/2 V
    content       the mean of the items' vectors, unit again
    profile       the profile that this mean predicts, by a ridge regression over the users of the fit
    popularity    1
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, mean_of_owned, normalize_rows
from mllmrec.models.ensemble_weights import item_covariance, over_spread
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.validation import spread_users

UserSide = Callable[[CSR], Vectors]  # from histories [B, I] to vectors float32 [B, d]
_SYSTEMS = 1 << 22  # numbers of the systems that are solved at once
_SAMPLE = 20_000  # users that a profile's regression is fitted on, at most
_DAMPING = 0.01  # of that regression, over the mean eigenvalue


@dataclass(frozen=True)
class HalfSweep:
    """The users' side of iALS, given the items' (ials.py).

    Attributes:
        items: Q, float32 [I, r].
        share: a, the weight of every pair.
        regularization: lambda.
    """

    items: Vectors
    share: float
    regularization: float

    @cached_property
    def gram(self) -> NDArray[np.float64]:
        """Return a Q^T Q, [r, r]."""
        return np.asarray(self.share * (self.items.T @ self.items), np.float64)

    def __call__(self, histories: CSR) -> Vectors:
        """Return the factors of each history, float32 [B, r]; of an empty one zeros."""
        r, counts = self.items.shape[1], np.diff(histories.indptr)
        users, known = np.zeros((histories.n_rows, r), np.float32), np.flatnonzero(counts)
        step = max(1, _SYSTEMS // max(1, r * r))
        for start in range(0, len(known), step):
            rows = known[start : start + step]
            owned = [self.items[histories.row(u)].astype(np.float64) for u in rows]
            systems = np.stack([Q.T @ Q for Q in owned]) + self.gram
            shrink = self.regularization * (counts[rows] + self.share * len(self.items))
            systems[:, np.arange(r), np.arange(r)] += shrink[:, None]
            sums = np.stack([Q.sum(axis=0) for Q in owned])
            users[rows] = np.linalg.solve(systems, sums[:, :, None])[:, :, 0]
        return users


def filter_side(items: Vectors, train: CSR) -> UserSide:
    """Return the users' side of the graph filter.

    Args:
        items: D_I^1/2 V, float32 [I, r].
        train: the interactions of the fit, which D_I counts.
    """
    by_item = np.maximum(np.bincount(train.indices, minlength=len(items)), 1)
    basis = np.asarray(items / by_item[:, None], np.float32)  # D_I^-1/2 V

    def side(histories: CSR) -> Vectors:
        return np.asarray(histories.to_scipy() @ basis, np.float32)

    return side


def content_side(items: Vectors) -> UserSide:
    """Return the users' side of content: the mean of a user's item vectors, float32 [I, d] each."""
    return lambda histories: _mean_of_owned(items, histories)


def _mean_of_owned(items: Vectors, histories: CSR) -> Vectors:
    """Return mean_of_owned, with a copy of only the owned rows: a part's columns do not lie together in memory."""
    owned, places = np.unique(histories.indices, return_inverse=True)
    few = CSR(histories.indptr, places.astype(np.int32), None, len(owned))
    return mean_of_owned(items[owned], few)


def profile_side(items: Vectors, profiles: Vectors, train: CSR) -> UserSide:
    """Return a side that predicts a user's profile from the mean of the user's items.

    Args:
        items: float32 [I, d].
        profiles: float32 [U, d], of any length; the users of the fit.
        train: [U, I], their interactions.
    """
    known = np.flatnonzero(profiles.any(axis=1) & (np.diff(train.indptr) > 0))
    known = spread_users(known, _SAMPLE)
    means = mean_of_owned(items, train.take_rows(known)).astype(np.float64)
    gram = means.T @ means
    damping = _DAMPING * np.trace(gram) / max(1, len(gram)) + np.finfo(np.float64).tiny
    targets = normalize_rows(profiles[known]).astype(np.float64)
    mapped = np.linalg.solve(gram + damping * np.eye(len(gram)), means.T @ targets).astype(np.float32)
    return lambda histories: normalize_rows(_mean_of_owned(items, histories) @ mapped)


def place_users(name: str, part: VectorScorer, train: CSR, factor_settings: tuple[float, float]) -> UserSide:
    """Return the users' side of a part of the ensemble.

    Args:
        name: of the part.
        part: its tables, of the users of the fit [U, d] and the items [I, d].
        train: [U, I], the interactions of the fit.
        factor_settings: a and lambda of the factors.

    Raises:
        InputError: there is no such part.
    """
    match name:
        case "factors":
            return HalfSweep(part.items, *factor_settings)
        case "graph filter":
            return filter_side(part.items, train)
        case "content":
            return content_side(part.items)
        case "profile":
            return profile_side(part.items, part.users, train)
        case "popularity" | "new items":
            return constant_side
    raise InputError(f"there is no way to place new users by a part {name!r:.80}; fit the model again")


def standard_side(side: UserSide, items: Vectors, weight: float) -> UserSide:
    """Return a side whose vectors are over the spread of their scores, times the part's weight.

    Args:
        side: of the part.
        items: float32 [I, d], the items of the part.
        weight: c of the part.
    """
    covariance = item_covariance(items)
    return lambda histories: np.float32(weight) * over_spread(side(histories), covariance)


def constant_side(histories: CSR) -> Vectors:
    """Return 1 for every user, float32 [B, 1]."""
    return np.ones((histories.n_rows, 1), np.float32)

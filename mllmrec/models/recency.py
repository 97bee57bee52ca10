"""Rows of users whose older items count less.

With a half-life of h items, an item with t strictly newer ones among the user's training items weighs 2^(-t/h) in the
user's row. Without a half-life all weigh 1. Items of the same moment weigh the same. Ages are read from training
interactions alone. Where the data has no times or places there is no half-life to choose. Otherwise validation chooses;
of equal ones the first stays.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from pydantic import Field

from mllmrec.dataset import Histories
from mllmrec.errors import InputError
from mllmrec.evaluation.groups import ItemRanker
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.validation import Validation

HalfLives = Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)]  # in items; 0: none


def ages(histories: Histories) -> NDArray[np.int64]:
    """Return the number of a user's strictly newer items for each entry of `histories.user_items()`, int64 [n].

    Raises:
        InputError: the histories have no order.
    """
    if histories.times is None:
        raise InputError("the training interactions have no times or places, so nothing is older than anything else")
    users = np.repeat(np.arange(histories.n_users), np.diff(histories.indptr))
    starts = np.flatnonzero(np.diff(users, prepend=-1) | np.diff(histories.times, prepend=0))  # of moments
    last = np.repeat(np.append(starts[1:], len(users)), np.diff(np.append(starts, len(users))))
    newer = histories.indptr[users + 1] - last
    return np.asarray(newer[np.lexsort((histories.items, users))], np.int64)


def decayed(user_items: CSR, age: NDArray[np.int64], half_life: float) -> CSR:
    """Return the rows of users for a half-life.

    Args:
        user_items: R, binary [U, I].
        age: int64 [nnz], of its entries.
        half_life: h in items; 0: the rows themselves.
    """
    if not half_life:
        return user_items
    weights = np.exp2(-age / half_life).astype(np.float32)
    return CSR(user_items.indptr, user_items.indices, weights, user_items.n_columns)


def aged_rows(user_items: CSR, histories: Histories | None, half_lives: Sequence[float]) -> dict[float, CSR]:
    """Return the rows of users for each half-life that can be chosen.

    Args:
        user_items: R, binary [U, I].
        histories: the training histories; None: no order is known.
        half_lives: in items; 0: none.

    Raises:
        InputError: every choice needs an order, and none is known.
    """
    if histories is None or histories.times is None:
        if 0 not in half_lives:
            raise InputError(
                "a half-life needs times or places of the training interactions; prepare the dataset with --column "
                "timestamp=NAME, or add 0 to model.half_lives"
            )
        return {0.0: user_items}
    age = ages(histories) if any(half_lives) else np.empty(0, np.int64)
    return {half_life: decayed(user_items, age, half_life) for half_life in half_lives}


def choose_rows(
    fitted: Callable[[CSR], ItemRanker],
    user_items: CSR,
    valid: CSR | None,
    histories: Histories | None,
    half_lives: Sequence[float],
    progress: Progress = silent,
) -> tuple[float, CSR]:
    """Return the half-life that validation chooses, and the rows of users with it.

    Args:
        fitted: returns the model that scores by given rows.
        user_items: R, binary [U, I].
        valid: binary [U, I]; None: the first half-life is taken.
        histories: the training histories; None: no order is known.
        half_lives: to choose from, in items; 0: none.
        progress: called while users are ranked.

    Raises:
        InputError: every choice needs an order, and none is known.
    """
    rows = aged_rows(user_items, histories, half_lives)
    choices = list(rows)
    if valid is None or len(choices) == 1:
        return choices[0], rows[choices[0]]
    best, _ = Validation(user_items, valid).best("half-lives", map(fitted, rows.values()), progress)
    return choices[best], rows[choices[best]]

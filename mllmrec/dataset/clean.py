"""Apply the rules that every source goes through: ratings, duplicates, k-core.

Duplicates: of the rows of one user with one item the earliest stays, and of equally early ones the first in
the file. Rows of equal time keep the order of the file.
"""

from __future__ import annotations

import polars as pl

from mllmrec.errors import LeakError


def drop_low_ratings(interactions: pl.DataFrame, least: float | None) -> pl.DataFrame:
    """Keep rows rated `least` or better; unrated rows stay."""
    if least is None:
        return interactions
    return interactions.filter(pl.col("rating").is_null() | (pl.col("rating") >= least))


def drop_repeats(interactions: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Keep one row per user and item, the earliest; rows come back sorted by time, equal times as they were.

    Raises:
        LeakError: a given split has one user-item pair in two of its parts.
    """
    split = interactions.filter(pl.col("split").is_not_null())
    parts = split.group_by("user", "item", maintain_order=True).agg(pl.col("split").n_unique())
    leaks = parts.filter(pl.col("split") > 1)
    if len(leaks):
        user, item, _ = leaks.row(0)
        raise LeakError(
            f"the given split has {len(leaks)} user-item pairs in more than one of its parts, the first is user "
            f"{user!r} with item {item!r}; give each pair one part"
        )
    ordered = interactions.sort("timestamp", maintain_order=True, nulls_last=False)
    single = ordered.unique(["user", "item"], keep="first", maintain_order=True)
    return single, len(interactions) - len(single)


def k_core(interactions: pl.DataFrame, k: int) -> tuple[pl.DataFrame, int]:
    """Keep the largest part in which every user and item has at least k rows; return it and the rounds it took."""
    rounds = 0
    while k > 1:
        rounds += 1
        core = interactions.filter((pl.len().over("user") >= k) & (pl.len().over("item") >= k))
        if len(core) == len(interactions):
            break
        interactions = core
    return interactions, rounds

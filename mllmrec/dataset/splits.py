"""Choose the interactions that are held out. Rows come sorted by time within a user.

| rule | held out |
|---|---|
| random | by user: of n < 10 one to validation, one to test; else floor(n / 5), half (rounded down) to validation |
| user-time | by user: as many as `random`, the last to test, those before to validation |
| leave-one-out | by user: the last to test, the one before to validation |
| global-time | the last tenth of all interactions to test, the tenth before to validation, cut at whole timestamps |
| cold-items | all interactions of a share of the items to test, of as many others to validation; the rest: random |
| given | what the source's own column says |

From users with fewer than three interactions only `cold-items`, `global-time` and `given` hold any out.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.dataset.dataset import Dataset, user_spans
from mllmrec.errors import InputError
from mllmrec.foundation import digests

RULES = ("random", "user-time", "leave-one-out", "global-time", "cold-items")
SEEDED = ("random", "cold-items")  # the others have one result
COLD_SHARE = 0.1
_FEW = 3
_NAMES = {
    **dict.fromkeys(("train", "training", "0", "0.0"), 0),
    **dict.fromkeys(("valid", "validation", "val", "dev", "1", "1.0"), 1),
    **dict.fromkeys(("test", "testing", "2", "2.0"), 2),
}


def assign(interactions: pl.DataFrame, rule: str, seed: int, cold_share: float = COLD_SHARE) -> NDArray[np.int8]:
    """Return the part of each row: 0 train, 1 validation, 2 test.

    Args:
        interactions: user, item (indices), timestamp, split (the source's, for `given`); by user, oldest first.
        rule: one of RULES, or "given".
        seed: of the rules of SEEDED; their results do not depend on the order of the rows.
        cold_share: of the items that `cold-items` hides for the test, and as many for validation; in (0, 0.5).

    Returns:
        int8 [n], aligned with the rows.

    Raises:
        InputError: the rule needs time, or a given split, and the data has none, or too few items to hide some.
    """
    if rule == "given":
        return _given(interactions["split"])
    if rule == "random":
        return _random(interactions, seed)
    if rule == "cold-items":
        return _cold_items(interactions, seed, cold_share)
    if interactions["timestamp"].null_count():
        raise InputError(
            f"--split {rule} needs a time for every interaction, and {interactions['timestamp'].null_count()} "
            "have none; name the column with --column timestamp=NAME, or use --split random"
        )
    if rule == "global-time":
        return _global_time(interactions["timestamp"].to_numpy())
    users, choose = interactions["user"].to_numpy(), _as_many_as_random if rule == "user-time" else _from_the_end
    return np.concatenate([np.empty(0, np.int8), *(choose(*_from_end(users[span])) for span in user_spans(users))])


def hidden_items(
    interactions: pl.DataFrame, seed: int, share: float = COLD_SHARE
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the items that `cold-items` hides: those of validation, and those of the test.

    Args:
        interactions: item (indices).
        seed: of the draw.
        share: of the items with interactions that each part gets, in (0, 0.5); at least one item.

    Returns:
        Two int64 arrays of as many items, ascending.

    Raises:
        InputError: no item would be left to train on.
    """
    items = np.sort(interactions["item"].unique().to_numpy()).astype(np.int64)
    count = max(1, round(share * len(items)))
    if 2 * count >= len(items):
        raise InputError(
            f"--cold-share {share:g} of {len(items):,} items hides {count:,} for validation and as many for the test, "
            "which leaves none to train on; lower it"
        )
    drawn = np.random.default_rng([seed, 1]).permutation(items)
    return np.sort(drawn[count : 2 * count]), np.sort(drawn[:count])


def _cold_items(interactions: pl.DataFrame, seed: int, share: float) -> NDArray[np.int8]:
    items = interactions["item"].to_numpy()
    valid, test = (np.isin(items, hidden) for hidden in hidden_items(interactions, seed, share))
    part = np.where(test, 2, np.where(valid, 1, 0)).astype(np.int8)
    warm = ~(valid | test)
    part[warm] = _random(interactions.select("user", "item").filter(pl.Series(warm)), seed)
    return part


def _given(split: pl.Series) -> NDArray[np.int8]:
    named = split.str.to_lowercase()
    unknown = split.filter(named.is_null() | ~named.is_in(list(_NAMES)))
    if len(unknown):
        raise InputError(
            f"the given split says {unknown[0]!r} in {len(unknown)} rows; wanted train, valid or test (or 0, 1, 2)"
        )
    return named.replace_strict(_NAMES, return_dtype=pl.Int8).to_numpy()


def _random(interactions: pl.DataFrame, seed: int) -> NDArray[np.int8]:
    users, items = interactions["user"].to_numpy(), interactions["item"].to_numpy()
    generator = np.random.default_rng(seed)
    part = np.empty(len(users), dtype=np.int8)
    for span in user_spans(users):  # draws go to rows by user and item, so spans of whole users take them in turn
        user, draw = users[span], np.empty(span.stop - span.start)
        draw[np.lexsort((items[span], user))] = generator.random(len(draw))
        shuffled = np.lexsort((draw, user))
        part[span.start + shuffled] = _as_many_as_random(*_from_end(user[shuffled]))
    return part


def _as_many_as_random(place: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return the part of each row by its place from the end and its user's number of rows."""
    held = np.where(size < 10, 2, size // 5)
    tested = held - held // 2
    return np.select([size < _FEW, place < tested, place < held], [0, 2, 1], 0).astype(np.int8)


def _from_the_end(place: NDArray[np.int64], size: NDArray[np.int64]) -> NDArray[np.int8]:
    return np.select([size < _FEW, place == 0, place == 1], [0, 2, 1], 0).astype(np.int8)


def _from_end(users: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the number of a user's rows after each row, and of all the user's rows; rows are grouped by user."""
    starts = np.flatnonzero(np.diff(users, prepend=-1)) if len(users) else np.empty(0, np.int64)
    sizes = np.diff(np.append(starts, len(users)))
    size = np.repeat(sizes, sizes)
    return size - 1 - (np.arange(len(users)) - np.repeat(starts, sizes)), size


def _global_time(times: NDArray[np.int64]) -> NDArray[np.int8]:
    # Whole timestamps: what happened at the moment of a cut goes to the earlier part.
    ordered = np.sort(times)
    cuts = [ordered[max(0, int(len(times) * share) - 1)] for share in (0.8, 0.9)]
    return np.searchsorted(cuts, times, side="left").astype(np.int8)


def split_facts(rule: str, seed: int, cold_share: float) -> dict[str, str | int | float | None]:
    """Return what a manifest says of the split.

    Args:
        rule: of the split.
        seed: of the rules that draw.
        cold_share: of `cold-items`.
    """
    facts: dict[str, str | int | float | None] = {"rule": rule, "seed": seed if rule in SEEDED else None}
    return facts | ({"cold_share": cold_share} if rule == "cold-items" else {})


def count_hidden(interactions: pl.DataFrame, seed: int, cold_share: float) -> dict[str, int]:
    """Return the number of items that `cold-items` hides, and of their interactions, by what the manifest calls them.

    Args:
        interactions: of the dataset.
        seed: of the draw.
        cold_share: of the items that each held-out part gets.
    """
    counts = {}
    for part, items in zip(("validation", "the test"), hidden_items(interactions, seed, cold_share), strict=True):
        counts[f"items hidden for {part}"] = len(items)
        counts[f"interactions of items hidden for {part}"] = int(np.isin(interactions["item"].to_numpy(), items).sum())
    return counts


def resplit(dataset: Dataset, rule: str, seed: int, cold_share: float = COLD_SHARE) -> Dataset:
    """Return the dataset with another split; its folder stays as it is.

    Args:
        dataset: a prepared dataset.
        rule: one of RULES.
        seed: of the rules that draw, as `prepare` takes it.
        cold_share: of the items that `cold-items` hides for the test, and as many for validation; in (0, 0.5).

    Raises:
        InputError: there is no such rule, it needs times that are missing, or no item would be left to train on.
    """
    if rule not in RULES:
        raise InputError(f"there is no split {rule!r}; there are {', '.join(RULES)}")
    rows = dataset.interactions
    part = assign(rows, rule, seed, cold_share)
    interactions = rows.with_columns(split=pl.Series(part, dtype=pl.Int8))
    columns = [np.ascontiguousarray(rows[name].to_numpy()).tobytes() for name in ("user", "item")]
    content = digests.hash_bytes(b"".join([*columns, part.tobytes()]))
    steps = {name: count for name, count in dataset.manifest.get("steps", {}).items() if "hidden" not in name}
    manifest: dict[str, Any] = {
        **dataset.manifest,
        "split": split_facts(rule, seed, cold_share),
        "steps": steps | (count_hidden(rows, seed, cold_share) if rule == "cold-items" else {}),
        "files": {**dataset.manifest.get("files", {}), "interactions.parquet": content},
    }
    return replace(dataset, interactions=interactions, manifest=manifest)

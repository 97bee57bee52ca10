"""Split a prepared dataset anew, without its files: the same users, items and interactions, other parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from mllmrec.dataset import splits
from mllmrec.dataset.dataset import Dataset
from mllmrec.dataset.preparation import count_hidden, split_facts
from mllmrec.errors import InputError
from mllmrec.foundation import digests


def resplit(dataset: Dataset, rule: str, seed: int, cold_share: float = splits.COLD_SHARE) -> Dataset:
    """Return the dataset with another split; its folder stays as it is.

    Args:
        dataset: a prepared dataset.
        rule: one of splits.RULES.
        seed: of the rules that draw, as `prepare` takes it.
        cold_share: of the items that `cold-items` hides for the test, and as many for validation; in (0, 0.5).

    Raises:
        InputError: there is no such rule, it needs times that are missing, or no item would be left to train on.
    """
    if rule not in splits.RULES:
        raise InputError(f"there is no split {rule!r}; there are {', '.join(splits.RULES)}")
    rows = dataset.interactions
    part = splits.assign(rows, rule, seed, cold_share)
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

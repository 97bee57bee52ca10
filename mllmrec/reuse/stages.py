"""Make the artefacts of a run from those of an earlier one: only what is new or changed is made.

| stage | taken over | made |
|---|---|---|
| describe | descriptions of unchanged items | new and changed items |
| profile | profiles of users whose history is the same | new and changed users, against the whole new catalogue |
| encode | vectors whose text was taken over | the others; means of items are computed for all |
| graph | lists by vectors of unchanged items | rows of new ones; lists that a new one enters (graph/grow.py) |

A profile taken over was set against the earlier catalogue. Everything else is what a run from scratch would make.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.config import DescribeConfig, EncodeConfig, ProfileConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.dataset.growth import Growth
from mllmrec.features.encode import Cuts, Features, Vectors, encode_texts, mean_of_items
from mllmrec.foundation.progress import Progress
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.chat import HiddenProfiler
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.engine import Describer, Profiler
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reason.profile import Profiles, profile_users


@dataclass(frozen=True, slots=True)
class Making:
    """What the stages that generate are given.

    Attributes:
        cache: of generations.
        progress: called while a stage works.
        limits: limits and retries.
    """

    cache: GenerationCache
    progress: Progress
    limits: GenerationLimits


def grow_descriptions(
    earlier: Descriptions,
    growth: Growth,
    dataset: Dataset,
    config: DescribeConfig,
    engine: Describer,
    making: Making,
) -> Descriptions:
    """Return descriptions of every item, of which those of unchanged items are the earlier ones.

    Args:
        earlier: of the dataset before.
        growth: what is new.
        dataset: the grown one.
        config: of the stage.
        engine: of the descriptions.
        making: cache, progress and limits.
    """
    part = replace(dataset, items=dataset.items.filter(growth.items))
    made = describe_items(part, config, making.cache, making.progress, engine=engine, limits=making.limits)
    return Descriptions(_merge_rows(earlier.table, made.table, growth.items))


def grow_profiles(
    earlier: Profiles,
    growth: Growth,
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    config: ProfileConfig,
    engine: Profiler | HiddenProfiler | None,
    making: Making,
    parts: Path,
) -> Profiles:
    """Return profiles of every user, of which those of users with the same history are the earlier ones.

    Args:
        earlier: of the dataset before.
        growth: what is new.
        dataset: the grown one.
        histories: of the grown one.
        descriptions: of its items.
        config: of the stage.
        engine: of the profiles.
        making: cache, progress and limits.
        parts: folder for unfinished work.
    """
    changed = _only_users(histories, growth.users)
    made = profile_users(
        dataset,
        changed,
        descriptions,
        config,
        making.cache,
        making.progress,
        engine=engine,
        limits=making.limits,
        parts=parts,
    )
    table = _merge_rows(earlier.table, made.table.filter(growth.users), growth.users)
    vectors = made.vectors
    if vectors is not None and earlier.vectors is not None:
        vectors = _merge(earlier.vectors, vectors[growth.users], growth.users)
    return Profiles(table, histories.digest, histories.scope, vectors)


def grow_features(
    earlier: Features,
    growth: Growth,
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    profiles: Profiles,
    config: EncodeConfig,
    parts: Path,
    progress: Progress,
) -> Features:
    """Return vectors of every item and user, of which those of unchanged ones are the earlier ones.

    Args:
        earlier: of the dataset before.
        growth: what is new.
        dataset: the grown one.
        histories: those behind the profiles.
        descriptions: of its items.
        profiles: of its users.
        config: encoder and limits.
        parts: folder for finished shards.
        progress: called while texts are encoded.
    """
    profiles.check(histories)
    has_texts = profiles.vectors is None and any(profiles.texts)
    if config.features or not (growth.items.any() or (has_texts and growth.users.any())):
        made = None
    else:
        chosen = profiles.table.filter(growth.users)
        small = Histories(np.zeros(len(chosen) + 1, np.int64), np.empty(0, np.int32), None, 0, histories.scope)
        part = replace(dataset, items=dataset.items.filter(growth.items), users=dataset.users.filter(growth.users))
        small = replace(small, n_items=part.n_items)
        texts = Profiles(chosen, small.digest, small.scope)
        described = Descriptions(descriptions.table.filter(growth.items))
        made = encode_texts(part, small, described, texts, config, parts, progress)
    if made is None and config.features:
        return encode_texts(dataset, histories, descriptions, profiles, config, parts, progress)
    items = earlier.items if made is None else _merge(earlier.items, made.items, growth.items)
    if has_texts:
        users = earlier.users if made is None else _merge(earlier.users, made.users, growth.users)
    elif profiles.vectors is not None:
        users = _normalized(profiles.vectors)
    else:
        users = mean_of_items(items, histories)
    return Features(items, users, histories.digest, made.cuts if made else Cuts(0, 0, 0, 0))


def _normalized(vectors: Vectors) -> Vectors:
    from mllmrec.features.encode import normalize_rows

    return normalize_rows(vectors)


def _only_users(histories: Histories, chosen: NDArray[np.bool_]) -> Histories:
    """Return the histories with those of other users empty."""
    counts = np.where(chosen, np.diff(histories.indptr), 0)
    kept = np.repeat(chosen, np.diff(histories.indptr))
    return Histories(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)]),
        histories.items[kept],
        None if histories.times is None else histories.times[kept],
        histories.n_items,
        histories.scope,
    )


def _merge_rows(earlier: pl.DataFrame, made: pl.DataFrame, changed: NDArray[np.bool_]) -> pl.DataFrame:
    """Return a row for each of `changed` [n]: from `made` in order where it is set, else the earlier one."""
    order = _sources(len(earlier), changed)
    return pl.concat([earlier, made.select(earlier.columns)])[order]


def _merge(earlier: Vectors, made: Vectors, changed: NDArray[np.bool_]) -> Vectors:
    return np.ascontiguousarray(np.concatenate([earlier, made])[_sources(len(earlier), changed)])


def _sources(n_earlier: int, changed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where each row stands in the earlier rows with the made ones below."""
    rows = np.arange(len(changed))
    rows[changed] = n_earlier + np.arange(int(changed.sum()))
    return rows

"""Make the artefacts of a run from those of an earlier one: only what is new or changed is made.

| stage | taken over | made |
|---|---|---|
| describe | descriptions of unchanged items | new and changed items |
| profile | profiles of users whose history is the same | new and changed users, against the whole new catalogue |
| encode | vectors whose text was taken over | the others; means of items are computed for all |
| graph | lists by vectors of unchanged items | rows of new ones; lists that a new one enters (graph/neighbors.py) |
| train | of the ensemble, what belongs to other items and users, and all choices | see models/refit.py |
| recommend | of the ensemble, lists that no refitted item enters | see models/list_update.py |

A profile taken over was set against the earlier catalogue. Up to the graph, all else is as a run from scratch makes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.config import Config, DescribeConfig, EncodeConfig, ProfileConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.dataset.growth import Growth, compare
from mllmrec.errors import InputError, MismatchError
from mllmrec.features.encode import Cuts, Features, Vectors, center_states, encode_texts, mean_of_items
from mllmrec.foundation import digests, storage
from mllmrec.foundation.progress import Progress
from mllmrec.models import registry
from mllmrec.models.base import Recommender
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.engine import WITHOUT_TEXT, Describer, Profiler
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reason.history_prompts import HiddenProfiler
from mllmrec.reason.profile import Profiles, profile_users
from mllmrec.recommend import EarlierLists
from mllmrec.runs import Run
from mllmrec.runs.checks import check_vectors, sealed_file
from mllmrec.runs.record import Stage, read_seal

REUSED: tuple[Stage, ...] = ("describe", "profile", "encode", "graph", "train")
_LISTS: Stage = "recommend"  # brought up to date where the model keeps an earlier fit
_SAME = ("config", "engine", "encoder", "model", "seed")  # inputs of a stage that must be equal


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run of the dataset that this one's grew from.

    Attributes:
        run: finished up to its train stage.
        growth: what is new since.
        read: the item vectors, once they are read.
    """

    run: Run
    growth: Growth
    read: list[Vectors] = field(default_factory=list)

    def can_give(self, stage: Stage, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a stage was made with these settings, engine and seed, and its model can go on.

        Args:
            stage: its name.
            inputs: of the same stage of the run that goes on.
        """
        if stage not in (*REUSED, _LISTS) or not self.run.has(stage):
            return False
        begins = stage == "train" and not registry.find(inputs["model"]["kind"]).goes_on
        if begins or (stage == _LISTS and inputs["config"]["users"]):
            return False
        before = read_seal(self.run.folder, stage).inputs
        return all(digests.hash_value([before.get(key)]) == digests.hash_value([inputs.get(key)]) for key in _SAME)

    def item_vectors(self) -> Vectors:
        """Return the earlier vectors of the items alone, read once: the table of users may be far larger.

        Raises:
            InputError: the file is not the one that its stage wrote.
        """
        if not self.read:
            vectors = np.array(storage.read_array(sealed_file(self.run, "encode", "items.npy")))
            check_vectors("encode/items", vectors, self.growth.n_items)
            self.read.append(vectors)
        return self.read[0]

    def model(self) -> Recommender:
        """Return the earlier model, with the item vectors that it was fitted on."""
        model = self.run.fitted
        self.run.__dict__.pop("fitted")  # its tables end with the fit
        model.item_features = self.item_vectors()
        self.read.clear()
        return model

    def lists(self) -> EarlierLists:
        """Return the earlier lists of users; similar items are not read."""
        suffix = "parquet" if self.run.file(_LISTS, "recommendations.parquet").exists() else "jsonl"
        file = sealed_file(self.run, _LISTS, f"recommendations.{suffix}")
        return EarlierLists.load(file, self.run.dataset)

    def text_growth(self, descriptions: Descriptions, profiles: Profiles) -> Growth:
        """Return the items and users whose texts are not those that the earlier run encoded."""
        items = self.growth.items | _differ(self.run.descriptions.texts, descriptions.texts)
        return replace(self.growth, items=items, users=_differ(self.run.profiles.texts, profiles.texts))


def _differ(before: Sequence[str], now: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool [len(now)]: texts that are new, or others than before."""
    known = len(before)
    return np.array([n >= known or text != before[n] for n, text in enumerate(now)], bool)


def open_earlier(folder: Path, dataset: Dataset, config: Config) -> EarlierRun:
    """Open the run that another one goes on from.

    Args:
        folder: of the earlier run.
        dataset: of the run that goes on.
        config: of the run that goes on.

    Raises:
        InputError: the earlier run is not finished up to its train stage, or is no run.
        MismatchError: its dataset is not the one that `dataset` grew from, or one run is LEAKY and the other is not.
    """
    run = Run(folder)
    if run.leaky != config.leaky:
        raise MismatchError(
            f"{folder} is {'a LEAKY run' if run.leaky else 'leak-free'}, and this run is not; start anew"
        )
    for stage in REUSED:
        if not run.has(stage):
            raise InputError(f"{folder} has not finished {stage!r}; go on with {run.go_on}, or leave --from out")
    return EarlierRun(run, compare(run.dataset, dataset, config.profile.history))


@dataclass(frozen=True, slots=True)
class Generation:
    """Group the arguments of the stages that generate text.

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
    generation: Generation,
) -> Descriptions:
    """Return descriptions of every item; unchanged items keep the earlier ones.

    Args:
        earlier: of the dataset before.
        growth: what is new.
        dataset: the grown one.
        config: of the stage.
        engine: of the descriptions.
        generation: cache, progress and limits.
    """
    changed = _with_failed(growth.items, earlier.table)
    part = replace(dataset, items=dataset.items.filter(changed))
    later = describe_items(part, config, generation.cache, generation.progress, engine=engine, limits=generation.limits)
    return Descriptions(_merge_rows(earlier.table, later.table, changed))


def grow_profiles(
    earlier: Profiles,
    growth: Growth,
    dataset: Dataset,
    histories: Histories,
    descriptions: Descriptions,
    config: ProfileConfig,
    engine: Profiler | HiddenProfiler | None,
    generation: Generation,
    parts: Path,
) -> Profiles:
    """Return profiles of every user; users with the same history keep the earlier ones.

    Args:
        earlier: of the dataset before.
        growth: what is new.
        dataset: the grown one.
        histories: of the grown one.
        descriptions: of its items.
        config: of the stage.
        engine: of the profiles.
        generation: cache, progress and limits.
        parts: folder for unfinished work.
    """
    changed = _with_failed(growth.users, earlier.table)
    later = profile_users(
        dataset,
        _only_users(histories, changed),
        descriptions,
        config,
        generation.cache,
        generation.progress,
        engine=engine,
        limits=generation.limits,
        parts=parts,
    )
    table = _merge_rows(earlier.table, later.table.filter(changed), changed)
    vectors = later.vectors
    if vectors is not None and earlier.vectors is not None:
        vectors = _merge(earlier.vectors, vectors[changed], changed)
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
    """Return vectors of every item and user; unchanged ones keep the earlier vectors.

    Args:
        earlier: of the dataset before.
        growth: items and users whose texts are new or changed.
        dataset: the grown one.
        histories: those behind the profiles.
        descriptions: of its items.
        profiles: of its users.
        config: encoder and limits.
        parts: folder for finished shards.
        progress: called while texts are encoded.
    """
    profiles.check(histories)
    has_texts, later = profiles.vectors is None and any(profiles.texts), None
    if growth.items.any() or (has_texts and growth.users.any()):
        part = replace(dataset, items=dataset.items.filter(growth.items), users=dataset.users.filter(growth.users))
        nothing = np.zeros(len(part.users) + 1, np.int64), np.empty(0, np.int32)
        empty = Histories(*nothing, None, part.n_items, histories.scope)  # profiles are texts here, or means made below
        texts = Profiles(profiles.table.filter(growth.users), empty.digest, empty.scope)
        described = Descriptions(descriptions.table.filter(growth.items))
        later = encode_texts(part, empty, described, texts, config, parts, progress)
    items = earlier.items if later is None else _merge(earlier.items, later.items, growth.items)
    if profiles.vectors is not None:
        users = center_states(profiles.vectors)
    elif not has_texts:
        users = mean_of_items(items, histories)
    else:
        users = earlier.users if later is None else _merge(earlier.users, later.users, growth.users)
    return Features(items, users, histories.digest, later.cuts if later else Cuts(0, 0, 0, 0))


def _with_failed(changed: NDArray[np.bool_], earlier: pl.DataFrame) -> NDArray[np.bool_]:
    """Return what changed, and the rows whose earlier requests brought nothing to use: they are tried again."""
    again = changed.copy()
    again[: len(earlier)] |= earlier["status"].is_in(WITHOUT_TEXT).to_numpy()
    return again


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


def _merge_rows(earlier: pl.DataFrame, later: pl.DataFrame, changed: NDArray[np.bool_]) -> pl.DataFrame:
    """Return a row for each of `changed` [n]: from `later` in order if it is set, else the earlier one."""
    order = _sources(len(earlier), changed)
    return pl.concat([earlier, later.select(earlier.columns)])[order]


def _merge(earlier: Vectors, later: Vectors, changed: NDArray[np.bool_]) -> Vectors:
    return np.ascontiguousarray(np.concatenate([earlier, later])[_sources(len(earlier), changed)])


def _sources(n_earlier: int, changed: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return where each row stands in the earlier rows with the later ones below."""
    rows = np.arange(len(changed))
    rows[changed] = n_earlier + np.arange(int(changed.sum()))
    return rows

"""Plan the requests of a run before anything is generated: counts, tokens, seconds, memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.config import Config
from mllmrec.dataset import Dataset, Histories
from mllmrec.reason import describe, profile
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Answer, Material
from mllmrec.reason.history_prompts import HiddenProfiler
from mllmrec.reason.prompts import PromptStage
from mllmrec.reason.requests import Engines
from mllmrec.reason.token_budget import Measure

_TOKENS_PER_WORD = 1.5  # of an answer that is not there yet
_PLANNED = 20_000  # users whose requests are counted; of more, so many spread evenly stand for all
_TOKENS_PER_PICTURE = 256  # of a 448 x 448 picture in most current families


@dataclass(frozen=True, slots=True)
class StagePlan:
    """The requests of one stage, before anything is generated.

    Attributes:
        stage: "describe" or "profile".
        total: items or users that the stage has requests for.
        calls: requests that no cached answer covers, equal ones counted once; retries come on top.
        cached: distinct requests that the cache answers.
        prompt_tokens: of the calls, estimated by length, pictures included.
        new_tokens: of the calls, at most.
        seconds: that the calls would take by earlier answers of this engine, else by a small model's timed speed; None
            if neither is known.
        memory: bytes of weights and a full batch, None if no model is loaded here.
        note: why the figures are uncertain; empty if they are not.
    """

    stage: PromptStage
    total: int
    calls: int
    cached: int
    prompt_tokens: int
    new_tokens: int
    seconds: float | None
    memory: int | None
    note: str = ""


def plan_requests(
    dataset: Dataset, config: Config, cache: GenerationCache, stages: Sequence[PromptStage]
) -> list[StagePlan]:
    """Plan the requests of each of the stages.

    Args:
        dataset: the catalogue and its histories.
        config: of the whole run.
        cache: of generations, which is only read.
        stages: "describe", "profile", or both.

    Raises:
        ConfigError, EngineError: an engine could not even start.
    """
    engines = Engines(config, dataset)
    described, answers = _plan_describe(dataset, config, cache, engines)
    plans = {"describe": described}
    if "profile" in stages:
        plans["profile"] = _plan_profile(dataset, config, cache, engines, answers)
    return [plans[stage] for stage in stages]


def _plan_describe(
    dataset: Dataset, config: Config, cache: GenerationCache, engines: Engines
) -> tuple[StagePlan, list[Answer | None]]:
    engine, stage = engines.describer, config.describe
    pictured = _has_pictures(dataset) & stage.images
    items = catalogue(replace(dataset, items=dataset.items.filter(pl.Series(pictured))))
    keys = describe.keys_of(engine, items)
    held = cache.get(dict.fromkeys(keys))
    open_items = {key: item for key, item in zip(keys, items, strict=True) if key not in held}
    pictures = sum(len(engine.pictures(item)) for item in open_items.values())
    prompts = sum(_tokens(engine.material(item), engines.measure("describe")) for item in open_items.values())
    generates = stage.engine != "extractive"
    plan = StagePlan(
        stage="describe",
        total=len(items),
        calls=len(open_items),
        cached=len(held),
        prompt_tokens=prompts + pictures * _TOKENS_PER_PICTURE if generates else 0,
        new_tokens=len(open_items) * engines.new_tokens("describe") if generates else 0,
        seconds=_seconds(cache, describe.LABEL, engine.fingerprint, len(open_items)),
        memory=engines.memory("describe"),
        note=engines.note("describe"),
    )
    known: list[Answer | None] = [Answer("", "text-only")] * dataset.n_items
    for item, key in zip(np.flatnonzero(pictured), keys, strict=True):
        known[item] = held.get(key)
    return plan, known


def _has_pictures(dataset: Dataset) -> NDArray[np.bool_]:
    return dataset.items["images"].list.len().fill_null(0).to_numpy() > 0


def _plan_profile(
    dataset: Dataset, config: Config, cache: GenerationCache, engines: Engines, answers: Sequence[Answer | None]
) -> StagePlan:
    stage = config.profile
    if stage.kind == "mean":
        rows = dataset.interactions if stage.history == "all" else dataset.interactions.filter(pl.col("split") == 0)
        return StagePlan("profile", rows["user"].n_unique(), 0, 0, 0, 0, 0.0, None, "users are the mean of their items")
    histories = dataset.histories(stage.history)
    filled = np.flatnonzero(np.diff(histories.indptr))
    users = filled if len(filled) <= _PLANNED else filled[np.linspace(0, len(filled) - 1, _PLANNED).astype(np.int64)]
    plan = _plan_histories(_only(histories, users), config, cache, engines, answers)
    return plan if len(users) == len(filled) else _scaled(plan, len(filled))


def _only(histories: Histories, users: NDArray[np.int64]) -> Histories:
    """Return the histories of some users, int64 [B], alone."""
    lengths = np.diff(histories.indptr)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths[users])])
    chosen = np.zeros(histories.n_users, bool)
    chosen[users] = True
    kept, times = np.repeat(chosen, lengths), histories.times
    return replace(histories, indptr=indptr, items=histories.items[kept], times=None if times is None else times[kept])


def _scaled(plan: StagePlan, total: int) -> StagePlan:
    """Return what a plan says of its users as an estimate for `total`."""
    share = plan.total / total
    counts = {name: round(getattr(plan, name) / share) for name in ("calls", "cached", "prompt_tokens", "new_tokens")}
    seconds = None if plan.seconds is None else plan.seconds / share
    note = "; ".join(text for text in (plan.note, f"estimated from {plan.total:,} of {total:,} users") if text)
    return replace(plan, total=total, seconds=seconds, note=note, **counts)


def _plan_histories(
    histories: Histories, config: Config, cache: GenerationCache, engines: Engines, answers: Sequence[Answer | None]
) -> StagePlan:
    """Return the plan of profiles from texts or hidden states.

    Args:
        histories: of the users to plan for.
        config: of the whole run.
        cache: of generations, which is only read.
        engines: of the run.
        answers: of each item's description; None: it is not there yet.
    """
    stage = config.profile
    placeholder = "x" * int(stage.words * _TOKENS_PER_WORD * 3)  # for a description that is not there yet
    texts = [placeholder if answer is None else answer.text for answer in answers]
    described = Descriptions(pl.DataFrame({"description": texts}))
    filled = [history for history in profile.newest_items(histories, described, stage.max_items) if history]
    engine = engines.profiler(described)
    if isinstance(engine, HiddenProfiler):
        distinct = dict.fromkeys(engine.request(history) for history in filled)
        measure = engines.measure("profile")
        tokens = sum(measure.count(request.text) for request in distinct)
        seconds, memory = _predicted(engines, "profile", tokens, 0), engines.memory("profile")
        return StagePlan("profile", len(filled), len(distinct), 0, tokens, 0, seconds, memory, "prefill only")
    keys = profile.keys_of(engine, filled)
    held = cache.get(dict.fromkeys(keys))
    open_users = {key: history for key, history in zip(keys, filled, strict=True) if key not in held}
    generates = stage.engine != "extractive"
    prompts = (
        sum(_tokens(engine.material(h), engines.measure("profile")) for h in open_users.values()) if generates else 0
    )
    seconds = _seconds(cache, profile.LABEL, engine.fingerprint, len(open_users))
    if seconds is None:
        seconds = _predicted(engines, "profile", prompts, len(open_users) * engines.new_tokens("profile"))
    missing = f"{answers.count(None):,} descriptions are not there yet" if None in answers else ""
    return StagePlan(
        stage="profile",
        total=len(filled),
        calls=len(open_users),
        cached=len(held),
        prompt_tokens=prompts,
        new_tokens=len(open_users) * engines.new_tokens("profile") if generates else 0,
        seconds=seconds,
        memory=engines.memory("profile"),
        note="; ".join(note for note in (missing, engines.note("profile")) if note),
    )


def _tokens(material: Material, measure: Measure) -> int:
    return sum(measure.count(str(material.get(part, ""))) for part in ("system", "text"))


def _predicted(engines: Engines, stage: PromptStage, prompts: int, new: int) -> float | None:
    """Predict the time of calls by the speed of a small model on this machine; None if it is not timed.

    An answer is taken to use half of its new tokens.
    """
    speed = engines.speed(stage)
    return None if speed is None else prompts / speed.prompt + new / 2 / speed.answer


def _seconds(cache: GenerationCache, label: str, engine: str, calls: int) -> float | None:
    """Estimate the time by the same engine's earlier answers; None if there are none."""
    if not calls:
        return 0.0
    for held in cache.holdings():
        if (held.question, held.engine) == (label, engine) and held.seconds:
            return calls * held.seconds / held.rows
    return None

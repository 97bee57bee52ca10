"""What describe and profile would ask, before anything is asked: calls, tokens, cache hits, time and memory.

Nothing is loaded and nothing generated. Tokens are estimates by length; the time is known once the engine has
answered something on this machine, for the cache notes how long answers took.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.reason import describe, profile
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Answer
from mllmrec.reason.hidden import HiddenProfiler
from mllmrec.reason.prompts import Ask
from mllmrec.reason.quote import estimate_tokens
from mllmrec.reason.select import Engines

_TOKENS_PER_WORD = 1.5  # of an answer that is not there yet
_TOKENS_PER_PICTURE = 256  # of a 448 x 448 picture in most current families


@dataclass(frozen=True, slots=True)
class StagePlan:
    """What one stage would do.

    Attributes:
        stage: "describe" or "profile".
        asked_of: items or users that have something to ask about.
        calls: requests that no cached answer covers, equal ones counted once; retries come on top.
        cached: distinct requests that the cache answers.
        prompt_tokens: of the calls, estimated, pictures included.
        new_tokens: of the calls, at most.
        seconds: that they would take, None where this engine has not answered yet.
        memory: bytes of weights and a full batch, None where no model is loaded here.
        note: what makes the figures uncertain; empty where nothing does.
    """

    stage: Ask
    asked_of: int
    calls: int
    cached: int
    prompt_tokens: int
    new_tokens: int
    seconds: float | None
    memory: int | None
    note: str = ""


def plan(dataset: Dataset, config: Config, cache: GenerationCache, stages: Sequence[Ask]) -> list[StagePlan]:
    """What each of the stages would ask.

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
    items = catalogue(dataset, images=stage.images)
    keys = describe.keys_of(engine, items)
    held = cache.get(dict.fromkeys(keys))
    open_items = {key: item for key, item in zip(keys, items, strict=True) if key not in held and item.images}
    pictures = sum(len(engine.pictures(item)) for item in open_items.values())
    prompts = sum(_tokens(engine.material(item)) for item in open_items.values())
    asks = stage.engine != "extractive"
    plan = StagePlan(
        stage="describe",
        asked_of=sum(bool(item.images) for item in items),
        calls=len(open_items),
        cached=len(held),
        prompt_tokens=prompts + pictures * _TOKENS_PER_PICTURE if asks else 0,
        new_tokens=len(open_items) * stage.max_new_tokens if asks else 0,
        seconds=_seconds(cache, describe.LABEL, engine.fingerprint, len(open_items)),
        memory=engines.memory("describe"),
    )
    known = [held.get(key) if item.images else Answer("", "text-only") for key, item in zip(keys, items, strict=True)]
    return plan, known


def _plan_profile(
    dataset: Dataset, config: Config, cache: GenerationCache, engines: Engines, answers: Sequence[Answer | None]
) -> StagePlan:
    stage = config.profile
    histories = dataset.histories(stage.history)
    standing = "x" * int(stage.words * _TOKENS_PER_WORD * 3)  # in the place of a description that is not there yet
    texts = [standing if answer is None else answer.text for answer in answers]
    described = Descriptions(pl.DataFrame({"description": texts}))
    told = [history for history in profile.tell(histories, described, stage.max_items) if history]
    if stage.kind == "mean":
        return StagePlan("profile", len(told), 0, 0, 0, 0, 0.0, None, "users are the mean of their items")
    engine = engines.profiler(described)
    if isinstance(engine, HiddenProfiler):
        distinct = dict.fromkeys(engine.request(history) for history in told)
        tokens = sum(estimate_tokens(request.text) for request in distinct)
        return StagePlan(
            "profile", len(told), len(distinct), 0, tokens, 0, None, engines.memory("profile"), "prefill only"
        )
    keys = profile.keys_of(engine, told)
    held = cache.get(dict.fromkeys(keys))
    open_users = {key: history for key, history in zip(keys, told, strict=True) if key not in held}
    asks = stage.engine != "extractive"
    return StagePlan(
        stage="profile",
        asked_of=len(told),
        calls=len(open_users),
        cached=len(held),
        prompt_tokens=sum(_tokens(engine.material(h)) for h in open_users.values()) if asks else 0,
        new_tokens=len(open_users) * stage.max_new_tokens if asks else 0,
        seconds=_seconds(cache, profile.LABEL, engine.fingerprint, len(open_users)),
        memory=engines.memory("profile"),
        note=f"{answers.count(None):,} descriptions are not there yet" if None in answers else "",
    )


def _tokens(material: Mapping[str, Any]) -> int:
    return sum(estimate_tokens(str(material.get(part, ""))) for part in ("system", "text"))


def _seconds(cache: GenerationCache, label: str, engine: str, calls: int) -> float | None:
    """By what the same engine took before; None where it never answered."""
    if not calls:
        return 0.0
    for held in cache.holdings():
        if (held.ask, held.engine) == (label, engine) and held.seconds:
            return calls * held.seconds / held.rows
    return None

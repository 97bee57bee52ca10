"""Choose the engines of a run, and plan their requests before anything is generated.

`Engines` is the one place that knows all engines; a new one adds its constructor to `chat_model`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import polars as pl

from mllmrec.config import Config, DescribeConfig, ProfileConfig
from mllmrec.dataset import Dataset
from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import ConfigError
from mllmrec.foundation.extras import require_extra
from mllmrec.reason import describe, profile
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.chat import ChatDescriber, ChatProfiler, HiddenProfiler, HistoryLimits, HistoryPrompts, RetryingChat
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Answer, ChatModel, Describer, Material, Profiler, StatesModel
from mllmrec.reason.engines.extractive import PROFILE_VERSION, ExtractiveDescriber, ExtractiveProfiler
from mllmrec.reason.engines.transformers import TransformersChat, TransformersModel
from mllmrec.reason.engines.transformers_processor import thinks
from mllmrec.reason.prompts import PromptStage, Template, category_of, load_template, neutralize
from mllmrec.reason.token_budget import estimate_tokens

_TOKENS_PER_WORD = 1.5  # of an answer that is not there yet
_TOKENS_PER_PICTURE = 256  # of a 448 x 448 picture in most current families
_TEXT_ONLY = 'profile.kind = "hidden" reads a model\'s states; set profile.engine=transformers'


class Engines:
    """The engines of a run, built when they are first needed; nothing heavy is loaded before it has to answer.

    Args:
        config: of the whole run.
        dataset: whose catalogue fills the templates.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self._config, self._dataset = config, dataset
        self._models: dict[str, TransformersModel] = {}

    @cached_property
    def describer(self) -> Describer:
        """Return the engine of the describe stage.

        Raises:
            ConfigError: the engine has no model, or the template does not fit.
            EngineError: the engine's model or packages are not there.
        """
        stage = self._config.describe
        if stage.engine == "extractive":
            return ExtractiveDescriber()
        chat = self._chat(stage, self.template("describe"), stage.model)
        return ChatDescriber(chat, item_tokens=stage.item_tokens, max_images=stage.max_images)

    def profiler(self, descriptions: Descriptions) -> Profiler | HiddenProfiler:
        """Return the engine of the profile stage; of kind "hidden", one whose states are read.

        Raises:
            ConfigError, EngineError: as for `describer`.
        """
        stage = self._config.profile
        items = catalogue(self._dataset)
        if stage.engine == "extractive":
            if stage.kind == "hidden":
                raise ConfigError(_TEXT_ONLY)
            return ExtractiveProfiler(items, descriptions.texts, terms=stage.terms)
        chat = self._chat(stage, self.template("profile"), self._profile_model)
        limits = HistoryLimits(stage.max_tokens, stage.item_tokens, stage.recency)
        prompts = HistoryPrompts(items, chat.template, chat.values, limits)
        if stage.kind == "hidden":
            return HiddenProfiler(_states_of(chat.model), prompts)
        return ChatProfiler(chat, prompts)

    @property
    def profile_fingerprint(self) -> str:
        """Return what shapes a profile stage, without the catalogue's texts, which its inputs hold already."""
        stage = self._config.profile
        if stage.engine == "extractive" or stage.kind == "mean":
            return PROFILE_VERSION
        chat = self._chat(stage, self.template("profile"), self._profile_model)
        if stage.kind == "hidden":
            return f"hidden {_states_of(chat.model).states_fingerprint} {chat.template.digest} {dict(chat.values)}"
        return f"{chat.fingerprint} {dict(chat.values)}"

    @property
    def describe_fingerprint(self) -> str:
        """Return what shapes a describe stage."""
        return self.describer.fingerprint

    def template(self, stage: PromptStage) -> Template:
        """Return the stage's template."""
        settings = self._config.describe if stage == "describe" else self._config.profile
        return load_template(settings.template, stage)

    @property
    def _profile_model(self) -> str:
        return self._config.profile.model or self._config.describe.model

    def _chat(self, stage: DescribeConfig | ProfileConfig, template: Template, model: str) -> RetryingChat:
        if not model:
            raise ConfigError(
                f'engine "{stage.engine}" needs a model: set describe.model to a Hugging Face name or a folder'
            )
        category = neutralize(stage.category) or category_of(self._dataset)
        values = {"category": category, "words": str(stage.words)}
        return RetryingChat(self.chat_model(stage, model), template, values, stage.retries)

    def chat_model(self, stage: DescribeConfig | ProfileConfig, model: str) -> ChatModel:
        """Return the engine of a stage over a model of that name."""
        if stage.engine == "transformers":
            require_extra("transformers", "vlm", 'engine = "transformers"')
            weights = self.weights(model)
            return TransformersChat(weights, max_new_tokens=stage.max_new_tokens, seed=self._config.seed)
        require_extra("httpx", "web", 'engine = "openai"')
        from mllmrec.reason.engines.openai import ChatServer

        return ChatServer(server_config(self._config, stage, model))

    def weights(self, model: str) -> TransformersModel:
        """Return the model of that name, one for all stages."""
        if model not in self._models:
            self._models[model] = TransformersModel(model, self._config.transformers)
        return self._models[model]

    def memory(self, stage: PromptStage) -> int | None:
        """Estimate the bytes of a stage's weights and a full batch; None where no model is loaded here."""
        settings, model = (
            (self._config.describe, self._config.describe.model)
            if stage == "describe"
            else (self._config.profile, self._profile_model)
        )
        return self.weights(model).memory(settings.max_new_tokens) if settings.engine == "transformers" else None

    def note(self, stage: PromptStage) -> str:
        """Return what makes a stage's tokens more than its answers: the thoughts of its model; empty where none."""
        model = self._config.describe.model if stage == "describe" else self._profile_model
        if self.memory(stage) is None or not thinks(self.weights(model).folder):
            return ""
        return f"the model may think before it answers; thoughts count against {stage}.max_new_tokens"

    def release(self) -> None:
        """Let go of loaded weights: later stages want the memory."""
        self._models.clear()
        self.__dict__.pop("describer", None)


def server_config(config: Config, stage: DescribeConfig | ProfileConfig, model: str) -> ChatServerConfig:
    """Return the run's server with what a stage adds.

    Args:
        config: of the whole run.
        stage: describe or profile.
        model: as the server calls it.
    """
    return ChatServerConfig(
        **config.server.model_dump(), model=model, max_tokens=stage.max_new_tokens, seed=config.seed
    )


def _states_of(model: ChatModel) -> StatesModel:
    if not isinstance(model, TransformersChat):
        raise ConfigError(_TEXT_ONLY)
    return model


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
        seconds: that the calls would take by earlier answers of this engine, None where there are none.
        memory: bytes of weights and a full batch, None where no model is loaded here.
        note: why the figures are uncertain; empty where they are not.
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
    items = catalogue(dataset, images=stage.images)
    keys = describe.keys_of(engine, items)
    held = cache.get(dict.fromkeys(keys))
    open_items = {key: item for key, item in zip(keys, items, strict=True) if key not in held and item.images}
    pictures = sum(len(engine.pictures(item)) for item in open_items.values())
    prompts = sum(_tokens(engine.material(item)) for item in open_items.values())
    generates = stage.engine != "extractive"
    plan = StagePlan(
        stage="describe",
        total=sum(bool(item.images) for item in items),
        calls=len(open_items),
        cached=len(held),
        prompt_tokens=prompts + pictures * _TOKENS_PER_PICTURE if generates else 0,
        new_tokens=len(open_items) * stage.max_new_tokens if generates else 0,
        seconds=_seconds(cache, describe.LABEL, engine.fingerprint, len(open_items)),
        memory=engines.memory("describe"),
        note=engines.note("describe"),
    )
    known = [held.get(key) if item.images else Answer("", "text-only") for key, item in zip(keys, items, strict=True)]
    return plan, known


def _plan_profile(
    dataset: Dataset, config: Config, cache: GenerationCache, engines: Engines, answers: Sequence[Answer | None]
) -> StagePlan:
    stage = config.profile
    histories = dataset.histories(stage.history)
    placeholder = "x" * int(stage.words * _TOKENS_PER_WORD * 3)  # for a description that is not there yet
    texts = [placeholder if answer is None else answer.text for answer in answers]
    described = Descriptions(pl.DataFrame({"description": texts}))
    filled = [history for history in profile.newest_items(histories, described, stage.max_items) if history]
    if stage.kind == "mean":
        return StagePlan("profile", len(filled), 0, 0, 0, 0, 0.0, None, "users are the mean of their items")
    engine = engines.profiler(described)
    if isinstance(engine, HiddenProfiler):
        distinct = dict.fromkeys(engine.request(history) for history in filled)
        tokens = sum(estimate_tokens(request.text) for request in distinct)
        memory = engines.memory("profile")
        return StagePlan("profile", len(filled), len(distinct), 0, tokens, 0, None, memory, "prefill only")
    keys = profile.keys_of(engine, filled)
    held = cache.get(dict.fromkeys(keys))
    open_users = {key: history for key, history in zip(keys, filled, strict=True) if key not in held}
    generates = stage.engine != "extractive"
    missing = f"{answers.count(None):,} descriptions are not there yet" if None in answers else ""
    return StagePlan(
        stage="profile",
        total=len(filled),
        calls=len(open_users),
        cached=len(held),
        prompt_tokens=sum(_tokens(engine.material(h)) for h in open_users.values()) if generates else 0,
        new_tokens=len(open_users) * stage.max_new_tokens if generates else 0,
        seconds=_seconds(cache, profile.LABEL, engine.fingerprint, len(open_users)),
        memory=engines.memory("profile"),
        note="; ".join(note for note in (missing, engines.note("profile")) if note),
    )


def _tokens(material: Material) -> int:
    return sum(estimate_tokens(str(material.get(part, ""))) for part in ("system", "text"))


def _seconds(cache: GenerationCache, label: str, engine: str, calls: int) -> float | None:
    """Estimate the time by the same engine's earlier answers; None where there are none."""
    if not calls:
        return 0.0
    for held in cache.holdings():
        if (held.question, held.engine) == (label, engine) and held.seconds:
            return calls * held.seconds / held.rows
    return None

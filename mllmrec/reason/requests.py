"""Choose the engines of a run.

`Engines` is the one place that knows all engines; a new one adds its constructor to `chat_model`.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import TypeVar, cast

from mllmrec.config import Config, DescribeConfig, ProfileConfig
from mllmrec.dataset import Dataset
from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import ConfigError, EngineError, require_extra
from mllmrec.reason.chat import ChatDescriber, ChatProfiler, RetryingChat
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import ChatModel, Describer, Profiler, Readout, StatesModel
from mllmrec.reason.engines.extractive import PROFILE_VERSION, ExtractiveDescriber, ExtractiveProfiler
from mllmrec.reason.engines.local_model import TransformersModel
from mllmrec.reason.engines.speed import Speed, speed_of
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.engines.transformers_model import sees_pictures
from mllmrec.reason.engines.transformers_processor import thinks
from mllmrec.reason.history_facts import HistoryFacts
from mllmrec.reason.history_prompts import HiddenProfiler, HistoryPrompts, states_fingerprint
from mllmrec.reason.prompt_limits import history_limits
from mllmrec.reason.prompts import (
    ESTIMATE,
    PromptStage,
    Template,
    load_template,
    neutralize,
    standard_template,
)
from mllmrec.reason.token_budget import Measure, shorten

Stage = TypeVar("Stage", bound=DescribeConfig | ProfileConfig)
_CATEGORY_TOKENS = 24
_COMMON = 0.5  # a category that this share of the items has names the whole shop
_LISTED = 3  # categories that name a shop without such a one
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
        if stage.engine == "transformers" and stage.images:
            self._check_eyes(stage.model)
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
        limits = history_limits(_limited(stage, chat.template), chat.template, self._local("profile"))
        facts = HistoryFacts(items, descriptions.texts, chat.measure) if chat.template.layout == "facts" else None
        prompts = HistoryPrompts(items, chat.template, chat.values, limits, chat.measure, facts)
        if stage.kind == "hidden":
            model, readout = self._states(chat.model)
            return HiddenProfiler(model, prompts, readout)
        return ChatProfiler(chat, prompts)

    @property
    def profile_fingerprint(self) -> str:
        """Return what shapes a profile stage, without the catalogue's texts, which its inputs hold already."""
        stage = self._config.profile
        if stage.engine == "extractive" or stage.kind == "mean":
            return PROFILE_VERSION
        chat = self._chat(stage, self.template("profile"), self._profile_model)
        if stage.kind == "hidden":
            return f"{states_fingerprint(*self._states(chat.model))} {chat.template.digest} {dict(chat.values)}"
        return f"{chat.fingerprint} {dict(chat.values)}"

    @property
    def describe_fingerprint(self) -> str:
        """Return what shapes a describe stage."""
        return self.describer.fingerprint

    def template(self, stage: PromptStage) -> Template:
        """Return the stage's template."""
        if stage == "describe":
            return load_template(self._config.describe.template, stage)
        model = self._local("profile")
        name = standard_template(self._config.profile.template, small=model is not None and model.is_small)
        return load_template(name, stage)

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
        measure = self.measure("describe" if isinstance(stage, DescribeConfig) else "profile")
        return RetryingChat(self.chat_model(_limited(stage, template), model), template, values, stage.retries, measure)

    def chat_model(self, stage: DescribeConfig | ProfileConfig, model: str) -> ChatModel:
        """Return the engine of a stage over a model of that name."""
        if stage.engine == "transformers":
            weights = self.weights(model)
            return TransformersChat(weights, max_new_tokens=stage.max_new_tokens, seed=self._config.seed)
        require_extra("httpx", "web", 'engine = "openai"')
        from mllmrec.reason.engines.openai import ChatServer

        return ChatServer(server_config(self._config, stage, model))

    def _states(self, model: ChatModel) -> tuple[StatesModel, Readout]:
        """Return the model of a profile stage of kind "hidden", and what of its states is read."""
        if not isinstance(model, TransformersChat):
            raise ConfigError(_TEXT_ONLY)
        layer, depth = self._config.profile.layer, model.depth
        if layer > depth:
            raise ConfigError(f"profile.layer = {layer}, but the model has {depth} layers; -1 is the last")
        return model, Readout(layer, self._config.profile.pooling)

    def weights(self, model: str) -> TransformersModel:
        """Return the model of that name, one for all stages."""
        if model not in self._models:
            require_extra("transformers", "vlm", 'engine = "transformers"')
            self._models[model] = TransformersModel(model, self._config.transformers)
        return self._models[model]

    def _check_eyes(self, model: str) -> None:
        """Refuse pictures for a model that reads only text, before the first request."""
        count, local = sum(bool(item.images) for item in catalogue(self._dataset)), self._local("describe")
        if count and local and not sees_pictures(local.settings):
            raise EngineError(
                f"the model {model!r} reads no pictures, and {count:,} items have some; set describe.images=false, "
                "describe.engine=extractive, or describe.model to one that does"
            )

    def memory(self, stage: PromptStage) -> int | None:
        """Estimate the bytes of a stage's weights and a full batch; None if no model is loaded here."""
        settings = self._config.describe if stage == "describe" else self._config.profile
        model = self._local(stage)
        return model.memory(settings.max_new_tokens) if model else None

    def new_tokens(self, stage: PromptStage) -> int:
        """Return the new tokens that an answer of a stage may have."""
        settings = self._config.describe if stage == "describe" else self._config.profile
        return _limited(settings, self.template(stage)).max_new_tokens

    def measure(self, stage: PromptStage) -> Measure:
        """Return the measure of a stage's prompts: its model's tokenizer, or an estimate."""
        model = self._local(stage)
        return model.measure if model else ESTIMATE

    def speed(self, stage: PromptStage) -> Speed | None:
        """Return the speed of a stage's model on this machine; None if it is not small, or not timed."""
        model = self._local(stage)
        return speed_of(model) if model and model.is_small else None

    def _local(self, stage: PromptStage) -> TransformersModel | None:
        """Return the model of this process that a stage uses, None if it uses another engine."""
        settings, model = (
            (self._config.describe, self._config.describe.model)
            if stage == "describe"
            else (self._config.profile, self._profile_model)
        )
        return self.weights(model) if settings.engine == "transformers" and model else None

    def note(self, stage: PromptStage) -> str:
        """Return what makes a stage's tokens more than its answers: the thoughts of its model; empty if none."""
        model = self._local(stage)
        if model is None or not thinks(model.folder):
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


def _limited(stage: Stage, template: Template) -> Stage:
    """Return the settings of a stage, with the limit of new tokens that its template sets."""
    most = min(stage.max_new_tokens, template.tokens or stage.max_new_tokens)
    return cast("Stage", stage.model_copy(update={"max_new_tokens": most}))


def category_of(dataset: Dataset) -> str:
    """Return what a shop sells, in its own words.

    That is the category of at least half of the items, else the three commonest first categories, else the
    dataset's name.
    """
    paths = [path or [] for path in dataset.items["categories"].to_list()]
    counts = Counter(name for path in paths for name in dict.fromkeys(path))
    common = sorted((-count, name) for name, count in counts.items() if count >= _COMMON * len(paths))
    first = Counter(path[0] for path in paths if path)
    listed = ", ".join(name for _, name in sorted((-count, name) for name, count in first.items())[:_LISTED])
    return shorten(neutralize(common[0][1] if common else listed or dataset.name), _CATEGORY_TOKENS)

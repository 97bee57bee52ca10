"""Which engine answers: the one place that knows them all. A new engine adds its constructor to `chat_model`."""

from __future__ import annotations

from functools import cached_property

from mllmrec.config import Config, DescribeConfig, ProfileConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError
from mllmrec.reason.asking import Asker
from mllmrec.reason.chat import ChatModel
from mllmrec.reason.chat_describer import ChatDescriber
from mllmrec.reason.chat_profiler import ChatProfiler, HistoryLimits, HistoryPrompts
from mllmrec.reason.describe import Descriptions, catalogue
from mllmrec.reason.engine import Describer, Profiler
from mllmrec.reason.engines import extractive_profile
from mllmrec.reason.engines.extractive import ExtractiveDescriber
from mllmrec.reason.engines.extractive_profile import ExtractiveProfiler
from mllmrec.reason.engines.openai import ChatServer
from mllmrec.reason.engines.openai_config import ChatServerConfig
from mllmrec.reason.engines.transformers import TransformersChat, TransformersModel
from mllmrec.reason.hidden import HiddenProfiler, StatesModel
from mllmrec.reason.prompts import Ask, Template, category_of, load_template
from mllmrec.reason.quote import neutralise


class Engines:
    """The engines of a run, made when they are first asked for; nothing heavy is loaded before it has to answer.

    Args:
        config: of the whole run.
        dataset: whose catalogue fills the templates.
    """

    def __init__(self, config: Config, dataset: Dataset) -> None:
        self._config, self._dataset = config, dataset
        self._models: dict[str, TransformersModel] = {}

    @cached_property
    def describer(self) -> Describer:
        """Who describes.

        Raises:
            ConfigError: the engine has no model, or the template does not fit.
            EngineError: the engine's model or packages are not there.
        """
        stage = self._config.describe
        if stage.engine == "extractive":
            return ExtractiveDescriber()
        asker = self._asker(stage, self.template("describe"), stage.model)
        return ChatDescriber(asker, item_tokens=stage.item_tokens, max_images=stage.max_images)

    def profiler(self, descriptions: Descriptions) -> Profiler | HiddenProfiler:
        """Who profiles; of kind "hidden", whose states are read.

        Raises:
            ConfigError, EngineError: as for `describer`.
        """
        stage = self._config.profile
        items = catalogue(self._dataset)
        if stage.engine == "extractive":
            if stage.kind == "hidden":
                raise ConfigError('profile.kind = "hidden" reads a model\'s states; set profile.engine=transformers')
            return ExtractiveProfiler(items, descriptions.texts, terms=stage.terms)
        asker = self._asker(stage, self.template("profile"), self._profile_model)
        limits = HistoryLimits(stage.max_tokens, stage.item_tokens, stage.recency)
        prompts = HistoryPrompts(items, asker.template, asker.values, limits)
        if stage.kind == "hidden":
            return HiddenProfiler(_states_of(asker.model), prompts)
        return ChatProfiler(asker, prompts)

    @property
    def profile_fingerprint(self) -> str:
        """What a profile stage is made by, without the catalogue's texts, which its inputs hold already."""
        stage = self._config.profile
        if stage.engine == "extractive" or stage.kind == "mean":
            return extractive_profile.VERSION
        asker = self._asker(stage, self.template("profile"), self._profile_model)
        if stage.kind == "hidden":
            return f"hidden {_states_of(asker.model).states_fingerprint} {asker.template.digest} {dict(asker.values)}"
        return f"{asker.fingerprint} {dict(asker.values)}"

    @property
    def describe_fingerprint(self) -> str:
        """What a describe stage is made by."""
        return self.describer.fingerprint

    def template(self, ask: Ask) -> Template:
        """The stage's template."""
        stage = self._config.describe if ask == "describe" else self._config.profile
        return load_template(stage.template, ask)

    @property
    def _profile_model(self) -> str:
        return self._config.profile.model or self._config.describe.model

    def _asker(self, stage: DescribeConfig | ProfileConfig, template: Template, model: str) -> Asker:
        if not model:
            raise ConfigError(
                f'engine "{stage.engine}" needs a model: set describe.model to a Hugging Face name or a folder'
            )
        category = neutralise(stage.category) or category_of(self._dataset)
        values = {"category": category, "words": str(stage.words)}
        return Asker(self.chat_model(stage, model), template, values, stage.retries)

    def chat_model(self, stage: DescribeConfig | ProfileConfig, model: str) -> ChatModel:
        """The engine of a stage over a model of that name."""
        if stage.engine == "transformers":
            weights = self.weights(model)
            return TransformersChat(weights, max_new_tokens=stage.max_new_tokens, seed=self._config.seed)
        return ChatServer(server_config(self._config, stage, model))

    def weights(self, model: str) -> TransformersModel:
        """One model of that name for all stages."""
        if model not in self._models:
            self._models[model] = TransformersModel(model, self._config.transformers)
        return self._models[model]

    def memory(self, ask: Ask) -> int | None:
        """About how many bytes the model of a stage takes, weights and a full batch; None where none is loaded."""
        stage, model = (
            (self._config.describe, self._config.describe.model)
            if ask == "describe"
            else (self._config.profile, self._profile_model)
        )
        return self.weights(model).memory(stage.max_new_tokens) if stage.engine == "transformers" else None

    def release(self) -> None:
        """Let go of loaded weights: later stages want the memory."""
        self._models.clear()
        self.__dict__.pop("describer", None)


def server_config(config: Config, stage: DescribeConfig | ProfileConfig, model: str) -> ChatServerConfig:
    """The run's server, and what a stage asks of it."""
    asked = {"model": model, "max_tokens": stage.max_new_tokens, "seed": config.seed}
    return ChatServerConfig(**config.server.model_dump(), **asked)


def _states_of(model: ChatModel) -> StatesModel:
    if not isinstance(model, TransformersChat):
        raise ConfigError('profile.kind = "hidden" reads a model\'s states; set profile.engine=transformers')
    return model

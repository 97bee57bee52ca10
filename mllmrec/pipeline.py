"""The stages in the order data flows, on one screen.

    describe -> profile -> encode -> graph -> train -> evaluate -> recommend

Each stage is a pure function from artefacts to an artefact. A stage asks for what it reads, so asking for
the last one runs them all; `Run.step` loads what an earlier start made of the very same inputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.evaluation.evaluate import Evaluation, evaluate_models
from mllmrec.features.encode import Features, encode_texts
from mllmrec.features.encoder import Encoder, check_encoder
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models.baselines import baselines
from mllmrec.reason.cache import GenerationCache, open_cache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.generate import Asking
from mllmrec.reason.profile import Profiles, profile_users
from mllmrec.reason.select import Engines
from mllmrec.recommend import Recommendations, recommend_items
from mllmrec.runs import LEAKY, STAGES, Run, StageRecord, open_run
from mllmrec.runs import Stage as Stage
from mllmrec.training.trainer import Fitted, fit_model, fitted_type

MODEL_NAMES = {
    "blend": "blend",
    "mllmrec": "MLLMRec",
    "ridge": "item-graph ridge",
    "ease": "EASE",
    "ials": "iALS",
    "item-knn": "item-kNN, weighted",  # "item-kNN" is the yardstick without settings
    "bpr": "BPR-MF",
    "lightgcn": "LightGCN",
    "vbpr": "VBPR",
    "freedom": "FREEDOM",
}


def run(
    dataset: Dataset,
    out: Path,
    config: Config,
    *,
    until: Stage = "recommend",
    cache: Path | None = None,
    command: str = "",
    progress: Progress = silent,
    asking: Asking | None = None,
) -> Artefacts:
    """Run the stages up to `until` into the folder `out`, or go on with an interrupted run there.

    Args:
        dataset: a prepared dataset.
        out: the run folder.
        config: one config a stage.
        until: the last stage to run.
        cache: the generation cache; the user's own by default.
        command: how this run was asked for, to be written down.
        progress: told by every stage how far it is.
        asking: limits and retries of describe and profile; a stage's own max_failures goes before.

    Returns:
        The artefacts up to `until`.

    Raises:
        MllmrecError: whatever a stage refuses.
        LimitReached: `asking` has a limit, and a stage has requests left.
    """
    if STAGES.index(until) >= STAGES.index("encode") and not config.encode.features:
        check_encoder(config.encode)  # before hours of describing and profiling are spent
    with open_run(out, dataset, config, command) as folder, open_cache(cache) as generations:
        made = Artefacts(folder, dataset, config, generations, progress, asking)
        for stage in STAGES[: STAGES.index(until) + 1]:
            getattr(made, stage)
    return made


class Artefacts:
    """What a run has made so far, one attribute a stage."""

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        config: Config,
        generations: GenerationCache,
        progress: Progress,
        asking: Asking | None = None,
    ) -> None:
        self._run, self._dataset, self._config = run, dataset, config
        self._generations, self._progress = generations, progress
        self._engines, self._asking = Engines(config, dataset), asking or Asking()
        self._training = dataset.histories("train")
        self._profiled = dataset.histories(config.profile.history)
        self._epochs = 0  # trained by this start; a killed one's are not among them

    @property
    def leaky(self) -> bool:
        """Whether the profiles saw held-out interactions."""
        return self._run.leaky

    @property
    def stages(self) -> Mapping[str, StageRecord]:
        """What run.json says of each stage that was asked for."""
        return self._run.stages

    @property
    def evaluated(self) -> Evaluation | None:
        """The evaluation, where the run got so far."""
        return self.__dict__.get("evaluate")

    @cached_property
    def describe(self) -> Descriptions:
        """Item images -> text."""
        config = self._config.describe
        return self._run.step(
            "describe",
            {
                "config": config.model_dump(exclude={"max_failures"}),
                "engine": self._engines.describe_fingerprint,
                "items": self._dataset.items_digest,
            },
            Descriptions,
            lambda _: describe_items(
                self._dataset,
                config,
                self._generations,
                self._progress,
                engine=self._engines.describer,
                asking=replace(self._asking, max_failures=config.max_failures),
            ),
            again=lambda earlier: self._asking.retry_failed and earlier.without_text > 0,
            counts=self._generations.take_counts,
        )

    @cached_property
    def profile(self) -> Profiles:
        """Histories -> preference profiles."""
        config, described = self._config.profile, self.describe
        return self._run.step(
            "profile",
            {
                "config": config.model_dump(exclude={"max_failures"}),
                "engine": self._engines.profile_fingerprint,
                "histories": self._profiled.digest,
                "items": self._dataset.items_digest,
                "describe": self._run.digest("describe"),
            },
            Profiles,
            lambda scratch: self._profile(described, scratch),
            again=lambda earlier: self._asking.retry_failed and earlier.without_text > 0,
            counts=self._generations.take_counts,
        )

    def _profile(self, described: Descriptions, scratch: Path) -> Profiles:
        config = self._config.profile
        return profile_users(
            self._dataset,
            self._profiled,
            described,
            config,
            self._generations,
            self._progress,
            engine=None if config.kind == "mean" else self._engines.profiler(described),
            asking=replace(self._asking, max_failures=config.max_failures),
            parts=scratch,
        )

    @cached_property
    def encode(self) -> Features:
        """Texts -> unit vectors."""
        config, described, profiled = self._config.encode, self.describe, self.profile
        self._engines.release()  # a language model's weights are not needed any more, and their memory is
        return self._run.step(
            "encode",
            {
                "config": config.model_dump(exclude={"device"}),
                "encoder": "given" if config.features else Encoder.identity(config),
                "items": self._dataset.items_digest,
                "describe": self._run.digest("describe"),
                "profile": self._run.digest("profile"),
            },
            Features,
            lambda scratch: encode_texts(
                self._dataset, self._profiled, described, profiled, config, scratch, self._progress
            ),
        )

    @cached_property
    def graph(self) -> ItemGraph:
        """Item vectors and training interactions -> item graph."""
        config, features = self._config.graph, self.encode
        return self._run.step(
            "graph",
            {
                "config": config.identity(),
                "histories": self._training.digest,
                "times": self._dataset.split_digest if config.window else "",
                "encode": self._run.digest("encode"),
            },
            ItemGraph,
            lambda _: build_graph(features.items, self._training, config),
        )

    @cached_property
    def train(self) -> Fitted:
        """Frozen features and graph -> a fitted model."""
        model, config, seed = self._config.model, self._config.train, self._config.seed
        features, graph = self.encode, self.graph
        return self._run.step(
            "train",
            {
                "model": model.identity(),
                "config": config.identity(model.kind),
                "seed": seed,
                "split": self._dataset.split_digest,
                "encode": self._run.digest("encode"),
                "graph": self._run.digest("graph"),
            },
            fitted_type(model),
            lambda scratch: fit_model(
                features,
                graph,
                self._training,
                self._dataset.matrix("valid"),
                model,
                config,
                seed=seed,
                profiled=self._profiled,
                checkpoint=scratch / "checkpoint.safetensors",
                progress=self._count_epoch,
            ),
            counts=lambda: {"epochs": self._epochs},
        )

    def _count_epoch(self, label: str, done: int, total: int | None) -> None:
        self._epochs += 1
        self._progress(label, done, total)

    @cached_property
    def evaluate(self) -> Evaluation:
        """The model beside its yardsticks."""
        config, features, trained = self._config.evaluate, self.encode, self.train
        name = MODEL_NAMES[self._config.model.kind]
        name = f"{name} ({LEAKY})" if self._run.leaky else name
        return self._run.step(
            "evaluate",
            {
                "version": 2,
                "config": config.model_dump(),
                "split": self._dataset.split_digest,
                "encode": self._run.digest("encode"),
                "train": self._run.digest("train"),
            },
            Evaluation,
            lambda _: evaluate_models(
                baselines(features.items, self._training) | {name: trained.scorer},
                self._dataset,
                config,
                leaky=self._run.leaky,
                progress=self._progress,
            ),
        )

    @cached_property
    def recommend(self) -> Recommendations:
        """Top-N for users, similar items for items."""
        config, trained = self._config.recommend, self.train
        return self._run.step(
            "recommend",
            {
                "config": config.model_dump(),
                "split": self._dataset.split_digest,
                "items": self._dataset.items_digest,
                "train": self._run.digest("train"),
            },
            Recommendations,
            lambda _: recommend_items(trained, self._dataset, config),
        )

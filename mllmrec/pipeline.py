"""Run the stages in the order data flows.

    describe -> profile -> encode -> graph -> train -> evaluate -> recommend

Each stage is a pure function from artefacts to an artefact. `_stages` calls the seven in order; `_INPUTS` is what each
result depends on, beside the settings of the machine. `Run.step` loads a result that an earlier start made from the
same inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from mllmrec.config import LEAKY, Config, load_config
from mllmrec.dataset import Dataset, Histories, load
from mllmrec.evaluation.evaluate import Evaluation, evaluate_models
from mllmrec.features.encode import Features, encode_texts
from mllmrec.features.encoder import Encoder, check_encoder
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models import registry
from mllmrec.models.base import FilePath, Recommender
from mllmrec.models.baselines import baselines
from mllmrec.models.fitting import FittedModel, fit_model, read_model
from mllmrec.models.network_model import NetworkModel
from mllmrec.reason.cache import GenerationCache, open_cache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reason.profile import Profiles, profile_users
from mllmrec.reason.requests import Engines
from mllmrec.recommend import Recommendations, recommend_items
from mllmrec.report.figures import training_curve
from mllmrec.run_record import STAGES, StageRecord
from mllmrec.run_record import Stage as Stage
from mllmrec.runs import Artefact, Run, open_run
from mllmrec.training.trainer import EPOCHS

A = TypeVar("A", bound=Artefact)

# What the result of each stage depends on. An earlier stage stands for the content of its files.
_INPUTS: Mapping[Stage, Callable[[_Work], dict[str, Any]]] = {
    "describe": lambda work: {
        "config": work.config.describe.model_dump(exclude={"max_failures"}),
        "engine": work.engines.describe_fingerprint,
        "items": work.dataset.items_digest,
    },
    "profile": lambda work: {
        "config": work.config.profile.model_dump(exclude={"max_failures"}),
        "engine": work.engines.profile_fingerprint,
        "histories": work.profiled.digest,
        "items": work.dataset.items_digest,
        "describe": work.run.digest("describe"),
    },
    "encode": lambda work: {
        "config": work.config.encode.model_dump(exclude={"device"}),
        "encoder": "given" if work.config.encode.features else Encoder.identity(work.config.encode),
        "items": work.dataset.items_digest,
        "describe": work.run.digest("describe"),
        "profile": work.run.digest("profile"),
    },
    "graph": lambda work: {
        "config": work.config.graph.identity(),
        "histories": work.training.digest,
        "times": work.dataset.split_digest if work.config.graph.window else "",
        "encode": work.run.digest("encode"),
    },
    "train": lambda work: {
        "model": work.config.model.identity(),
        "config": work.config.train.identity(work.config.model.kind),
        "seed": work.config.seed,
        "split": work.dataset.split_digest,
        "encode": work.run.digest("encode"),
        "graph": work.run.digest("graph"),
    },
    "evaluate": lambda work: {
        "version": 2,
        "config": work.config.evaluate.model_dump(),
        "split": work.dataset.split_digest,
        "encode": work.run.digest("encode"),
        "train": work.run.digest("train"),
    },
    "recommend": lambda work: {
        "config": work.config.recommend.model_dump(),
        "split": work.dataset.split_digest,
        "items": work.dataset.items_digest,
        "train": work.run.digest("train"),
    },
}


def run(
    dataset: Dataset | Path | str,
    out: Path | str,
    config: Config | None = None,
    *,
    until: Stage = "recommend",
    cache: Path | str | None = None,
    command: str = "",
    progress: Progress = silent,
    limits: GenerationLimits | None = None,
) -> Artefacts:
    """Run the stages up to `until` into the folder `out`, or go on with an interrupted run there.

    Args:
        dataset: a prepared dataset, or its folder.
        out: the run folder.
        config: one config a stage; None: the defaults.
        until: the last stage to run.
        cache: the generation cache; None: the user's own.
        command: the command line of this run, to be written down.
        progress: called by every stage.
        limits: limits and retries of describe and profile; a stage's own max_failures goes before.

    Returns:
        The artefacts up to `until`.

    Raises:
        MllmrecError: whatever a stage refuses.
        LimitReached: `limits` has a limit, and a stage has requests left.
    """
    data = dataset if isinstance(dataset, Dataset) else load(Path(dataset))
    resolved = config or load_config()
    if STAGES.index(until) >= STAGES.index("encode") and not resolved.encode.features:
        check_encoder(resolved.encode)  # before hours of describing and profiling are spent
    with (
        open_run(Path(out), data, resolved, command) as folder,
        open_cache(Path(cache) if cache else None) as generations,
    ):
        work = _Work(folder, data, resolved, generations, progress, limits or GenerationLimits())
        made = Artefacts(folder)
        for stage in _stages(work, made):
            if stage == until:
                break
    return made


def _stages(work: _Work, made: Artefacts) -> Iterator[Stage]:
    """Make one artefact after the other; yield each stage when it is done."""
    made.describe = work.step("describe", Descriptions.load, lambda _: work.describe())
    yield "describe"
    made.profile = work.step("profile", Profiles.load, lambda scratch: work.profile(made.describe, scratch))
    yield "profile"
    work.engines.release()  # the memory of a language model's weights is needed from here on
    made.encode = work.step("encode", Features.load, lambda scratch: work.encode(made.describe, made.profile, scratch))
    yield "encode"
    made.graph = work.step("graph", ItemGraph.load, lambda _: work.graph(made.encode))
    yield "graph"
    made.train = work.step(
        "train", partial(read_model, work.config.model), lambda scratch: work.train(made.encode, made.graph, scratch)
    ).model
    yield "train"
    made.evaluate = work.step("evaluate", Evaluation.load, lambda _: work.evaluate(made.encode, made.train))
    yield "evaluate"
    made.recommend = work.step("recommend", Recommendations.load, lambda _: work.recommend(made.train))
    yield "recommend"


class Artefacts:
    """The artefacts of a run so far, one attribute a stage; a stage that is not done has none."""

    describe: Descriptions
    profile: Profiles
    encode: Features
    graph: ItemGraph
    train: Recommender
    evaluate: Evaluation
    recommend: Recommendations

    def __init__(self, run: Run) -> None:
        self._run = run

    @property
    def leaky(self) -> bool:
        """Whether the profiles saw held-out interactions."""
        return self._run.leaky

    @property
    def stages(self) -> Mapping[str, StageRecord]:
        """What run.json says of each stage."""
        return self._run.stages

    @property
    def evaluated(self) -> Evaluation | None:
        """The evaluation, where the run got so far."""
        return self.__dict__.get("evaluate")


class _DrawnModel(FittedModel):
    """A fitted model; the learning curve of a network is drawn beside its files."""

    def save(self, path: FilePath) -> list[str]:
        """Write the model's files, and curve.svg of a network; return their names."""
        names = super().save(path)
        if isinstance(self.model, NetworkModel):
            curve = self.model.curve
            epochs, loss, recall = ([getattr(at, name) for at in curve] for name in ("epoch", "loss", "recall"))
            storage.write_text(path("curve.svg"), training_curve(epochs, loss, recall, self.model.best_epoch))
            names.append("curve.svg")
        return names


@dataclass
class _Work:
    """What the stages of a run read beside earlier artefacts, and one method a stage."""

    run: Run
    dataset: Dataset
    config: Config
    generations: GenerationCache
    progress: Progress
    limits: GenerationLimits
    epochs: int = 0  # trained by this start; those of a killed one are not among them
    engines: Engines = field(init=False)
    training: Histories = field(init=False)
    profiled: Histories = field(init=False)

    def __post_init__(self) -> None:
        self.engines = Engines(self.config, self.dataset)
        self.training = self.dataset.histories("train")
        self.profiled = self.dataset.histories(self.config.profile.history)

    def step(self, stage: Stage, read: Callable[[FilePath], A], make: Callable[[Path], A]) -> A:
        """Make the artefact of a stage, or read it where it is fresh; see Run.step."""

        def again(earlier: A) -> bool:
            return (
                self.limits.retry_failed and isinstance(earlier, Descriptions | Profiles) and earlier.without_text > 0
            )

        def counts() -> dict[str, int]:
            if stage in ("describe", "profile"):
                return self.generations.take_counts()
            return {"epochs": self.epochs} if stage == "train" else {}

        return self.run.step(stage, _INPUTS[stage](self), read, make, again=again, counts=counts)

    def describe(self) -> Descriptions:
        """Item images -> text."""
        config = self.config.describe
        return describe_items(
            self.dataset,
            config,
            self.generations,
            self.progress,
            engine=self.engines.describer,
            limits=self.limits.of_stage("describe", config.max_failures),
        )

    def profile(self, described: Descriptions, scratch: Path) -> Profiles:
        """Histories -> preference profiles."""
        config = self.config.profile
        return profile_users(
            self.dataset,
            self.profiled,
            described,
            config,
            self.generations,
            self.progress,
            engine=None if config.kind == "mean" else self.engines.profiler(described),
            limits=self.limits.of_stage("profile", config.max_failures),
            parts=scratch,
        )

    def encode(self, described: Descriptions, profiled: Profiles, scratch: Path) -> Features:
        """Texts -> unit vectors."""
        return encode_texts(
            self.dataset, self.profiled, described, profiled, self.config.encode, scratch, self.progress
        )

    def graph(self, features: Features) -> ItemGraph:
        """Item vectors and training interactions -> item graph."""
        return build_graph(features.items, self.training, self.config.graph, self.progress)

    def train(self, features: Features, graph: ItemGraph, scratch: Path) -> FittedModel:
        """Frozen features and graph -> a fitted model."""
        return _DrawnModel(
            fit_model(
                features,
                graph,
                self.training,
                self.dataset.matrix("valid"),
                self.config.model,
                self.config.train,
                seed=self.config.seed,
                profiled=self.profiled,
                checkpoint=scratch / "checkpoint.safetensors",
                progress=self._count_epochs,
            )
        )

    def _count_epochs(self, label: str, done: int, total: int | None) -> None:
        self.epochs += label == EPOCHS
        self.progress(label, done, total)

    def evaluate(self, features: Features, model: Recommender) -> Evaluation:
        """The model beside its baselines."""
        name = registry.title(self.config.model.kind)
        name = f"{name} ({LEAKY})" if self.run.leaky else name
        return evaluate_models(
            {**baselines(features.items, self.training.user_items()), name: model},
            self.dataset,
            self.config.evaluate,
            leaky=self.run.leaky,
            progress=self.progress,
        )

    def recommend(self, model: Recommender) -> Recommendations:
        """Top-N for users, similar items for items."""
        return recommend_items(model, self.dataset, self.config.recommend, self.progress)

"""The inputs that the stages of a run share, and its artefacts so far."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mllmrec.config import LEAKY, Config
from mllmrec.dataset import Dataset, Histories
from mllmrec.evaluation.evaluate import Evaluation, evaluate_models
from mllmrec.features.encode import Features
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.models import registry
from mllmrec.models.base import FilePath, Recommender
from mllmrec.models.baselines import baselines
from mllmrec.models.fitting import FittedModel, fit_model
from mllmrec.models.network_model import NetworkModel
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reason.profile import Profiles, profile_users
from mllmrec.reason.requests import Engines
from mllmrec.recommend import Recommendations
from mllmrec.report.figures import training_curve
from mllmrec.run_record import Artefact, StageRecord
from mllmrec.run_record import Stage as Stage
from mllmrec.runs import Run
from mllmrec.training.trainer import EPOCHS

A = TypeVar("A", bound=Artefact)


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
        """Tell whether the profiles saw held-out interactions."""
        return self._run.leaky

    @property
    def stages(self) -> Mapping[str, StageRecord]:
        """Return the record of each stage in run.json."""
        return self._run.stages

    @property
    def evaluated(self) -> Evaluation | None:
        """Return the evaluation, or None where the run has none yet."""
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
class Work:
    """The inputs that the stages share, and the longer stages as methods."""

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

    def step(
        self, stage: Stage, inputs: Mapping[str, Any], read: Callable[[FilePath], A], make: Callable[[Path], A]
    ) -> A:
        """Make the artefact of a stage, or read it where it is fresh; see Run.step.

        Args:
            stage: its name.
            inputs: all that the result depends on, JSON-like.
            read: reads what an earlier start made.
            make: makes it, given a folder for unfinished work.
        """

        def again(earlier: A) -> bool:
            return (
                self.limits.retry_failed and isinstance(earlier, Descriptions | Profiles) and earlier.without_text > 0
            )

        def counts() -> dict[str, int]:
            if stage in ("describe", "profile"):
                return self.generations.take_counts()
            return {"epochs": self.epochs} if stage == "train" else {}

        return self.run.step(stage, inputs, read, make, again=again, counts=counts)

    def describe(self) -> Descriptions:
        """Describe the items from their images."""
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
        """Write the users' preference profiles."""
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

    def train(self, features: Features, graph: ItemGraph, scratch: Path) -> FittedModel:
        """Fit the model on frozen features and graph; unfinished work goes to `scratch`.

        Args:
            features: vectors of items and users.
            graph: the item graph.
            scratch: folder of the checkpoint.
        """
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
        """Evaluate the model beside its baselines."""
        name = registry.title(self.config.model.kind)
        name = f"{name} ({LEAKY})" if self.run.leaky else name
        return evaluate_models(
            {**baselines(features.items, self.training.user_items()), name: model},
            self.dataset,
            self.config.evaluate,
            leaky=self.run.leaky,
            progress=self.progress,
        )

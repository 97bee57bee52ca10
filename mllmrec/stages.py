"""The inputs that the stages of a run share, and its artefacts so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from mllmrec.blocks.launcher import Launcher
from mllmrec.blocks.stage import Blocks, counted
from mllmrec.config import LEAKY, Config
from mllmrec.dataset import Dataset, Histories
from mllmrec.evaluation.evaluate import Evaluation, evaluate_models
from mllmrec.features.encode import Features, encode_texts
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress
from mllmrec.graph.item_graph import EarlierGraph, ItemGraph, build_graph
from mllmrec.graph.neighbors import WideLists
from mllmrec.models import registry
from mllmrec.models.base import FilePath, Recommender
from mllmrec.models.baselines import baselines, popularity
from mllmrec.models.fitting import FittedModel, fit_model
from mllmrec.models.gpu_parts import gpu_of, rankers
from mllmrec.reason.block_engines import with_workers
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reason.profile import Profiles, profile_users
from mllmrec.reason.requests import Engines
from mllmrec.recommend import Recommendations, recommend_items
from mllmrec.reuse import REUSED, EarlierRun, Generation, grow_descriptions, grow_features, grow_profiles
from mllmrec.runs import Run
from mllmrec.runs.artefacts import Artefacts as Artefacts
from mllmrec.runs.record import Artefact
from mllmrec.runs.record import Stage as Stage
from mllmrec.training import EPOCHS

A = TypeVar("A", bound=Artefact)
_AGAIN = (
    "settings, and what belongs to other items and users, are those of the earlier run; run the whole from nothing now "
    "and then, and mllmrec evaluate with --set evaluate.update_users=0 judges everybody beside all baselines"
)

_FROM_NOTHING = (
    "the model is fitted from nothing: the earlier run is of a version that did not keep what an update goes on by, or "
    "its users and items do not fit"
)


class _DrawnModel(FittedModel):
    """A fitted model; the learning curve of a network is drawn beside its files."""

    def save(self, path: FilePath) -> list[str]:
        """Write the model's files, and curve.svg of a network; return their names."""
        names = super().save(path)
        if self.model.is_network:
            from mllmrec.models.network_model import NetworkModel  # it loads torch
            from mllmrec.report.figures import training_curve

            assert isinstance(self.model, NetworkModel)
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
    earlier: EarlierRun | None = None  # whose artefacts are taken over
    launcher: Launcher | None = None  # of blocks; None: stages compute in this process
    wide: WideLists = field(default_factory=WideLists)  # lists of neighbors that graph and model read
    reused: list[Stage] = field(default_factory=list)  # stages that went on from its
    anew: list[Stage] = field(default_factory=list)  # stages that could have, and did not
    epochs: int = 0  # trained by this start; those of a killed one are not among them
    engines: Engines = field(init=False)
    training: Histories = field(init=False)
    profiled: Histories = field(init=False)
    block_counts: Counter[str] = field(init=False, default_factory=Counter)
    keeps_fit: bool = field(init=False, default=False)  # whether the model keeps an earlier one's fit where it can
    could_keep: bool = field(init=False, default=False)  # whether models of its kind do

    def __post_init__(self) -> None:
        self.engines = Engines(self.config, self.dataset)
        self.training = self.dataset.histories("train")
        scope = self.config.profile.history
        self.profiled = self.training if scope == "train" else self.dataset.histories(scope)

    def step(
        self, stage: Stage, inputs: Mapping[str, Any], read: Callable[[FilePath], A], make: Callable[[Path], A]
    ) -> A:
        """Make the artefact of a stage, or read it if it is fresh; see Run.step.

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
            in_blocks = counted(self.block_counts)
            self.block_counts.clear()
            generated = self.generations.take_counts() if stage in ("describe", "profile") else {}
            return generated | in_blocks | ({"epochs": self.epochs} if stage == "train" else {})

        if self.goes_on(stage, inputs):
            assert self.earlier is not None
            self.reused.append(stage)
            inputs = {**inputs, "earlier": self.earlier.run.digest(stage)}
        elif self.earlier is not None and stage in REUSED:
            self.anew.append(stage)
        return self.run.step(stage, inputs, read, make, again=again, counts=counts)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return lines of what was taken over from an earlier run, and what was not."""
        if self.earlier is None:
            return ()
        anew = ", ".join(self.anew)
        others = f"; from scratch, for settings differ or the model cannot go on: {anew}" if anew else ""
        again = (_AGAIN,) if self.keeps_fit else ()
        if "train" in self.reused and self.could_keep and not self.keeps_fit:
            again = (_FROM_NOTHING,)
        return (f"from {self.earlier.run.folder}: {self.earlier.growth.summary}{others}", *again)

    @property
    def evaluate_settings(self) -> dict[str, Any]:
        """Return the settings that an evaluation depends on."""
        return self.config.evaluate.model_dump(exclude=set() if self.keeps_fit else {"update_users"})

    def goes_on(self, stage: Stage, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a stage takes over what an earlier run made of the dataset before it grew."""
        return self.earlier is not None and self.earlier.can_give(stage, inputs)

    def _given(self, stage: Stage) -> EarlierRun | None:
        return self.earlier if stage in self.reused else None

    def _generation(self, stage: str, max_failures: float) -> Generation:
        return Generation(self.generations, self.progress, self.limits.of_stage(stage, max_failures))

    def blocks(self, scratch: Path) -> Blocks | None:
        """Return the workers of a stage, or None. Their part files lie in its folder of unfinished work."""
        return Blocks(self.launcher, scratch / "blocks", self.progress, self.block_counts) if self.launcher else None

    def describe(self, scratch: Path) -> Descriptions:
        """Describe the items from their images; unfinished work goes to `scratch`."""
        config = self.config.describe
        if earlier := self._given("describe"):
            generation = self._generation("describe", config.max_failures)
            before = earlier.run.descriptions
            return grow_descriptions(before, earlier.growth, self.dataset, config, self.engines.describer, generation)
        return describe_items(
            self.dataset,
            config,
            self.generations,
            self.progress,
            engine=with_workers(self.engines.describer, self.blocks(scratch)),
            limits=self.limits.of_stage("describe", config.max_failures),
        )

    def profile(self, described: Descriptions, scratch: Path) -> Profiles:
        """Write the users' preference profiles."""
        config = self.config.profile
        engine = None
        if config.kind != "mean":
            engine = with_workers(self.engines.profiler(described), self.blocks(scratch))
        if earlier := self._given("profile"):
            return grow_profiles(
                earlier.run.profiles,
                earlier.growth,
                self.dataset,
                self.profiled,
                described,
                config,
                engine,
                self._generation("profile", config.max_failures),
                scratch,
            )
        return profile_users(
            self.dataset,
            self.profiled,
            described,
            config,
            self.generations,
            self.progress,
            engine=engine,
            limits=self.limits.of_stage("profile", config.max_failures),
            parts=scratch,
        )

    def encode(self, described: Descriptions, profiles: Profiles, scratch: Path) -> Features:
        """Encode the items' and users' texts; unfinished work goes to `scratch`.

        Args:
            described: of the items.
            profiles: of the users.
            scratch: folder of finished shards.
        """
        inputs = (self.dataset, self.profiled, described, profiles, self.config.encode, scratch, self.progress)
        earlier = self._given("encode")
        if earlier and not self.config.encode.features:  # vectors that came with the data are read anew
            return grow_features(earlier.run.features, earlier.text_growth(described, profiles), *inputs)
        return encode_texts(*inputs, blocks=self.blocks(scratch))

    def graph(self, features: Features, scratch: Path) -> ItemGraph:
        """Build the item graph; unfinished work goes to `scratch`."""
        earlier = self._given("graph")
        before = EarlierGraph(earlier.run.graph, earlier.item_vectors()) if earlier else None
        blocks = self.blocks(scratch)
        config, wide = self.config.graph, self.wide
        return build_graph(features.items, self.training, config, self.progress, before, blocks=blocks, wide=wide)

    def train(self, features: Features, graph: ItemGraph, scratch: Path) -> FittedModel:
        """Fit the model on frozen features and graph; unfinished work goes to `scratch`.

        Args:
            features: vectors of items and users.
            graph: the item graph.
            scratch: folder of the checkpoint.
        """
        earlier = self._given("train")
        fitted = _DrawnModel(
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
                earlier=earlier.model() if earlier else None,
                blocks=self.blocks(scratch),
                wide=self.wide,
            )
        )
        self.wide.forget()
        return fitted

    def _count_epochs(self, label: str, done: int, total: int | None) -> None:
        self.epochs += label == EPOCHS
        self.progress(label, done, total)

    def evaluate(self, features: Features, model: Recommender, scratch: Path) -> Evaluation:
        """Evaluate the model beside its baselines; one that keeps an earlier fit beside popularity, on drawn users.

        Args:
            features: vectors of items and users.
            model: the fitted model.
            scratch: folder for unfinished work.
        """
        name = registry.title(self.config.model.kind)
        name = f"{name} ({LEAKY})" if self.run.leaky else name
        R, most = self.training.user_items(), self.config.evaluate.update_users
        if self.keeps_fit and most:
            beside: dict[str, Any] = {"popularity": popularity(R)}
        else:
            beside, most = baselines(features.items, R), 0
        return evaluate_models(
            rankers({**beside, name: model}, gpu_of(self.config.train), self.blocks(scratch)),
            self.dataset,
            self.config.evaluate,
            leaky=self.run.leaky,
            progress=self.progress,
            most=most,
            seed=self.config.seed,
        )

    def recommend(self, model: Recommender, scratch: Path) -> Recommendations:
        """List items for users, and similar items; unfinished work goes to `scratch`."""
        earlier = self._given("recommend") if self.keeps_fit else None
        return recommend_items(
            model,
            self.dataset,
            self.config.recommend,
            self.progress,
            blocks=self.blocks(scratch),
            earlier=earlier.lists() if earlier else None,
            device=gpu_of(self.config.train),
        )

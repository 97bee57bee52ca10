"""Fit the model that a config names on the artefacts of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mllmrec_kernels import CSR

from mllmrec.blocks.stage import Blocks
from mllmrec.config import ModelConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.features.encode import Features
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.graph.neighbors import WideLists
from mllmrec.models import registry
from mllmrec.models.base import FilePath, FitContext, Recommender


@dataclass(frozen=True, slots=True)
class FittedModel:
    """A fitted model as an artefact of a run."""

    model: Recommender

    @property
    def summary(self) -> str:
        """One line about the model."""
        return self.model.summary

    def save(self, path: FilePath) -> list[str]:
        """Write the model's files; return their names."""
        return self.model.write_files(path)


def fit_model(
    features: Features,
    graph: ItemGraph | None,
    histories: Histories,
    valid: CSR,
    model: ModelConfig,
    train: TrainConfig,
    *,
    seed: int,
    profiled: Histories | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
    earlier: Recommender | None = None,
    blocks: Blocks | None = None,
    wide: WideLists | None = None,
) -> Recommender:
    """Fit a model of any kind.

    Args:
        features: frozen vectors of users and items.
        graph: the item graph; None for a model that reads none.
        histories: training histories.
        valid: [U, I] validation interactions, to stop by or to choose by.
        model: kind and settings.
        train: settings of networks, and the device.
        seed: of what is random.
        profiled: the histories behind the user vectors, where they are not the training ones (a LEAKY run).
        checkpoint: file to go on from and to write to; removed at the end.
        progress: called while the fit goes on.
        earlier: a fitted model of the same kind and settings to go on from, of the first users and items.
        blocks: workers that fit blocks of rows instead of this process.
        wide: lists of neighbors that the graph was made of.

    Raises:
        LeakError: the histories hold held-out interactions.
        MismatchError: features, graph or checkpoint belong to other data.
        TrainingError: there is nothing to train on, to stop by or to choose by.
    """
    histories.require_training("a model")
    features.check(profiled or histories)
    if graph is not None:
        graph.check(histories)
    context = FitContext(train, graph, histories, checkpoint, progress, earlier, blocks, wide)
    return registry.find(model.kind)(model, context=context).fit(
        histories.user_items(),
        item_features=features.items,
        user_features=features.users,
        valid=valid,
        seed=seed,
    )


def read_model(config: ModelConfig, path: FilePath) -> FittedModel:
    """Read a fitted model of a run.

    Args:
        config: kind and settings.
        path: from a file's name to where it lies.
    """
    return FittedModel(registry.find(config.kind)(config).read_files(path))

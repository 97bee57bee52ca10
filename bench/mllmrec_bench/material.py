"""What the ops are measured on: generated data of asked-for sizes, a dataset, or a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from mllmrec_kernels import CSR, normalize
from numpy.typing import NDArray

from mllmrec.config import GraphConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models.embedding_model import Trained
from mllmrec.runs import stage_file
from mllmrec.views import RunView
from mllmrec_bench import embeddings, interactions, source

_BATCH = 100_000  # samples of sample_negatives


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is generated.

    Attributes:
        items, users, interactions: of the shop.
        edges: of the item graph, a row.
        dim: width of the trained vectors.
    """

    items: int = 10_000
    users: int = 20_000
    interactions: int = 200_000
    edges: int = 20
    dim: int = 64


class Material(Protocol):
    """Input for every op; each part is made when it is first asked for."""

    @property
    def name(self) -> str:
        """What it is, in a word."""
        ...

    @property
    def vectors(self) -> Vectors:
        """Item vectors, float32 [I, d], unit rows."""
        ...

    @property
    def user_items(self) -> CSR:
        """Training interactions, [U, I]."""
        ...

    @property
    def graph(self) -> CSR:
        """An item graph, [I, I], not normalised."""
        ...

    @property
    def towers(self) -> tuple[Vectors, Vectors]:
        """User and item vectors as trained, float32 [U, d'] and [I, d']."""
        ...

    @property
    def split(self) -> tuple[CSR, CSR]:
        """Interactions that are left out of a ranking, and those that are ranked, both [U, I]."""
        ...


class Generated:
    """Generated data; vectors are like the rows of a source."""

    def __init__(self, sizes: Sizes, like: source.Source, seed: int = 0) -> None:
        self._sizes, self._like, self._seed = sizes, like, seed
        self.name = generated_name(like.name, seed)

    @cached_property
    def vectors(self) -> Vectors:
        """See Material."""
        return embeddings.enlarge(self._like.rows(), self._sizes.items, seed=self._seed)

    @cached_property
    def user_items(self) -> CSR:
        """See Material."""
        size = self._sizes
        return interactions.interactions(size.users, size.items, size.interactions, seed=self._seed)

    @cached_property
    def graph(self) -> CSR:
        """See Material."""
        return interactions.graph(self._sizes.items, self._sizes.edges, seed=self._seed)

    @cached_property
    def towers(self) -> tuple[Vectors, Vectors]:
        """See Material."""
        return interactions.towers(self._sizes.users, self._sizes.items, self._sizes.dim, seed=self._seed)

    @cached_property
    def split(self) -> tuple[CSR, CSR]:
        """See Material."""
        return interactions.held_out(self.user_items, seed=self._seed)


def generated_name(source_name: str, seed: int) -> str:
    """What data generated from a source is called in a case's name."""
    return f"generated like {source_name}" + (f" seed={seed}" if seed else "")


class Own:
    """A dataset of the user's, or a run over it; without a run, vectors and graph are made from the dataset."""

    def __init__(self, dataset: Dataset, run: RunView | None = None, progress: Progress = silent) -> None:
        self._dataset, self._run, self._progress = dataset, run, progress
        self.name = f"{dataset.name} (a run)" if run else dataset.name

    @staticmethod
    def of_run(folder: Path) -> Own:
        """The data and the artefacts of a run."""
        view = RunView(folder)
        return Own(view.dataset, view)

    @cached_property
    def vectors(self) -> Vectors:
        """See Material."""
        if self._run:
            return self._run.features.items
        return source.dataset_vectors(self._dataset, self._progress)

    @cached_property
    def user_items(self) -> CSR:
        """See Material."""
        return self._dataset.train

    @cached_property
    def graph(self) -> CSR:
        """See Material."""
        if self._run:
            return ItemGraph.load(_files(self._run, "graph")).adjacency
        return build_graph(self.vectors, self._dataset.histories("train"), GraphConfig()).adjacency

    @cached_property
    def towers(self) -> tuple[Vectors, Vectors]:
        """See Material."""
        if self._run:
            trained = Trained.load(_files(self._run, "train"))
            return trained.users, trained.items
        return interactions.towers(*self.user_items.shape, Sizes().dim)

    @cached_property
    def split(self) -> tuple[CSR, CSR]:
        """See Material."""
        return self._dataset.train, self._dataset.matrix("test")


def _files(run: RunView, stage: str) -> Callable[[str], Path]:
    if not run.has(stage):
        raise InputError(f"{run.folder} has not finished {stage!r}; go on with {run.go_on}")
    return lambda name: stage_file(run.folder, stage, name, leaky=run.leaky)


def normalised(material: Material) -> CSR:
    """The material's graph, normalised."""
    return normalize(material.graph)


def sampled_users(material: Material) -> NDArray[np.int64]:
    """The users of a random batch of interactions, int64 [B]; none who has seen every seen item.

    Raises:
        InputError: there is no such user.
    """
    user_items = material.user_items
    seen = len(np.unique(user_items.indices))
    rows = user_items.rows()
    usable = rows[np.diff(user_items.indptr)[rows] < seen]
    if not len(usable):
        raise InputError("every user has seen every item; there are no negatives to sample")
    return np.random.default_rng(0).choice(usable, min(_BATCH, len(usable)))

"""Fit the model that a config names, and check the arguments of a fit.

The arguments are interactions, vectors of items and users, and what a run adds.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import ArrayLike, NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.config import ModelConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.errors import InputError, TrainingError
from mllmrec.evaluation.metrics import users_with_heldout
from mllmrec.features.encode import Features, Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.graph.neighbors import WideLists
from mllmrec.models import registry

if TYPE_CHECKING:
    from mllmrec.models.base import FilePath, Recommender

Matrix: TypeAlias = CSR | sp.sparray | sp.spmatrix


@dataclass(frozen=True, slots=True)
class FitContext:
    """The things that a run adds to the arguments of `fit`.

    Attributes:
        train: the device of every model, and the settings of networks.
        item_graph: for models that read one; None: they build it from the item features.
        histories: the training histories behind the matrix; networks train their pairs in this order.
        checkpoint: file from which a killed training goes on; None: no checkpoints.
        progress: called while a fit goes on.
        earlier: a fitted model of the same kind and settings, of the first users and items, to go on from; None: the
            fit starts from nothing.
        blocks: workers that fit blocks of rows instead of this process; None: there are none.
        wide: lists of neighbors that the item graph was made of; None: a fit searches its own.
    """

    train: TrainConfig = field(default_factory=TrainConfig)
    item_graph: ItemGraph | None = None
    histories: Histories | None = None
    checkpoint: Path | None = None
    progress: Progress = silent
    earlier: Recommender | None = None
    blocks: Blocks | None = None
    wide: WideLists | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the training histories; empty outside a run."""
        return self.histories.digest if self.histories else ""


@dataclass(frozen=True, slots=True)
class Refitted:
    """The users and items that a fit which went on from an earlier one fitted again; all others it kept.

    Attributes:
        users: int64, ascending.
        items: int64, ascending.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class FitData:
    """The checked arguments of `fit`.

    Attributes:
        user_items: R, binary [U, I], training interactions.
        items: float32 [I, d], a vector per item; None: there are none.
        users: float32 [U, d], a vector per user; None: there are none.
        valid: binary [U, I], validation interactions; None: there are none.
        seed: seed of what is random.
    """

    user_items: CSR
    items: Vectors | None = None
    users: Vectors | None = None
    valid: CSR | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse a matrix without interactions, features of another number of rows, and items that are not finite.

        Vectors of users stay in their file here, for they are the largest table; a run checks them as it encodes.
        """
        if self.user_items.nnz == 0:
            raise TrainingError("there are no training interactions; prepare the dataset with another split")
        n_users, n_items = self.user_items.shape
        for name, count, vectors in (("item", n_items, self.items), ("user", n_users, self.users)):
            if vectors is not None and (vectors.ndim != 2 or len(vectors) != count):
                raise InputError(f"{name}_features must have shape ({count}, d); got {vectors.shape}")
        ends = [] if self.items is None or not self.items.size else [self.items.min(), self.items.max()]  # NaN is both
        if not np.isfinite(ends).all():
            raise InputError("item_features has a number that is NaN or infinite; every vector must be finite")

    def items_or_zeros(self) -> Vectors:
        """Return the item vectors; zeros [I, 1], like nothing at all, if there are none."""
        if self.items is None:
            return np.zeros((self.user_items.n_columns, 1), np.float32)
        return np.ascontiguousarray(self.items, np.float32)

    def required_items(self, title: str) -> Vectors:
        """Return the item vectors.

        Raises:
            InputError: there are none; the model of this title needs them.
        """
        if self.items is None:
            raise InputError(f"{title} needs item vectors: fit(user_items, item_features=...)")
        return self.items

    def required_valid(self, use: str) -> CSR:
        """Return the validation interactions; `use` is what they are for, as an error says it.

        Raises:
            TrainingError: no user has both a training and a validation interaction.
        """
        if self.valid is None or self.valid.nnz == 0:
            why = "the validation split is empty"
        elif len(users_with_heldout(self.user_items, self.valid)) == 0:
            why = "no user has both a training and a validation interaction"
        else:
            return self.valid
        raise TrainingError(
            f"{why}, and {use}; prepare the dataset with a split that holds some interactions out, or pass valid="
        )


def as_interactions(matrix: Matrix) -> CSR:
    """Return the pattern of a matrix: a binary CSR; explicit zeros are no entries."""
    if isinstance(matrix, CSR):
        return matrix if matrix.data is None else CSR.from_scipy(matrix.to_scipy(), binary=True)
    if not sp.issparse(matrix):
        raise InputError(f"user_items must be a sparse matrix of scipy or a CSR; got {type(matrix).__name__}")
    csr = sp.csr_array(matrix)
    return CSR.from_scipy(csr if csr.data.all() else csr != 0, binary=True)


def check_histories(histories: CSR, n_items: int) -> CSR:
    """Return histories whose columns are the items of a model.

    Raises:
        InputError: they have another number of columns.
    """
    if histories.n_columns != n_items:
        raise InputError(f"the histories have {histories.n_columns:,} columns; the model has {n_items:,} items")
    return histories


def user_rows(users: ArrayLike) -> NDArray[np.int64]:
    """Return ids as int64 [B]."""
    return np.atleast_1d(np.asarray(users, dtype=np.int64))


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

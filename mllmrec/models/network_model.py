"""Recommenders that are networks trained by BPR, and the parts that several of them share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Literal, Self

import mllmrec_kernels as kernels
import numpy as np
import polars as pl
import torch
from mllmrec_kernels import CSR, normalize
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mllmrec.config import GraphConfig
from mllmrec.dataset import Histories
from mllmrec.errors import InputError
from mllmrec.foundation import digests, storage
from mllmrec.graph.item_graph import build_graph
from mllmrec.models.base import Candidate, FilePath, FitData
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer
from mllmrec.training import ranks
from mllmrec.training.checkpoint import Epoch, Parameters
from mllmrec.training.loop import Network
from mllmrec.training.trainer import Training, train_network

PenaltyName = Literal["squares", "norms"]
Penalty = Callable[..., Tensor]  # of a batch's tables [B, d]


def unique_rows(ids: Tensor) -> tuple[Tensor, Tensor]:
    """Return (rows, which) with ids = rows[which], so a row that occurs twice is computed once.

    On a GPU the rows are the ids themselves: counting the distinct ones would stop the device at each step, which costs
    more than the rows that are saved.

    Args:
        ids: int64 [B].
    """
    if ids.device.type != "cpu":
        return ids, torch.arange(len(ids), device=ids.device)
    if torch.compiler.is_compiling():  # it sees only through torch's operations
        first, places = torch.unique(ids, return_inverse=True)
        return first, places
    rows, which = kernels.unique_rows(ids.numpy())
    return torch.from_numpy(rows), torch.from_numpy(which)


def embedding(rows: int, dim: int) -> nn.Parameter:
    """Return a table of ids, Xavier uniform, [rows, dim]."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, dim)))


def squares(*tables: Tensor) -> Tensor:
    """Return half the squared norm of a batch's rows, over the batch: the L2 term of BPR-MF and LightGCN."""
    total = sum((table.square().sum() for table in tables), start=torch.zeros((), device=tables[0].device))
    return total / (2 * len(tables[0]))


def norms(*tables: Tensor) -> Tensor:
    """Return the norm of a batch's rows, not squared, over the batch: the same term in RecBole and MMRec."""
    total = sum((table.norm() for table in tables), start=torch.zeros((), device=tables[0].device))
    return total / len(tables[0])


def bipartite(user_items: CSR) -> CSR:
    """Return D^-1/2 A D^-1/2 of the graph that joins users [0, U) with items [U, U + I), [U + I, U + I]."""
    users, items = user_items.rows(), user_items.indices.astype(np.int64) + user_items.n_rows
    n = sum(user_items.shape)
    return normalize(CSR.from_pairs(np.concatenate([users, items]), np.concatenate([items, users]), (n, n)))


def penalty_of(name: PenaltyName) -> Penalty:
    """Return the penalty of that name."""
    return norms if name == "norms" else squares


def rate_candidates(
    setting: str, values: Sequence[float], rates: Sequence[float] = (1e-3, 3e-3, 1e-2)
) -> tuple[Candidate, ...]:
    """Return one setting crossed with the learning rate, for `Recommender.candidates`.

    Args:
        setting: its key in the config.
        values: of the setting; the first is the default.
        rates: learning rates.
    """
    return tuple((f"{setting}={value}", f"train.learning_rate={rate}") for value in values for rate in rates)


class NetworkModel(EmbeddingModel):
    """A network, stopped early by validation Recall@20.

    Attributes:
        parameters: the network's parameters at the chosen epoch.
        curve: one entry per epoch.
        best_epoch: the chosen epoch, counted from 1.
    """

    is_random = is_network = True
    parameters: Parameters
    curve: tuple[Epoch, ...] = ()
    best_epoch: int = 0

    @abstractmethod
    def build(self, data: FitData) -> Network:
        """Return the untrained network; its first parameters come from torch's generator."""

    def _fit(self, data: FitData) -> None:
        """Train the network.

        Raises:
            TrainingError: there is nothing to stop by, or the loss is not finite.
            MismatchError: the checkpoint belongs to other data or settings.
        """
        ranks.begin()
        trained = train_network(
            lambda: self.build(data),
            self.training(data),
            checkpoint=self.context.checkpoint,
            progress=self.context.progress,
        )
        self.vectors = VectorScorer(trained.users, trained.items)
        self.parameters, self.curve, self.best_epoch = trained.parameters, trained.curve, trained.best_epoch

    def training(self, data: FitData) -> Training:
        """Return data and settings of the training."""
        return Training(
            user_items=data.user_items,
            valid=data.required_valid("training stops by it"),
            pairs=self._pairs(data.user_items),
            config=self.context.train,
            seed=data.seed,
            identity=self._identity(data),
        )

    def _pairs(self, user_items: CSR) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return users and items of all pairs, int64 each; oldest first within a user where a run knows the order."""
        histories = self.context.histories
        if histories is None:
            return user_items.rows(), user_items.indices.astype(np.int64)
        users = np.repeat(np.arange(histories.n_users), np.diff(histories.indptr))
        return users, histories.items.astype(np.int64)

    def _identity(self, data: FitData) -> dict[str, object]:
        """Return what a checkpoint must have been made from to go on with it, JSON-like."""
        R, graph = data.user_items, self.context.item_graph
        edges = () if graph is None else (graph.normalized.indices, graph.normalized.values())
        arrays = [R.indptr, R.indices, *(table for table in (data.items, data.users) if table is not None), *edges]
        return {
            "histories": self.context.digest,
            "arrays": [digests.hash_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays],
            "model": self.config.identity(),
        }

    def _graph(self, data: FitData, config: GraphConfig | None = None) -> CSR:
        """Return a normalized item graph: the run's, or one that is built here.

        Args:
            data: item features and interactions.
            config: of a graph that is built here whatever the run has; None: the run's, else the default one.
        """
        items, user_items = data.required_items(self.title), data.user_items
        if config is None and self.context.item_graph is not None:
            return self.context.item_graph.normalized
        histories = self.context.histories or Histories(
            user_items.indptr, user_items.indices, None, user_items.n_columns, "train"
        )
        return build_graph(items, histories, config or GraphConfig()).normalized

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        best = self.curve[self.best_epoch - 1]
        return f"epoch {self.best_epoch} of {len(self.curve)}, validation Recall@20 {best.recall:.4f}"

    def write_files(self, path: FilePath) -> list[str]:
        """Write model.safetensors, users.npy, items.npy, curve.csv and train.json."""
        with storage.atomic(path("model.safetensors")) as temporary:
            save_file(self.parameters, temporary)
        storage.write_array(path("users.npy"), self.users)
        storage.write_array(path("items.npy"), self.items)
        with storage.atomic(path("curve.csv")) as temporary:
            pl.DataFrame([asdict(epoch) for epoch in self.curve]).write_csv(temporary)
        notes = {"best_epoch": self.best_epoch, "histories": self.context.digest}
        storage.write_json(path("train.json"), notes)
        return ["model.safetensors", "users.npy", "items.npy", "curve.csv", "train.json"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        self.best_epoch = storage.read_json(path("train.json"))["best_epoch"]
        users, items = (np.array(storage.read_array(path(name))) for name in ("users.npy", "items.npy"))
        self.vectors, self.parameters = VectorScorer(users, items), load_file(path("model.safetensors"))
        curve = pl.read_csv(path("curve.csv"))
        self.curve = tuple(Epoch(**row) for row in curve.iter_rows(named=True))
        numbers = all(dtype.is_numeric() for dtype in curve.dtypes) and not any(curve.null_count().row(0))
        if not numbers or not isinstance(self.best_epoch, int) or not 1 <= self.best_epoch <= len(self.curve):
            raise InputError(f"{path('curve.csv')} and train.json hold no curve with a best epoch")
        return self

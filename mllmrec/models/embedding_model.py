"""What training leaves: two towers' vectors, the weights behind them, and the learning curve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import polars as pl
from safetensors.torch import load_file, save_file
from torch import Tensor

from mllmrec.features.encode import Vectors
from mllmrec.foundation import storage
from mllmrec.foundation.curve import draw_curve
from mllmrec.models.scorer import Lists, VectorScorer

Weights = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of the learning curve."""

    epoch: int
    loss: float
    recall: float  # validation Recall@20
    ndcg: float  # validation NDCG@20


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model as the later stages need it.

    Attributes:
        users: float32 [U, d], h_u.
        items: float32 [I, d], h_i.
        weights: the network's parameters at the chosen epoch.
        curve: one entry an epoch.
        best_epoch: the epoch that was chosen, counted from 1.
        histories: digest of the training histories.
    """

    users: Vectors
    items: Vectors
    weights: Weights
    curve: tuple[Epoch, ...]
    best_epoch: int
    histories: str

    @property
    def summary(self) -> str:
        """One line for a person."""
        best = self.curve[self.best_epoch - 1]
        return f"epoch {self.best_epoch} of {len(self.curve)}, validation Recall@20 {best.recall:.4f}"

    @property
    def scorer(self) -> VectorScorer:
        """The model as the evaluation sees it."""
        return VectorScorer(self.users, self.items)

    def similar(self, k: int) -> Lists:
        """See VectorScorer."""
        return self.scorer.similar(k)

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write model.safetensors, users.npy, items.npy, curve.csv, curve.svg and train.json."""
        with storage.atomic(path("model.safetensors")) as temporary:
            save_file(self.weights, temporary)
        storage.write_array(path("users.npy"), self.users)
        storage.write_array(path("items.npy"), self.items)
        with storage.atomic(path("curve.csv")) as temporary:
            pl.DataFrame([asdict(epoch) for epoch in self.curve]).write_csv(temporary)
        storage.write_text(path("curve.svg"), draw_curve(self.curve, self.best_epoch))
        storage.write_json(path("train.json"), {"best_epoch": self.best_epoch, "histories": self.histories})
        return ["model.safetensors", "users.npy", "items.npy", "curve.csv", "curve.svg", "train.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Trained:
        """Read what save wrote."""
        notes = storage.read_json(path("train.json"))
        users, items = (np.array(storage.read_array(path(name))) for name in ("users.npy", "items.npy"))
        curve = tuple(Epoch(**row) for row in pl.read_csv(path("curve.csv")).iter_rows(named=True))
        weights = load_file(path("model.safetensors"))
        return Trained(users, items, weights, curve, notes["best_epoch"], notes["histories"])

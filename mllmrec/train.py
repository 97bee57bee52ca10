"""Stage 5: the two projectors, by BPR, stopped early on validation Recall@20 (method 2.8-2.9).

Only the distinct users and items of a batch pass a projector. Everything random in an epoch is drawn from
(seed, epoch), so a checkpoint needs no generator state: weights, optimiser and counters at the end of an
epoch are enough to go on to the very same result.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import polars as pl
import torch
from mllmrec_kernels import CSR, sample_negatives
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mllmrec import metrics, storage
from mllmrec.config import TrainConfig
from mllmrec.dataset import Histories
from mllmrec.encode import Features, Vectors
from mllmrec.errors import MismatchError, TrainingError
from mllmrec.graph import ItemGraph
from mllmrec.models.mllmrec import MLLMRec, propagated_items
from mllmrec.models.scorer import VectorScorer
from mllmrec.progress import Progress, silent

STOPPING_CUTOFF = 20
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
        weights: the projectors at the chosen epoch.
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

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write model.safetensors, users.npy, items.npy, curve.csv and train.json."""
        with storage.atomic(path("model.safetensors")) as temporary:
            save_file(self.weights, temporary)
        storage.write_array(path("users.npy"), self.users)
        storage.write_array(path("items.npy"), self.items)
        with storage.atomic(path("curve.csv")) as temporary:
            pl.DataFrame([asdict(epoch) for epoch in self.curve]).write_csv(temporary)
        storage.write_json(path("train.json"), {"best_epoch": self.best_epoch, "histories": self.histories})
        return ["model.safetensors", "users.npy", "items.npy", "curve.csv", "train.json"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> Trained:
        """Read what save wrote."""
        notes = storage.read_json(path("train.json"))
        users, items = (np.array(storage.read_array(path(name))) for name in ("users.npy", "items.npy"))
        curve = tuple(Epoch(**row) for row in pl.read_csv(path("curve.csv")).iter_rows(named=True))
        weights = load_file(path("model.safetensors"))
        return Trained(users, items, weights, curve, notes["best_epoch"], notes["histories"])


@dataclass(frozen=True, slots=True)
class _State:
    """Where a training stands after an epoch."""

    epoch: int = 0
    best_epoch: int = 0
    best_recall: float = -math.inf
    best: Weights = field(default_factory=dict)
    curve: tuple[Epoch, ...] = ()

    def after(self, epoch: Epoch, model: MLLMRec) -> _State:
        better = epoch.recall > self.best_recall  # unrounded; a tie is no progress
        return _State(
            epoch=epoch.epoch,
            best_epoch=epoch.epoch if better else self.best_epoch,
            best_recall=epoch.recall if better else self.best_recall,
            best=_copy(model.state_dict()) if better else self.best,
            curve=(*self.curve, epoch),
        )


def train_model(
    features: Features,
    graph: ItemGraph,
    histories: Histories,
    valid: CSR,
    config: TrainConfig,
    *,
    seed: int,
    profiled: Histories | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train the projectors.

    Args:
        features: frozen vectors of users and items.
        graph: the item graph.
        histories: training histories.
        valid: [U, I] validation interactions; used for early stopping alone.
        config: widths, rates, limits.
        seed: of initial weights, shuffles and negatives.
        profiled: the histories behind the user vectors, where they are not the training ones (a LEAKY run).
        checkpoint: file to go on from and to write to; removed at the end.
        progress: told after each epoch.

    Raises:
        MismatchError: features, graph or checkpoint belong to other data.
        TrainingError: nothing to train on or to stop by, or the loss is not finite.
    """
    histories.require_training("the model")
    features.check(profiled or histories)
    graph.check(histories)
    trainer = _Trainer(features, graph, histories, valid, config, seed)
    state = trainer.restore(checkpoint) if checkpoint and checkpoint.exists() else _State()
    saved = time.monotonic()
    while state.epoch < config.epochs and state.epoch - state.best_epoch <= config.patience:
        state = state.after(trainer.run_epoch(state.epoch + 1), trainer.model)
        progress("train epochs", state.epoch, None)
        if checkpoint and time.monotonic() - saved >= config.checkpoint_seconds:
            trainer.save(checkpoint, state)
            saved = time.monotonic()
    result = trainer.result(state)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return result


class _Trainer:
    """Model, optimiser and constants of one training."""

    def __init__(
        self,
        features: Features,
        graph: ItemGraph,
        histories: Histories,
        valid: CSR,
        config: TrainConfig,
        seed: int,
    ) -> None:
        if len(histories.items) == 0:
            raise TrainingError("there are no training interactions; prepare the dataset with another split")
        if valid.nnz == 0:
            raise TrainingError(
                "the validation split is empty, so training would not know when to stop; prepare the dataset "
                "with a split that holds some interactions out"
            )
        self._device = _device(config)
        self._config, self._seed = config, seed
        self._histories, self._valid = histories, valid
        self._user_items = histories.user_items()
        propagated = propagated_items(features.items, graph, config.layers)
        self._user_features = torch.from_numpy(features.users).to(self._device)
        self._item_features = torch.from_numpy(propagated).to(self._device)
        self.model = self._initial_model()
        self._optimiser = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)

    def _initial_model(self) -> MLLMRec:
        widths = self._user_features.shape[1], self._item_features.shape[1]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self._seed)
            return MLLMRec(*widths, self._config.dim).to(self._device)

    def run_epoch(self, epoch: int) -> Epoch:
        loss = self._fit(epoch)
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {epoch}; the last checkpoint is kept: lower "
                "train.learning_rate, or look for extreme values in the features"
            )
        users, items = self._project_all()
        ranks = VectorScorer(users, items).ranks(self._user_items, self._valid)
        scored = metrics.mean(self._evaluated(ranks))
        return Epoch(epoch, loss, scored[f"recall@{STOPPING_CUTOFF}"], scored[f"ndcg@{STOPPING_CUTOFF}"])

    def _evaluated(self, ranks: NDArray[np.int32]) -> dict[str, NDArray[np.float64]]:
        trained = np.diff(self._user_items.indptr) > 0
        values = metrics.per_user(ranks, self._valid.indptr, (STOPPING_CUTOFF,))
        return {name: value[trained] for name, value in values.items()}

    def _fit(self, epoch: int) -> float:
        """One pass over the training pairs; the mean loss, read from the device once."""
        users, positives, negatives = self._samples(epoch)
        total = torch.zeros((), device=self._device)
        self.model.train()
        for start in range(0, len(users), self._config.batch_size):
            batch = slice(start, start + self._config.batch_size)
            loss = self._loss(users[batch], positives[batch], negatives[batch])
            self._optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()
            total += loss.detach() * len(users[batch])
        return float(total) / max(1, len(users))

    def _samples(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int32]]:
        """The epoch's shuffled (user, positive, negative) triples."""
        generator = np.random.default_rng([self._seed, epoch])
        users = np.repeat(np.arange(self._histories.n_users), np.diff(self._histories.indptr))
        order = generator.permutation(len(users))
        users, positives = users[order], self._histories.items[order]
        negatives = sample_negatives(self._user_items, users, generator=generator)
        # A user who has seen everything has nothing to rank lower.
        kept = negatives >= 0
        return users[kept], positives[kept], negatives[kept]

    def _loss(self, users: NDArray[np.int64], positives: NDArray[np.int32], negatives: NDArray[np.int32]) -> Tensor:
        rows, which_user = np.unique(users, return_inverse=True)
        columns, which_item = np.unique(np.concatenate([positives, negatives]), return_inverse=True)
        h_user = self.model.user(self._user_features[self._ids(rows)])
        h_item = self.model.item(self._item_features[self._ids(columns)])
        chosen = self._ids(which_item)
        positive, negative = h_item[chosen[: len(users)]], h_item[chosen[len(users) :]]
        return self.model.loss(h_user[self._ids(which_user)], positive, negative)

    def _ids(self, ids: NDArray[np.integer]) -> Tensor:
        return torch.from_numpy(ids.astype(np.int64)).to(self._device)

    @torch.no_grad()
    def _project_all(self) -> tuple[Vectors, Vectors]:
        self.model.eval()
        users, items = self.model.user(self._user_features), self.model.item(self._item_features)
        return users.cpu().numpy(), items.cpu().numpy()

    def result(self, state: _State) -> Trained:
        self.model.load_state_dict(state.best)
        users, items = self._project_all()
        weights = {name: tensor.cpu() for name, tensor in state.best.items()}
        return Trained(users, items, weights, state.curve, state.best_epoch, self._histories.digest)

    def _identity(self) -> str:
        """What a checkpoint must have been made from to be gone on with."""
        features = (self._user_features, self._item_features)
        config = self._config.model_dump(exclude={"checkpoint_seconds", "device", "epochs", "patience"})
        return storage.hash_value(
            {
                "histories": self._histories.digest,
                "features": [storage.hash_bytes(x.cpu().numpy().tobytes()) for x in features],
                "valid": storage.hash_bytes(self._valid.indptr.tobytes() + self._valid.indices.tobytes()),
                "config": config,
                "seed": self._seed,
            }
        )

    def save(self, path: Path, state: _State) -> None:
        """Write everything that the next epoch depends on, in one file."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in state.best.items()}
        for n, moments in self._optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{n}.{name}": tensor for name, tensor in moments.items()}
        counters = replace(state, best={})
        notes = {"identity": self._identity(), "state": json.dumps(asdict(counters))}
        with storage.atomic(path) as temporary:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, temporary, notes)

    def restore(self, path: Path) -> _State:
        """Go on where a checkpoint stands.

        Raises:
            MismatchError: it was made from other data or another config, or is damaged.
        """
        try:
            with safe_open(path, framework="pt", device=str(self._device)) as file:
                notes = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        except SafetensorError as error:
            raise MismatchError(f"the checkpoint {path} is damaged ({error}); remove it to start over") from error
        if notes.get("identity") != self._identity():
            raise MismatchError(
                f"the checkpoint {path} was made from other data or another config; remove it to start over"
            )
        self.model.load_state_dict(_under(tensors, "model."))
        self._restore_optimiser(_under(tensors, "adam."))
        counters = json.loads(notes["state"])
        counters["curve"] = tuple(Epoch(**row) for row in counters["curve"])
        return _State(**counters | {"best": _under(tensors, "best.")})

    def _restore_optimiser(self, tensors: Weights) -> None:
        whole = self._optimiser.state_dict()
        whole["state"] = {}
        for name, tensor in tensors.items():
            n, _, moment = name.partition(".")
            whole["state"].setdefault(int(n), {})[moment] = tensor
        self._optimiser.load_state_dict(whole)


def _device(config: TrainConfig) -> torch.device:
    if config.device != "auto":
        return torch.device(config.device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _copy(weights: Weights) -> Weights:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def _under(tensors: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

"""Stage 5: a model is fitted (method 2.8-2.9): a network by BPR, or item-item weights in closed form.

Networks stop early on validation Recall@20. Everything random in an epoch is drawn from (seed, epoch), so
that a killed training goes on to the very same result (checkpoint.py). Pairs, negatives and the loss stay on the
device: between the first step of an epoch and its last nothing waits for it. Where a user's row is projected, the
epoch shuffles users, not pairs, so that the pairs of a user share a batch, the negatives of a batch come from a pool
(negatives.py), and of a batch each row is projected once.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import torch
from mllmrec_kernels import CSR, rank_heldout
from numpy.typing import NDArray
from torch import Tensor

from mllmrec.config import ModelConfig, TrainConfig
from mllmrec.dataset import Histories
from mllmrec.errors import TrainingError
from mllmrec.evaluation import metrics
from mllmrec.features.encode import Features
from mllmrec.foundation import storage
from mllmrec.foundation.device import resolve
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.models.build import build_network
from mllmrec.models.embedding_model import Epoch, Trained
from mllmrec.models.ensemble import Blend, blend
from mllmrec.models.factors import Factors, ials
from mllmrec.models.item_knn import item_knn
from mllmrec.models.item_weights import ItemWeights, ease, ridge
from mllmrec.training import checkpoint as checkpoints
from mllmrec.training.checkpoint import State
from mllmrec.training.loop import Steps
from mllmrec.training.negatives import Negatives

STOPPING_CUTOFF = 20
Fitted = Trained | ItemWeights | Factors | Blend


def fitted_type(model: ModelConfig) -> type[Trained] | type[ItemWeights] | type[Factors] | type[Blend]:
    """The artefact that fitting a model leaves."""
    match model.kind:
        case "ridge" | "ease" | "item-knn":
            return ItemWeights
        case "ials":
            return Factors
        case "blend":
            return Blend
        case _:
            return Trained


def fit_model(
    features: Features,
    graph: ItemGraph,
    histories: Histories,
    valid: CSR,
    model: ModelConfig,
    train: TrainConfig,
    *,
    seed: int,
    profiled: Histories | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Fitted:
    """Fit a model of any kind; see train_model."""
    if len(histories.items) == 0:
        raise TrainingError("there are no training interactions; prepare the dataset with another split")
    match model.kind:
        case "ridge":
            return ridge(features.items, histories, model, device=_device(train))
        case "blend":
            return blend(features, histories, valid, model, seed=seed, profiled=profiled, device=_device(train))
        case "ials":
            return ials(
                histories, rank=model.rank, unobserved=model.unobserved, shrinkage=model.shrinkage, seed=seed,
                sweeps=model.sweeps,
            )  # fmt: skip
        case "item-knn":
            return item_knn(histories, neighbours=model.neighbours, weighting=model.weighting)
        case "ease":
            return ease(features.items, histories, model)
        case _:
            return train_model(
                features, graph, histories, valid, train, model=model, seed=seed, profiled=profiled,
                checkpoint=checkpoint, progress=progress,
            )  # fmt: skip


def train_model(
    features: Features,
    graph: ItemGraph,
    histories: Histories,
    valid: CSR,
    config: TrainConfig,
    *,
    seed: int,
    model: ModelConfig | None = None,
    profiled: Histories | None = None,
    checkpoint: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a network by BPR.

    Args:
        features: frozen vectors of users and items.
        graph: the item graph.
        histories: training histories.
        valid: [U, I] validation interactions; used for early stopping alone.
        config: widths, rates, limits.
        seed: of initial weights, shuffles and negatives.
        model: which network; MLLMRec where none is named.
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
    trainer = _Trainer(features, graph, histories, valid, model or ModelConfig(kind="mllmrec"), config, seed)
    state = trainer.restore(checkpoint) if checkpoint and checkpoint.exists() else State()
    saved = time.monotonic()
    while state.epoch < config.epochs and state.epoch - state.best_epoch <= config.patience:
        state = state.after(trainer.run_epoch(state.epoch + 1), trainer.network)
        progress("train epochs", state.epoch, None)
        if checkpoint and time.monotonic() - saved >= config.checkpoint_seconds:
            trainer.save(checkpoint, state)
            saved = time.monotonic()
    result = trainer.result(state)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return result


class _Trainer:
    """Network, optimiser and constants of one training."""

    def __init__(
        self,
        features: Features,
        graph: ItemGraph,
        histories: Histories,
        valid: CSR,
        model: ModelConfig,
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
        self._histories, self._user_items = histories, histories.user_items()
        judged = metrics.users_with_heldout(self._user_items, valid)
        self._seen, self._held = self._user_items.take_rows(judged), valid.take_rows(judged)
        self._judged = torch.from_numpy(judged).to(self._device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = build_network(model, config, features, graph, histories).to(self._device)
        self._steps = Steps(self.network, config, self._device)
        self._users, self._positives = (torch.from_numpy(ids).to(self._device) for ids in _pairs(histories))
        pool = config.negative_pool if self.network.whole_users else 0
        self._negatives = Negatives(self._user_items, config.batch_size, pool, self._device)
        self._shuffled = histories.n_users if self.network.whole_users else len(self._users)
        self._identity = _identity(features, graph, histories, valid, model, config, seed)

    def run_epoch(self, epoch: int) -> Epoch:
        with self._steps.threads():
            loss = self._checked(epoch)
            return Epoch(epoch, loss, *self._validate())

    def _checked(self, epoch: int) -> float:
        """The epoch's loss, if it is one."""
        try:
            loss = self._fit(epoch)
        except RuntimeError as error:  # what torch.compile raises where there is no compiler
            if not self._config.compile:
                raise
            raise TrainingError(
                f"train.compile=true does not work here ({str(error).splitlines()[0]}); install a C++ compiler, or "
                "leave train.compile=false"
            ) from error
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} in epoch {epoch}; the last checkpoint is kept: lower "
                "train.learning_rate, or look for extreme values in the features"
            )
        return loss

    def _fit(self, epoch: int) -> float:
        """One pass over the training pairs; the mean loss."""
        generator = np.random.default_rng([self._seed, epoch])
        triples = self._triples(generator)
        self.network.start_epoch(generator)
        return self._steps.run(triples)

    def _validate(self) -> tuple[float, float]:
        """Recall and NDCG of the users whom training stops by; ranks are counted where the vectors are."""
        users, items = self._vectors()
        ranks = rank_heldout(users[self._judged], items, self._seen, self._held, limit=STOPPING_CUTOFF)
        scored = metrics.mean(metrics.per_user(ranks.cpu().numpy(), self._held.indptr, (STOPPING_CUTOFF,)))
        return scored[f"recall@{STOPPING_CUTOFF}"], scored[f"ndcg@{STOPPING_CUTOFF}"]

    def _triples(self, generator: np.random.Generator) -> Tensor:
        """The epoch's shuffled (user, positive, negative) triples, int64 [3, pairs] on the device, drawn there."""
        drawn = torch.Generator(self._device).manual_seed(int(generator.integers(2**63)))
        shuffled = torch.randperm(self._shuffled, generator=drawn, device=self._device)
        order = torch.argsort(shuffled[self._users], stable=True) if self.network.whole_users else shuffled
        users, positives = self._users[order], self._positives[order]
        return torch.stack([users, positives, self._negatives.draw(users, drawn)])

    @torch.no_grad()
    def _vectors(self) -> tuple[Tensor, Tensor]:
        """Users and items, float32 on the device."""
        self.network.eval()
        users, items = self.network.vectors()
        return users.contiguous(), items.contiguous()

    def result(self, state: State) -> Trained:
        self.network.load_state_dict(state.best)
        users, items = (vectors.cpu().numpy() for vectors in self._vectors())
        weights = {name: tensor.cpu() for name, tensor in state.best.items()}
        return Trained(users, items, weights, state.curve, state.best_epoch, self._histories.digest)

    def save(self, path: Path, state: State) -> None:
        checkpoints.save(path, self._identity, state, self.network, self._steps.optimiser)

    def restore(self, path: Path) -> State:
        return checkpoints.restore(path, self._identity, self.network, self._steps.optimiser, self._device)


def _pairs(histories: Histories) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(users, items) of all training interactions, but of users who have seen everything that anybody has.

    They have nothing to rank lower.
    """
    counts = np.diff(histories.indptr)
    users = np.repeat(np.arange(histories.n_users), counts)
    kept = counts[users] < len(np.unique(histories.items))
    return users[kept], histories.items[kept].astype(np.int64)


def _identity(
    features: Features, graph: ItemGraph, histories: Histories, valid: CSR, model: ModelConfig,
    config: TrainConfig, seed: int,
) -> str:  # fmt: skip
    """What a checkpoint must have been made from to be gone on with."""
    edges = graph.normalised
    arrays = features.users, features.items, edges.indices, edges.values(), valid.indptr, valid.indices
    return storage.hash_value(
        {
            "histories": histories.digest,
            "arrays": [storage.hash_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays],
            "model": model.identity(),
            "config": config.model_dump(exclude={"checkpoint_seconds", "device", "epochs", "patience"}),
            "seed": seed,
        }
    )


def _device(config: TrainConfig) -> torch.device:
    return resolve(config.device, "train.device")

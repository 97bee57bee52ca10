"""Train a network by BPR, stopped early by validation Recall@20 (docs/method.md, section 4).

Everything random in an epoch is drawn from (seed, epoch), so a killed training goes on to the same bytes. Pairs,
negatives and the loss stay on the device: between the first step of an epoch and its last nothing waits for it. Where
a user's row is projected, the epoch shuffles users, not pairs. The pairs of a user then share a batch, the negatives
of a batch come from a pool, and each row is projected once per batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mllmrec_kernels import CSR, rank_heldout
from numpy.typing import NDArray
from torch import Tensor

from mllmrec.config import TrainConfig
from mllmrec.errors import TrainingError
from mllmrec.evaluation import metrics
from mllmrec.foundation import digests
from mllmrec.foundation.environment import resolve_device
from mllmrec.foundation.progress import Progress, silent
from mllmrec.training import EPOCHS, ranks
from mllmrec.training import checkpoint as checkpoints
from mllmrec.training.checkpoint import Epoch, Parameters, State
from mllmrec.training.loop import Negatives, Network, Steps

STOPPING_CUTOFF = 20


@dataclass(frozen=True, slots=True)
class Training:
    """Data and settings of one training.

    Attributes:
        user_items: R, binary [U, I], training interactions.
        valid: binary [U, I], validation interactions; used only for early stopping.
        pairs: users and items of the training interactions, int64 [nnz] each, grouped by user.
        config: widths, rates, limits.
        seed: of first parameters, shuffles and negatives.
        identity: what else a checkpoint must have been made from, JSON-like.
    """

    user_items: CSR
    valid: CSR
    pairs: tuple[NDArray[np.int64], NDArray[np.int64]]
    config: TrainConfig
    seed: int
    identity: dict[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of everything that an epoch depends on."""
        held = (digests.hash_bytes(array.tobytes()) for array in (self.valid.indptr, self.valid.indices))
        config = self.config.model_dump(exclude={"checkpoint_seconds", "device", "epochs", "patience"})
        return digests.hash_value({**self.identity, "valid": list(held), "config": config, "seed": self.seed})


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training.

    Attributes:
        users: float32 [U, d].
        items: float32 [I, d].
        parameters: of the network at the chosen epoch.
        curve: one entry per epoch.
        best_epoch: the chosen epoch, counted from 1.
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    parameters: Parameters
    curve: tuple[Epoch, ...]
    best_epoch: int


def train_network(
    build: Callable[[], Network], task: Training, *, checkpoint: Path | None = None, progress: Progress = silent
) -> Trained:
    """Train until validation Recall@20 has not risen for `patience` evaluations.

    Args:
        build: returns the untrained network; first parameters come from torch's generator, seeded here.
        task: data and settings.
        checkpoint: file to go on from and to write to; removed at the end.
        progress: called after each epoch.

    Raises:
        MismatchError: the checkpoint belongs to other data or settings.
        TrainingError: the loss is not finite.
    """
    trainer, config = Trainer(build, task), task.config
    begun = ranks.agree_text(str(checkpoint) if checkpoint and checkpoint.exists() else "")
    state = trainer.restore(Path(begun)) if begun else State()
    ranks.agree(state.epoch)  # nobody overwrites the file before all have read it
    checkpoint = checkpoint if ranks.own() == 0 else None
    saved = time.monotonic()
    while state.epoch < config.epochs and state.epoch - state.best_epoch <= config.patience:
        state = state.after(trainer.run_epoch(state.epoch + 1), trainer.network)
        progress(EPOCHS, state.epoch, None)
        if checkpoint and time.monotonic() - saved >= config.checkpoint_seconds:
            trainer.save(checkpoint, state)
            saved = time.monotonic()
    trained = trainer.result(state)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
    return trained


class Trainer:
    """Network, optimizer and constants of one training."""

    def __init__(self, build: Callable[[], Network], task: Training) -> None:
        """Build the network and put everything on the device.

        Raises:
            ConfigError: train.device asks for a GPU that is not there.
        """
        self._task, self._config = task, task.config
        self._device = resolve_device(task.config.device, "train.device")
        validated = metrics.users_with_heldout(task.user_items, task.valid)
        self._owned, self._held = task.user_items.take_rows(validated), task.valid.take_rows(validated)
        self._validated = torch.from_numpy(validated).to(self._device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            self.network = build().to(self._device)
        self._steps = Steps(self.network, task.config, self._device)
        self._users, self._positives = (torch.from_numpy(ids).to(self._device) for ids in _rankable(task))
        pool = task.config.negative_pool if self.network.shuffles_users else 0
        self._negatives = Negatives(task.user_items, task.config.batch_size, pool, self._device)
        self._shuffled = task.user_items.n_rows if self.network.shuffles_users else len(self._users)

    def run_epoch(self, epoch: int) -> Epoch:
        """Take the steps of an epoch, counted from 1, and validate."""
        with self._steps.threads():
            loss = self._checked(epoch)
            return Epoch(epoch, loss, *self._validate())

    def _checked(self, epoch: int) -> float:
        """Return the epoch's loss.

        Raises:
            TrainingError: it is not finite, or torch.compile does not work here.
        """
        try:
            loss = self._fit(epoch)
        except RuntimeError as error:  # torch.compile raises it if there is no compiler
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
        """Take one pass over the training pairs; return the mean loss."""
        generator = np.random.default_rng([self._task.seed, epoch])
        triples = self.triples(generator)
        self.network.start_epoch(generator)
        return self._steps.run(triples)

    def _validate(self) -> tuple[float, float]:
        """Return Recall and NDCG of the validated users; ranks are counted where the vectors are."""
        if ranks.own():  # whose network is the same
            return self._agreed(0.0, 0.0)
        users, items = self._vectors()
        found = rank_heldout(users[self._validated], items, self._owned, self._held, limit=STOPPING_CUTOFF)
        scored = metrics.mean(metrics.per_user(found.cpu().numpy(), self._held.indptr, (STOPPING_CUTOFF,)))
        return self._agreed(scored[f"recall@{STOPPING_CUTOFF}"], scored[f"ndcg@{STOPPING_CUTOFF}"])

    @staticmethod
    def _agreed(recall: float, ndcg: float) -> tuple[float, float]:
        recall, ndcg = ranks.agree(recall, ndcg)
        return recall, ndcg

    def triples(self, generator: np.random.Generator) -> Tensor:
        """Draw an epoch's shuffled (user, positive, negative) triples, int64 [3, pairs], on the device."""
        drawn = torch.Generator(self._device).manual_seed(int(generator.integers(2**63)))
        shuffled = torch.randperm(self._shuffled, generator=drawn, device=self._device)
        order = torch.argsort(shuffled[self._users], stable=True) if self.network.shuffles_users else shuffled
        users, positives = self._users[order], self._positives[order]
        return torch.stack([users, positives, self._negatives.draw(users, drawn)])

    @torch.no_grad()
    def _vectors(self) -> tuple[Tensor, Tensor]:
        """Return users and items, float32 on the device."""
        self.network.eval()
        users, items = self.network.vectors()
        return users.contiguous(), items.contiguous()

    def result(self, state: State) -> Trained:
        """Return vectors and parameters of the best epoch."""
        self.network.load_state_dict(state.best)
        users, items = (vectors.cpu().numpy() for vectors in self._vectors())
        parameters = {name: tensor.cpu() for name, tensor in state.best.items()}
        return Trained(users, items, parameters, state.curve, state.best_epoch)

    def save(self, path: Path, state: State) -> None:
        """Write a checkpoint."""
        checkpoints.save(path, self._task.digest, state, self.network, self._steps.optimizer)

    def restore(self, path: Path) -> State:
        """Read a checkpoint; see checkpoint.restore."""
        return checkpoints.restore(path, self._task.digest, self.network, self._steps.optimizer, self._device)


def _rankable(task: Training) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of users who lack an item that anybody has; others have nothing to rank lower."""
    users, items = task.pairs
    counts = np.diff(task.user_items.indptr)
    kept = counts[users] < len(np.unique(items))
    return users[kept], items[kept]

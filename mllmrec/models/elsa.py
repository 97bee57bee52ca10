"""ELSA: a low-rank autoencoder of items, trained by gradients.

Vančura et al., Scalable Linear Shallow Autoencoder for Collaborative Filtering, RecSys 2022. With A [I, r], rows of
unit length,

    score_u = R_u (A A^T - I),   loss = mean over users of |R_u / |R_u| - s_u / |s_u||²,   s_u the score.

NAdam takes steps over shuffled users, with a learning rate of 0.1 and batches of 1,024 in the paper. Validation NDCG@20
is read every five epochs, and training stops when it has not risen for two readings. - I touches a user's own items
alone, so the fitted model is R A and A. Memory: (U + I) r.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
import torch
from mllmrec_kernels import CSR
from pydantic import Field
from torch import Tensor
from torch.nn import functional

from mllmrec.config import ModelConfig, Positive
from mllmrec.errors import TrainingError
from mllmrec.foundation import storage
from mllmrec.foundation.environment import resolve_device
from mllmrec.models.base import FilePath, FitData
from mllmrec.models.scorer_model import EmbeddingModel
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.validation import validation_ndcg

_EVERY = 5  # epochs between two readings of validation
_PATIENCE = 2  # readings without a rise
_TINY = 1e-12  # keeps the root's slope finite where a user's score is 0 for all items


class ELSAConfig(ModelConfig):
    """Settings of ELSA."""

    kind: Literal["elsa"] = "elsa"
    factors: Positive = 256  # r
    learning_rate: Annotated[float, Field(gt=0)] = 0.1
    batch_size: Positive = 1024  # users per step
    epochs: Positive = 100  # at most


class ELSA(EmbeddingModel):
    """See the module.

    Attributes:
        epochs: that the kept factors were trained for.
    """

    Config = ELSAConfig
    config: ELSAConfig
    title = "ELSA"
    reads = frozenset()
    is_random = True
    epochs: int = 0
    candidates = tuple(
        (f"model.factors={r}", f"model.learning_rate={rate}") for r in (256, 512) for rate in (0.1, 0.03, 0.01)
    )

    def _fit(self, data: FitData) -> None:
        """Train A.

        Raises:
            TrainingError: there is nothing to stop by, or the loss is not finite.
            ConfigError: train.device asks for a GPU that is not there.
        """
        valid, R = data.required_valid("ELSA stops by it"), data.user_items
        network = _Factors(R, self.config, data.seed, resolve_device(self.context.train.device, "train.device"))
        reached, since = -1.0, 0
        for epoch in range(1, self.config.epochs + 1):
            network.train_epoch()
            self.context.progress("fit ELSA", epoch, self.config.epochs)
            if epoch % _EVERY and epoch < self.config.epochs:
                continue
            vectors = network.vectors()
            ndcg = validation_ndcg(vectors, R, valid)
            if ndcg > reached:
                reached, since, self.vectors, self.epochs = ndcg, 0, vectors, epoch
            else:
                since += 1
            if since >= _PATIENCE:
                break

    @property
    def summary(self) -> str:
        """One line about the fitted model."""
        return f"ELSA, {self.items.shape[1]} factors, epoch {self.epochs}"

    def write_files(self, path: FilePath) -> list[str]:
        """Write users.npy, items.npy and train.json."""
        storage.write_array(path("users.npy"), self.users)
        storage.write_array(path("items.npy"), self.items)
        storage.write_json(path("train.json"), {"histories": self.context.digest, "epochs": self.epochs})
        return ["users.npy", "items.npy", "train.json"]

    def read_files(self, path: FilePath) -> Self:
        """Read what `write_files` wrote."""
        users, items = (np.array(storage.read_array(path(f"{side}.npy"))) for side in ("users", "items"))
        self.vectors, self.epochs = VectorScorer(users, items), int(storage.read_json(path("train.json"))["epochs"])
        return self


class _Factors:
    """A in training.

    Args:
        user_items: R, binary [U, I].
        config: width, rate, batches.
        seed: of the first factors and of the shuffles.
        device: where steps are computed.
    """

    def __init__(self, user_items: CSR, config: ELSAConfig, seed: int, device: torch.device) -> None:
        self._R, self._filled = user_items, np.flatnonzero(np.diff(user_items.indptr))
        self._batch, self._device = config.batch_size, device
        self._shuffles = np.random.default_rng(seed)
        first = torch.randn(user_items.n_columns, config.factors, generator=torch.Generator().manual_seed(seed))
        self._A = (first / config.factors**0.5).to(device).requires_grad_()
        self._optimizer = torch.optim.NAdam([self._A], lr=config.learning_rate)

    def train_epoch(self) -> None:
        """Take a step per batch of users.

        Raises:
            TrainingError: the loss is not finite.
        """
        order = self._shuffles.permutation(self._filled)
        for start in range(0, len(order), self._batch):
            loss = self._loss(self._R.take_rows(order[start : start + self._batch]))
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            if not torch.isfinite(loss):
                raise TrainingError(f"ELSA's loss is {loss.item()}; lower model.learning_rate")

    def _loss(self, rows: CSR) -> Tensor:
        items, starts = (
            torch.from_numpy(ids.astype(np.int64)).to(self._device) for ids in (rows.indices, rows.indptr[:-1])
        )
        return reconstruction_loss(items, starts, self._A)

    def vectors(self) -> VectorScorer:
        """Return R A and A, of unit rows."""
        A = functional.normalize(self._A.detach(), dim=1).cpu().numpy()
        return VectorScorer(np.ascontiguousarray(self._R.to_scipy() @ A, np.float32), A)


def reconstruction_loss(items: Tensor, starts: Tensor, A: Tensor) -> Tensor:
    """Return the loss of a batch of users.

    With z = x A, n = |x|² and unit rows of A, x s^T = |z|² - n and |s|² = z (A^T A) z^T - 2 |z|² + n. So no row of the
    catalogue's width is formed: a step takes I r² operations where x A A^T takes B I r.

    Args:
        items: int64 [n], those of each user after those of the user before.
        starts: int64 [B], where those of a user begin; each has one at least.
        A: [I, r], before its rows are scaled to unit length.
    """
    rows = functional.normalize(A, dim=1)
    z = functional.embedding_bag(items, rows, starts, mode="sum")
    count = torch.diff(starts, append=starts.new_tensor([len(items)]))
    own = z.square().sum(dim=1)
    length = ((z @ (rows.T @ rows)) * z).sum(dim=1) - 2 * own + count
    cosine = (own - count) / (count * length).clamp(min=_TINY).sqrt()
    return (2 - 2 * cosine).mean()

"""The contract of a network that the trainer trains: two towers whose score is an inner product."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from torch import Tensor, nn


class Network(nn.Module, ABC):
    """A model of two towers.

    Constants (features, graphs) are non-persistent buffers or plain attributes, so the state is only the parameters.

    Attributes:
        shuffles_users: an epoch shuffles users and keeps the pairs of each together, and a batch draws its negatives
            from a pool. It pays where a row costs more than a look-up. Models of ids keep to shuffled pairs and
            independent negatives, as their papers do.
        replayable: a step is the same operations over the same memory whatever the batch, so a GPU may replay it.
        own_threads: on the CPU the kernels of a step bring their own threads; torch's would only spin beside them.
    """

    shuffles_users = False
    replayable = False
    own_threads = False

    def start_epoch(self, generator: np.random.Generator) -> None:
        """Draw what stays the same within an epoch; most networks have nothing to draw."""

    @abstractmethod
    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch of triples.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return all users [U, d] and all items [I, d]; the score is their inner product."""

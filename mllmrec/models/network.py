"""What the trainer trains: a network of two towers whose score is an inner product, by BPR.

A network holds its constants (features, graphs) as non-persistent buffers or plain attributes, so that its
state is its parameters alone, and draws what is random in an epoch in `start_epoch`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import mllmrec_kernels as kernels
import numpy as np
import torch
from mllmrec_kernels import CSR, normalize
from torch import Tensor, nn

Penalty = Callable[..., Tensor]  # of a batch's tables [B, d]: squares or norms


class Network(nn.Module, ABC):
    """A model of two towers.

    Attributes:
        whole_users: an epoch shuffles users and keeps the pairs of each together, and a batch's negatives come from
            a pool. It pays where a row costs more than a look-up; models of ids keep to shuffled pairs and
            independent negatives, as their papers do.
        same_steps: a step is the same operations over the same memory whatever the batch, so that a GPU may replay it.
        own_threads: on the CPU the kernels of a step bring threads of their own, beside which torch's would only spin.
    """

    whole_users = False
    same_steps = False
    own_threads = False

    def start_epoch(self, generator: np.random.Generator) -> None:
        """Draw what stays the same within an epoch; most networks have nothing to draw."""

    @abstractmethod
    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """The mean loss of a batch of triples.

        Args:
            users, positives, negatives: int64 [B] ids.
        """

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """All users [U, d] and all items [I, d]; the score is their inner product."""


def distinct(ids: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, which) with ids = rows[which], so that what is asked for twice is projected once.

    On another device than the CPU the rows are the ids themselves: to count the distinct ones would stop the
    device at each step, which costs it more than the rows that are saved.

    Args:
        ids: int64 [B].
    """
    if ids.device.type != "cpu":
        return ids, torch.arange(len(ids), device=ids.device)
    if torch.compiler.is_compiling():  # which sees through torch's operations alone
        first, places = torch.unique(ids, return_inverse=True)
        return first, places
    rows, which = kernels.unique_rows(ids.numpy())
    return torch.from_numpy(rows), torch.from_numpy(which)


def embedding(rows: int, dim: int) -> nn.Parameter:
    """A table of ids, Xavier uniform, [rows, dim]."""
    return nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, dim)))


def squares(*tables: Tensor) -> Tensor:
    """Half the squared norm of a batch's rows, over the batch: the L2 term of BPR-MF and LightGCN."""
    total = sum((table.square().sum() for table in tables), start=torch.zeros((), device=tables[0].device))
    return total / (2 * len(tables[0]))


def norms(*tables: Tensor) -> Tensor:
    """The norm of a batch's rows as a whole, not squared, over the batch: the same term in RecBole and MMRec."""
    total = sum((table.norm() for table in tables), start=torch.zeros((), device=tables[0].device))
    return total / len(tables[0])


def bipartite(user_items: CSR) -> CSR:
    """D^-1/2 A D^-1/2 of the graph that joins users [0, U) with items [U, U + I), [U + I, U + I]."""
    users, items = user_items.rows(), user_items.indices.astype(np.int64) + user_items.n_rows
    n = sum(user_items.shape)
    return normalize(CSR.from_pairs(np.concatenate([users, items]), np.concatenate([items, users]), (n, n)))

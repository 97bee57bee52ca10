"""Parts that several networks share: embeddings, penalties, the user-item graph, rows computed once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import mllmrec_kernels as kernels
import numpy as np
import torch
from mllmrec_kernels import CSR, normalize
from torch import Tensor, nn

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

"""The ridge regressions in batches of torch operations, on the device of the vectors.

A batch is b items with their neighbors, slot 0 the item j itself, up to W slots; shorter ones are padded:

    shared users   X [b W, n] has a one for each slot and user of it. A row's users are numbered anew, 0..n-1, so n is
                   the size of the batch's most popular neighborhood, not U. Shared users are X X^T, small products
                   of zeros and ones: exact in float32, and in TF32, for they stay below 2^24
    content        w V V^T, float32 rows multiplied in float64
    Cholesky       of G[1:, 1:] + lambda I, which is lambda I where a slot is padding: its weight is 0

All products and solves are float64, and counts are exact. So the difference to the reference is the conditioning of the
system, as in cpu.py.

Users are counted once for all tables of vectors. Bytes on the device: the tables, 8 per user-item pair, 8 per entry of
the support, and a batch. Rows are taken from few users to many, as many at a time as the budget holds, whatever I is. A
row whose users exceed it is counted a range of users at a time, each of at most the budget; beside it stand the
W (12 d + 32 W) of that one row. Small batches leave a GPU waiting for the next launch, so its budget is larger.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.ridge.reference import Strengths, count_members

BUDGET, GPU_BUDGET = 2**28, 2**31  # bytes of a batch on the CPU, and on a GPU; there at most a quarter of what is free
ROWS = 2**15  # of a batch at most: batched CUDA routines number their matrices in a grid's 65,535
_MEMBER = 96  # bytes of a slot's user beside the incidence: eight int64 while they are numbered, and room for the sort
_CELL = 32  # of a pair of slots: counts, products, G and its factor in float64


def ridge_weights(
    user_items: CSR, pairs: Tensor, tables: Sequence[Tensor], support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    """Return the weights in the order of `support`'s entries, NaN if a system fails.

    float32 [len(tables), len(strengths), support.nnz].

    Args:
        user_items: R, [U, I], the pattern.
        pairs: of `user_items`, on the device of the tables; see list_pairs.
        tables: V of each, float32 [I, d], all on the device that computes.
        support: [I, I], the pattern.
        strengths: pairs (w, lambda).
    """
    device, n_users = pairs.device, user_items.n_rows
    indptr, neighbors = (torch.from_numpy(ids).to(device) for ids in (support.indptr, support.indices))
    weights = torch.empty((len(tables), len(strengths), support.nnz), dtype=torch.float32, device=device)
    widest = max(V.shape[1] for V in tables)
    for rows, span in _batches(user_items, support, widest, _budget(device)):
        items, entries, live = _slots(torch.from_numpy(rows).to(device), indptr, neighbors)
        shared = torch.zeros((*items.shape, items.shape[1]), dtype=torch.float64, device=device)  # [b, W, W]
        for first in range(0, n_users, span):
            shared += _shared_users(pairs, items, live, n_users, first, min(first + span, n_users))
        for of_table, table in zip(weights, tables, strict=True):
            V = table[items].double().mul_(live[:, :, None])  # [b, W, d]
            content = V @ V.mT if any(weight for weight, _ in strengths) else torch.zeros_like(shared)
            for out, (content_weight, regularization) in zip(of_table, strengths, strict=True):
                G = torch.add(shared, content, alpha=content_weight)
                out[entries[live[:, 1:]]] = _solve(G, regularization)[live[:, 1:]].float()
    return weights.cpu().numpy()


def list_pairs(user_items: CSR, device: torch.device) -> Tensor:
    """Return item U + user of each interaction, ascending, int64 [nnz].

    One binary search then finds any range of an item's users.

    Args:
        user_items: R, [U, I], the pattern.
        device: where they are copied to.
    """
    item_users = user_items.transpose()
    return torch.from_numpy(item_users.rows() * user_items.n_rows + item_users.indices).to(device)


def _budget(device: torch.device) -> int:
    """Return the bytes of a batch."""
    if device.type != "cuda":
        return BUDGET
    return min(GPU_BUDGET, int(torch.cuda.mem_get_info(device)[0]) // 4)


def _batches(user_items: CSR, support: CSR, d: int, budget: int) -> Iterator[tuple[NDArray[np.int64], int]]:
    """Yield rows of `support` to solve together, int64 [b], and the number of users to count at a time.

    Args:
        user_items: R, [U, I].
        support: [I, I].
        d: columns of the widest table.
        budget: bytes of a batch.
    """
    degrees = np.bincount(user_items.indices, minlength=user_items.n_columns)
    members, lengths = count_members(degrees, support), np.diff(support.indptr)
    rows = np.argsort(members, kind="stable")
    rows = rows[lengths[rows] > 0]
    slots, members = np.maximum.accumulate(lengths[rows] + 1), members[rows]
    users = max(1, user_items.n_rows)
    counting = _MEMBER * members + 4 * slots * np.minimum(members, users)
    costs = counting + slots * (12 * d + _CELL * slots)  # of a row; they rise
    start = 0
    while start < len(rows):
        ahead = costs[start : start + min(ROWS, max(1, budget // int(costs[start])))]
        fitting = np.searchsorted(ahead * np.arange(1, len(ahead) + 1), budget, side="right")
        stop = start + max(1, int(fitting))
        whole = counting[stop - 1] <= budget
        yield rows[start:stop], users if whole else max(1, budget // int((_MEMBER + 4) * slots[stop - 1]))
        start = stop


def _slots(rows: Tensor, indptr: Tensor, neighbors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return for rows [b] the items [b, W], the row itself first, the entries [b, W - 1], and the real slots [b, W]."""
    starts, ends = indptr[rows, None], indptr[rows + 1, None]
    entries = starts + torch.arange(int((ends - starts).max()), device=rows.device)
    live = torch.nn.functional.pad(entries < ends, (1, 0), value=True)
    entries = torch.minimum(entries, ends - 1)  # padding repeats the last neighbor, and is masked
    return torch.cat([rows[:, None], neighbors[entries]], dim=1), entries, live


def _shared_users(pairs: Tensor, items: Tensor, live: Tensor, n_users: int, first: int, last: int) -> Tensor:
    """Count the users in [first, last) that each two slots of a row share, float32 [b, W, W]; 0 for padding."""
    b, W = items.shape
    begins = torch.searchsorted(pairs, items * n_users + first)
    counts = (torch.searchsorted(pairs, items * n_users + last) - begins).mul_(live).flatten()
    slot = torch.repeat_interleave(counts)  # of each member; [m]
    place = torch.arange(len(slot), device=slot.device) - (counts.cumsum(0) - counts - begins.flatten())[slot]
    row = slot // W
    known, column = torch.unique(row * n_users + pairs[place] % n_users, return_inverse=True)  # sorted by row
    starts = torch.searchsorted(known, torch.arange(b + 1, device=slot.device) * n_users)
    incidence = torch.zeros((b * W, int(starts.diff().max())), dtype=torch.float32, device=slot.device)
    incidence[slot, column - starts[row]] = 1
    incidence = incidence.view(b, W, -1)
    return incidence @ incidence.mT


def _solve(G: Tensor, regularization: float) -> Tensor:
    """Return (G[1:, 1:] + lambda I)^-1 G[1:, 0] of each matrix [b, W, W], float64 [b, W - 1]; G is overwritten."""
    system = G[:, 1:, 1:]
    system.diagonal(dim1=1, dim2=2).add_(regularization)
    factor, failed = torch.linalg.cholesky_ex(system)
    weights = torch.cholesky_solve(G[:, 1:, :1], factor).squeeze(2)
    return weights.masked_fill_(failed[:, None] > 0, torch.nan)

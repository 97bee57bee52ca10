"""Rank, list and score by sparse part plus inner product on the GPU.

As on the CPU (cpu.py): the kernels of the inner product do the catalogue, and the items whose sparse part is not 0
correct them. The sparse part of a block of users is dense on the device.

Bytes: R, W, the vectors, and in a block 4 I per user and 64 per item with a sparse part, within `max_bytes` / 4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.device_cache import DeviceCSR
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.mixed import gpu_rows
from mllmrec_kernels.mixed.gpu_items import DeviceSparse
from mllmrec_kernels.rank import gpu as rank_gpu
from mllmrec_kernels.topk import gpu as topk_gpu
from mllmrec_kernels.topk.gpu_block import EMPTY, key_scores


@dataclass(frozen=True, slots=True)
class DeviceScores:
    """Mixed scores on a device: the sparse part, scale float32 [U], and vectors float32, or None for neither."""

    sparse: DeviceSparse
    scale: Tensor
    users: Tensor | None
    items: Tensor | None

    def dots(self, users: Tensor, items: Tensor) -> Tensor:
        """Return the inner products of pairs, float64 [n], for int32 users and items."""
        if self.users is None or self.items is None:
            return torch.zeros(len(users), dtype=torch.float64, device=users.device)
        return gpu_score.dots(self.users, self.items, users, items)

    def few(self, users: Tensor) -> _Few:
        """Score the items whose sparse part is not 0."""
        rows, items, values = _filled(self.sparse.rows(users))
        owners = users[rows]
        dots = self.dots(owners.to(torch.int32), items.to(torch.int32))
        added = values.double() * self.scale[owners].double()
        return _Few(rows, items.to(torch.int32), dots.float(), (added + dots).float())


def _filled(sums: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return row, column and value of what is not 0, row by row, columns ascending."""
    rows, columns = torch.nonzero(sums, as_tuple=True)
    return rows, columns, sums[rows, columns]


@dataclass(frozen=True, slots=True)
class _Few:
    """The scored items of a block: int64 rows, int32 items, float32 inner products and scores, all [n], in order."""

    rows: Tensor
    items: Tensor
    counted: Tensor
    scores: Tensor

    def without(self, excluded: DeviceCSR, users: Tensor, n_items: int) -> _Few:
        """Return the entries that are not excluded.

        Args:
            excluded: [U, I], on the device.
            users: int64 [b], of the rows.
            n_items: I.
        """
        keys = self.rows * n_items + self.items
        kept = ~torch.isin(keys, _keys(excluded, users, n_items))
        return _Few(self.rows[kept], self.items[kept], self.counted[kept], self.scores[kept])


def _keys(matrix: DeviceCSR, users: Tensor, n_items: int) -> Tensor:
    """Return place * n_items + item for the entries of the users' rows, place counted in `users`; ascending."""
    starts, degrees = matrix.indptr[users], matrix.indptr[users + 1] - matrix.indptr[users]
    rows = torch.arange(len(users), device=users.device).repeat_interleave(degrees)
    place = torch.arange(len(rows), device=users.device) - (degrees.cumsum(0) - degrees)[rows]
    return rows * n_items + matrix.indices[starts[rows] + place]


def row_spread(sparse: DeviceSparse, max_bytes: int | None) -> Tensor:
    """Return the standard deviation of each row of R W, float64 [U]."""
    out = torch.zeros(sparse.n_users, dtype=torch.float64, device=sparse.device)

    def _work(block: NDArray[np.int64]) -> None:
        users = torch.from_numpy(block).to(sparse.device)
        out[users] = gpu_rows.spreads(sparse.rows(users))

    sparse.in_blocks(_work, np.arange(sparse.n_users), max_bytes)
    return out


def score_mixed(scores: DeviceScores, pairs: CSR, max_bytes: int | None) -> Tensor:
    """Return the score of each entry, float32 [nnz].

    Args:
        scores: the scores of every user.
        pairs: [U, I].
        max_bytes: limit of working memory; None: a share of what is free.
    """
    sparse = scores.sparse
    entries = device_cache.on_device(pairs, sparse.device)
    out = torch.empty(pairs.nnz, device=sparse.device)

    def _work(block: NDArray[np.int64]) -> None:
        users = torch.from_numpy(block).to(sparse.device)
        sums, degrees = sparse.rows(users), entries.indptr[users + 1] - entries.indptr[users]
        rows = torch.arange(len(users), device=sparse.device).repeat_interleave(degrees)
        at = slice(int(pairs.indptr[block[0]]), int(pairs.indptr[block[-1] + 1]))  # users without entries lie between
        items, owners = entries.indices[at], users[rows]
        added = sums[rows, items.long()].double() * scores.scale[owners].double()
        out[at] = (added + scores.dots(owners.to(torch.int32), items)).float()

    sparse.in_blocks(_work, np.flatnonzero(np.diff(pairs.indptr)), max_bytes)
    return out


def rank_mixed(scores: DeviceScores, exclude: CSR, heldout: CSR, max_bytes: int | None) -> Tensor:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz].

    Args:
        scores: on a device.
        exclude: [U, I], disjoint from `heldout`.
        heldout: [U, I].
        max_bytes: working memory; None for a quarter of what is free.
    """
    sparse = scores.sparse
    own, held = score_mixed(scores, heldout, max_bytes), device_cache.on_device(heldout, sparse.device)
    excluded = device_cache.on_device(exclude, sparse.device)
    ranks = torch.zeros(heldout.nnz, dtype=torch.int32, device=sparse.device)
    if not heldout.nnz:
        return ranks
    if scores.users is not None and scores.items is not None:
        ranks += rank_gpu.rank_by_scores(scores.users, scores.items, exclude, heldout, own, max_bytes)
    else:
        ranks += _count_zeros(own, heldout, held, excluded, sparse.n_items)

    def _work(block: NDArray[np.int64]) -> None:
        users = torch.from_numpy(block).to(sparse.device)
        few = scores.few(users).without(excluded, users, sparse.n_items)
        at = slice(int(heldout.indptr[block[0]]), int(heldout.indptr[block[-1] + 1]))
        rows = torch.arange(len(users), device=sparse.device).repeat_interleave(
            held.indptr[users + 1] - held.indptr[users]
        )
        ends = torch.searchsorted(few.rows, torch.arange(len(users) + 1, device=sparse.device))
        out = torch.empty_like(held.indices[at])
        gpu_rows.count_scored[(len(out),)](
            own[at], held.indices[at], few.items, few.counted, few.scores, ends[rows], ends[rows + 1], out,
            B=gpu_rows.LISTED, **gpu_rows.UNFUSED,
        )  # fmt: skip
        ranks[at] += out

    sparse.in_blocks(_work, np.flatnonzero(np.diff(heldout.indptr)), max_bytes)
    return ranks


def _count_zeros(own: Tensor, heldout: CSR, held: DeviceCSR, excluded: DeviceCSR, n_items: int) -> Tensor:
    """Count the items that are not excluded and ahead of a held-out item if each scores 0; int32 [H]."""
    users = torch.from_numpy(heldout.rows()).to(own.device)
    keys = _keys(excluded, torch.arange(len(excluded.indptr) - 1, device=own.device), n_items)
    below = torch.searchsorted(keys, users * n_items + held.indices) - excluded.indptr[users]
    degrees = excluded.indptr[users + 1] - excluded.indptr[users]
    ahead = torch.where(own < 0, n_items - degrees, torch.where(own == 0, held.indices - below, 0))
    return ahead.to(torch.int32)


def topk_mixed(scores: DeviceScores, k: int, exclude: CSR | None, max_bytes: int | None) -> tuple[Tensor, Tensor]:
    """Return the k best items of each user, ids int32 [U, k] and scores float32 [U, k].

    Args:
        scores: on a device.
        k: items per user.
        exclude: [U, I], items that are not listed.
        max_bytes: working memory; None for a quarter of what is free.
    """
    sparse = scores.sparse
    n, device = sparse.n_users, sparse.device
    keys = torch.full((n, k), EMPTY, dtype=torch.int64, device=device)
    nothing = CSR(np.zeros(n + 1, np.int64), np.zeros(0, np.int32), None, sparse.n_items)
    excluded = device_cache.on_device(nothing if exclude is None else exclude, device)

    def _work(block: NDArray[np.int64]) -> None:
        users = torch.from_numpy(block).to(device)
        few = scores.few(users)
        left_out = _keys(excluded, users, sparse.n_items)
        others = torch.unique(torch.cat([left_out, few.rows * sparse.n_items + few.items]))
        lists = _best(few.without(excluded, users, sparse.n_items), len(users), k)
        rest = _list_others(scores, users, k, others, max_bytes)
        keys[users] = torch.cat([lists, rest], dim=1).sort(dim=1, descending=True).values[:, :k]

    if sparse.n_items:
        sparse.in_blocks(_work, np.arange(n), max_bytes)
    empty = keys == EMPTY
    ids = torch.where(empty, -1, (2**31 - 1) - (keys & 0xFFFFFFFF)).to(torch.int32)
    return ids, torch.where(empty, -torch.inf, key_scores(keys))


def _best(few: _Few, n_rows: int, k: int) -> Tensor:
    """Return the keys of the k best of each row, falling, EMPTY behind them; int64 [n_rows, k]."""
    order = _pack(few.scores, few.items).sort(descending=True)
    by_row = few.rows[order.indices].sort(stable=True)
    rows, keys = by_row.values, order.values[by_row.indices]
    starts = torch.searchsorted(rows, torch.arange(n_rows, device=rows.device))
    place = torch.arange(len(rows), device=rows.device) - starts[rows]
    lists = torch.full((n_rows, k), EMPTY, dtype=torch.int64, device=rows.device)
    listed = place < k
    lists[rows[listed], place[listed]] = keys[listed]
    return lists


def _list_others(scores: DeviceScores, users: Tensor, k: int, others: Tensor, max_bytes: int | None) -> Tensor:
    """Return the keys of the k best by only the inner product, without `others`, as _keys gives them; int64 [b, k]."""
    n_items = scores.sparse.n_items
    rows, columns = others // n_items, (others % n_items).to(torch.int32)
    indptr = torch.searchsorted(rows, torch.arange(len(users) + 1, device=users.device))
    if scores.users is None or scores.items is None:
        return _lowest_ids(rows, columns, len(users), n_items, k)
    longest = int((indptr[1:] - indptr[:-1]).max()) if len(users) else 0
    left_out = DeviceCSR(indptr, columns, longest)
    ids, values = topk_gpu.solve_dot(scores.users[users], scores.items, k, left_out, max_bytes)
    return torch.where(ids < 0, EMPTY, _pack(values, ids))


def _lowest_ids(rows: Tensor, columns: Tensor, n_rows: int, n_items: int, k: int) -> Tensor:
    """Return the keys of the k lowest ids of score 0 that are not named; int64 [n_rows, k]."""
    free = torch.ones((n_rows, n_items), dtype=torch.bool, device=rows.device)
    free[rows, columns.long()] = False
    place = free.cumsum(dim=1, dtype=torch.int32) - 1
    row, item = torch.nonzero(free & (place < k), as_tuple=True)
    lists = torch.full((n_rows, k), EMPTY, dtype=torch.int64, device=rows.device)
    lists[row, place[row, item].long()] = _pack(torch.zeros(len(row), device=rows.device), item.to(torch.int32))
    return lists


def _pack(scores: Tensor, items: Tensor) -> Tensor:
    """Return the keys of float32 scores and int32 ids, as gpu_lists.pack does on the device."""
    bits = torch.where(scores == 0, 0.0, scores).view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (items ^ 0x7FFFFFFF).long()

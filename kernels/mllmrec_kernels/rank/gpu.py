"""Rank held-out items on the GPU: a float16 product counts what it can prove, the float64 score the rest.

With P, unit and error as in exact/gpu_score.py, an item of P > high is ahead of the held-out item h and one of
P < low is not, with low, high = score(u, h) / unit -+ error. The few between go to a list of h, in any order, since
they are only counted, and are scored as h itself was. Excluded items are counted with the rest and subtracted
again, each scored exactly. A list that overflows is discarded and every item scored for its h.

Bytes, for U users with held-out items and I items of d columns: 2 d (U + I) encoded, 8 CAPACITY a held-out item
in flight, 4 d a scored pair; FLOPs 2 U I d. Bound by the tensor cores, and by the lists where d is small. `max_bytes`
bounds lists and encoded rows, by smaller blocks. They are halved when the device runs out of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.exact.gpu_lists import append_between, key_item, room
from mllmrec_kernels.exact.gpu_score import exact_dot, product

CAPACITY, SHARE = 256, 64  # keys that a list holds: at least, and one in so many of the items
BLOCK, GROUP, WARPS, STAGES = 64, 16, 4, 3
LISTED = 64  # list entries that a program scores at a time


@triton.jit
def count_ahead(
    x: tl.tensor, y: tl.tensor, indptr: tl.tensor, low: tl.tensor, high: tl.tensor, ahead: tl.tensor, near: tl.tensor,
    lists: tl.tensor, n_users: tl.tensor, n_items: tl.tensor, first_item: tl.tensor, capacity: tl.tensor,
    GROUP: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
) -> None:  # fmt: skip
    """Add to ahead[h] the items whose product is above high[h]; list the keys of those in [low[h], high[h]].

    x float16 [n_users, D]; y float16 [n_items, D], the items first_item...; user p of x holds out h = indptr[p] to
    indptr[p + 1] - 1; low, high float32, ahead, near int32 [heldout]; lists int64 [heldout, capacity].
    """
    width = GROUP * tl.cdiv(n_items, BN)
    pid = tl.program_id(0)
    first = (pid // width) * GROUP
    height = tl.minimum(tl.cdiv(n_users, BM) - first, GROUP)
    places = (first + (pid % width) % height) * BM + tl.arange(0, BM)
    n = (pid % width) // height
    columns = n * BN + tl.arange(0, BN)
    tile = product(x, y, tl.minimum(places, n_users - 1), tl.minimum(columns, n_items - 1), D, BM, BN, BK)
    if (n + 1) * BN > n_items:
        tile = tl.where((columns < n_items)[None, :], tile, float("nan"))
    start = tl.load(indptr + places, mask=places < n_users, other=0)
    stop = tl.load(indptr + places + 1, mask=places < n_users, other=0)
    for turn in range(tl.max(stop - start, axis=0)):
        h = start + turn
        live = h < stop
        above = tl.load(high + h, mask=live, other=float("inf"))
        sure = tl.sum((tile > above[:, None]).to(tl.int32), axis=1)
        tl.atomic_add(ahead + h, sure, mask=live & (sure > 0), sem="relaxed")
        below = tl.load(low + h, mask=room(near, h, live, capacity), other=float("inf"))
        place, item = h.to(tl.int32)[:, None], (first_item + columns)[None, :]
        append_between(lists, near, tile, below[:, None], above[:, None], place, item, capacity)


@triton.jit
def count_before(
    x: tl.tensor, y: tl.tensor, users: tl.tensor, scores: tl.tensor, items: tl.tensor, ids: tl.tensor,
    starts: tl.tensor, stops: tl.tensor, out: tl.tensor, d: tl.tensor, B: tl.constexpr,
) -> None:  # fmt: skip
    """Write out[h], the number of ids[starts[h]:stops[h]] ahead of items[h] of score scores[h] for users[h].

    x, y float32 [., d]; scores float32; users, items, out int32; ids int32, or keys int64; starts, stops int64.
    """
    h = tl.program_id(0)
    start, stop = tl.load(starts + h), tl.load(stops + h)
    heldout, score = tl.load(items + h), tl.load(scores + h)
    row = x + tl.load(users + h).to(tl.int64) * d + tl.zeros([B], tl.int64)
    total = tl.zeros([B], tl.int32)
    for at in range(start, stop, B):
        entry = at + tl.arange(0, B)
        live = entry < stop
        item = tl.load(ids + entry, mask=live, other=0)
        if ids.dtype.element_ty == tl.int64:
            item = key_item(item)
        other = exact_dot(row, y + item.to(tl.int64) * d, live, d, B).to(tl.float32)
        total += (live & ((other > score) | ((other == score) & (item < heldout)))).to(tl.int32)
    tl.store(out + h, tl.sum(total, axis=0))


@dataclass(frozen=True, slots=True)
class _Heldout:
    """Held-out items on the device in the order of their users: int32 users and items, float32 scores, all [H]."""

    users: Tensor
    items: Tensor
    scores: Tensor

    def part(self, entries: slice | Tensor) -> _Heldout:
        """Return some of the entries."""
        return _Heldout(self.users[entries], self.items[entries], self.scores[entries])

    def count_ahead(self, x: Tensor, y: Tensor, ids: Tensor, starts: Tensor, stops: Tensor) -> Tensor:
        """Count the items of ids[starts[h]:stops[h]] that are ahead of each entry h; int32 [H].

        Args:
            x: float32 [U, d], users.
            y: float32 [I, d], items.
            ids: int32, or keys int64.
            starts: int64 [H].
            stops: int64 [H].
        """
        out = torch.empty_like(self.users)
        if len(out):
            count_before[(len(out),)](
                x, y, self.users, self.scores, self.items, ids, starts, stops, out, x.shape[1], B=LISTED,
                **gpu_score.FUSED,
            )  # fmt: skip
        return out


def rank_heldout(
    user_vectors: Tensor, item_vectors: Tensor, exclude: CSR, heldout: CSR, *, max_bytes: int | None
) -> Tensor:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz], on the tensors' device.

    Args:
        user_vectors: float32 [U, d].
        item_vectors: float32 [I, d], on the same device.
        exclude: [U, I], disjoint from `heldout`.
        heldout: [U, I].
        max_bytes: working memory; None for a quarter of what is free.
    """
    x, y, device = user_vectors, item_vectors, user_vectors.device
    if not heldout.nnz:
        return torch.zeros(0, dtype=torch.int32, device=device)
    users = torch.from_numpy(heldout.rows().astype(np.int32)).to(device)
    items = device_cache.on_device(heldout, device).indices
    return rank_by_scores(x, y, exclude, heldout, gpu_score.dots(x, y, users, items).to(torch.float32), max_bytes)


def rank_by_scores(x: Tensor, y: Tensor, exclude: CSR, heldout: CSR, scores: Tensor, max_bytes: int | None) -> Tensor:
    """Count the items whose inner product is ahead of a held-out item's score, excluded ones left out; int32 [nnz].

    Args:
        x: float32 [U, d], users.
        y: float32 [I, d], items, on the same device.
        exclude: [U, I].
        heldout: [U, I], with at least one entry.
        scores: float32 [heldout.nnz], what the items are compared with.
        max_bytes: working memory; None for a quarter of what is free.
    """
    device = x.device
    ranks = torch.zeros(heldout.nnz, dtype=torch.int32, device=device)
    users = torch.from_numpy(heldout.rows().astype(np.int32)).to(device)
    held = _Heldout(users, device_cache.on_device(heldout, device).indices, scores)
    work = _Work(x, y, heldout.indptr, held, *_plan(len(y), x.shape[1], gpu_score.working_memory(device, max_bytes)))
    while True:
        try:
            work.count(ranks)
        except torch.OutOfMemoryError:
            if work.rows == 1 and work.chunk == 1:
                raise KernelError(f"ranking {len(y)} items of {x.shape[1]}: the device is out of memory") from None
            work = replace(work, rows=max(1, work.rows // 2), chunk=max(1, work.chunk // 2))
        else:
            break
    excluded, row = device_cache.on_device(exclude, device), users.long()
    return ranks - held.count_ahead(x, y, excluded.indices, excluded.indptr[row], excluded.indptr[row + 1])


def _plan(n_items: int, d: int, max_bytes: int) -> tuple[int, int, int]:
    """Return (keys a list holds, held-out items in flight, items encoded at a time)."""
    capacity = max(CAPACITY, triton.next_power_of_2(n_items // SHARE))
    row, item = 8 * capacity + 2 * gpu_score.padded(d) + 64, 2 * gpu_score.padded(d) + 8
    rows, chunk = max_bytes // 2 // row, max_bytes // 2 // item
    if not (rows and chunk):
        raise KernelInputError(f"max_bytes={max_bytes} holds no list at d={d}; give at least {2 * max(row, item)}")
    return capacity, rows, min(chunk, n_items)


@dataclass(frozen=True, slots=True)
class _Work:
    """Users x float32 [U, d], items y float32 [I, d], and the held-out items of user u from indptr[u] on.

    Attributes:
        capacity: keys that a list holds.
        rows: held-out items in flight; a user's stay together, however many they are.
        chunk: items encoded at a time.
    """

    x: Tensor
    y: Tensor
    indptr: NDArray[np.int64]
    held: _Heldout
    capacity: int
    rows: int
    chunk: int

    def count(self, ranks: Tensor) -> None:
        """Write ranks[h], the number of items ahead of h, excluded ones included."""
        largest = gpu_score.largest_of(gpu_score.norms(self.y))
        scale = gpu_score.inverse(largest).expand(len(self.y)).contiguous()
        items = gpu_score.Encoded(self.y, scale, self.chunk)
        waiting = np.flatnonzero(np.diff(self.indptr))
        while len(waiting):
            fitting = np.searchsorted(self.indptr[waiting + 1], self.indptr[waiting[0]] + self.rows, side="right")
            users, waiting = waiting[: max(1, fitting)], waiting[max(1, fitting) :]
            entries = slice(int(self.indptr[users[0]]), int(self.indptr[users[-1] + 1]))
            ranks[entries] = self._block(users, self.held.part(entries), items, largest)

    def _block(self, users: NDArray[np.int64], held: _Heldout, items: gpu_score.Encoded, largest: Tensor) -> Tensor:
        device = self.x.device
        degrees = torch.from_numpy(np.diff(self.indptr)[users]).to(device)
        indptr = torch.cat([degrees.new_zeros(1), degrees.cumsum(0)])
        x = self.x[torch.from_numpy(users).to(device)]
        lengths = gpu_score.norms(x)
        half, rest = gpu_score.encode(x, gpu_score.inverse(lengths))
        unit = lengths * largest
        error = gpu_score.error_bound(rest, items.largest_rest, unit, x.shape[1])
        low, high = _band(held.scores, unit.repeat_interleave(degrees), error.repeat_interleave(degrees))
        ahead, near = torch.zeros_like(held.users), torch.zeros_like(held.users)
        lists = torch.empty((len(ahead), self.capacity), dtype=torch.int64, device=device)
        for first in items.starts:
            y, _ = items.at(first)
            count_ahead[(triton.cdiv(len(half), BLOCK) * triton.cdiv(len(y), BLOCK),)](
                half, y, indptr, low, high, ahead, near, lists, len(half), len(y), first, self.capacity,
                GROUP=GROUP, D=half.shape[1], BM=BLOCK, BN=BLOCK, BK=gpu_score.STEP,
                num_warps=WARPS, num_stages=STAGES, **gpu_score.FUSED,
            )  # fmt: skip
        return self._resolved(held, ahead, near, lists)

    def _resolved(self, held: _Heldout, ahead: Tensor, near: Tensor, lists: Tensor) -> Tensor:
        """Return the counts, with the pairs in between scored exactly; int32 [H]."""
        starts = torch.arange(len(ahead), device=ahead.device) * self.capacity
        fits = near <= self.capacity
        counts = ahead + held.count_ahead(self.x, self.y, lists, starts, starts + near * fits)
        overflowed = torch.nonzero(~fits).ravel()
        every = torch.arange(len(self.y), dtype=torch.int32, device=ahead.device)
        zeros = torch.zeros_like(overflowed)
        counts[overflowed] = held.part(overflowed).count_ahead(self.x, self.y, every, zeros, zeros + len(every))
        return counts


def _band(scores: Tensor, unit: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """Return (low, high), float32 [H]: no product below low is ahead, each above high is; infinite if unit is 0."""
    middle, finite = scores.double() / unit, torch.isfinite(error)
    low = torch.where(finite, middle - error, -torch.inf)
    high = torch.where(finite, middle + error, torch.inf)
    return gpu_score.rounded_down(low), gpu_score.rounded_up(high)

"""Rank held-out items on the GPU: a float16 product counts what it can prove, the float64 score the rest.

Users and items are encoded as one or two float16 terms (gpu_terms.py). With P, unit and error as there, an item of
P > score / unit + error is ahead of the held-out item, and one of P < score / unit - error is not (gpu_tiles.py). The
few between are marked by a bit, listed in any order, since they are only counted, and scored as the held-out item
itself was. Excluded items are counted with the rest and subtracted again, each scored exactly. A list that overflows is
discarded and every item scored for its held-out item.

Bytes, for H held-out items and I items of d columns: 2 d (H + I) encoded, twice that for two terms; I / 8 of bits and 4
a list entry for a held-out item in flight; 4 d a scored pair. FLOPs 2 H I d, or 6 H I d for two terms. Bound by the
tensor cores. `max_bytes` bounds bits, lists and encoded rows, by smaller blocks. They are halved when the device runs
out of memory.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.exact.gpu_score import exact_dot
from mllmrec_kernels.rank import gpu_terms
from mllmrec_kernels.rank.gpu_tiles import count_ahead, list_marked

CAPACITY = 64  # ids that a list holds, at least
SHARE = {True: 512, False: 64}  # it holds one in so many of the items, for rows of two terms and of one
PROGRAMS = 1024  # at least, where items are enough: what fills a device
BITS, WORDS = 128, 512  # bits that are loaded at once; words of them that a program lists at a time
LISTED = 64  # list entries that a program scores at a time
_NUMBERS = 2**30  # of a chunk of encoded items, which count_ahead indexes by int32
_WIDEST = 2.0**64  # an error whose inverse is a normal float32 number; no product of scaled rows is larger than 2


@dataclass(frozen=True, slots=True)
class Tile:
    """Hold the shape of a product that a program computes at a time, and its warps and stages."""

    rows: int
    columns: int
    warps: int
    stages: int


# By columns of a row: up to 64, up to 128, more. The fastest of those tried on an H200 (docs/kernels.md).
NARROW, MIDDLE, WIDE = Tile(128, 128, 8, 2), Tile(128, 64, 8, 2), Tile(128, 128, 8, 4)


def _tile(d: int) -> Tile:
    return NARROW if d <= 64 else MIDDLE if gpu_terms.is_held(d) else WIDE


@triton.jit
def count_before(
    x: tl.tensor, y: tl.tensor, users: tl.tensor, scores: tl.tensor, items: tl.tensor, ids: tl.tensor,
    starts: tl.tensor, stops: tl.tensor, out: tl.tensor, d: tl.tensor, B: tl.constexpr,
) -> None:  # fmt: skip
    """Write out[h], the number of ids[starts[h]:stops[h]] ahead of items[h] of score scores[h] for users[h].

    x, y float32 [., d]; scores float32; users, items, ids, out int32; starts, stops int64.
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
            ids: int32.
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


def share_entries(exclude: CSR, heldout: CSR, device: torch.device) -> bool:
    """Tell whether two patterns of one shape have an entry in common."""
    if not exclude.nnz or not heldout.nnz:
        return False
    keys, sought = (device_cache.on_device(matrix, device).keys(exclude.n_columns) for matrix in (exclude, heldout))
    at = torch.searchsorted(keys, sought).clamp_(max=len(keys) - 1)
    return bool((keys[at] == sought).any())


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
    x, y = user_vectors, item_vectors
    if not heldout.nnz:
        return torch.zeros(0, dtype=torch.int32, device=x.device)
    pairs = device_cache.on_device(heldout, x.device)
    scores = gpu_score.dots(x, y, pairs.rows(), pairs.indices).to(torch.float32)
    return rank_by_scores(x, y, exclude, heldout, scores, max_bytes)


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
    pairs = device_cache.on_device(heldout, x.device)
    held = _Heldout(pairs.rows(), pairs.indices, scores)
    work = _Work(x, y, held, *_plan(len(y), x.shape[1], gpu_score.working_memory(x.device, max_bytes)))
    while True:
        try:
            ranks = work.counts()
        except torch.OutOfMemoryError:
            if work.rows == 1 and work.chunk == 1:
                raise KernelError(f"ranking {len(y)} items of {x.shape[1]}: the device is out of memory") from None
            work = replace(work, rows=max(1, work.rows // 2), chunk=max(1, work.chunk // 2))
        else:
            break
    excluded, row = device_cache.on_device(exclude, x.device), held.users.long()
    return ranks - held.count_ahead(x, y, excluded.indices, excluded.indptr[row], excluded.indptr[row + 1])


def _plan(n_items: int, d: int, max_bytes: int) -> tuple[int, int, int]:
    """Return (ids a list holds, held-out items in flight, items encoded at a time)."""
    item = gpu_terms.row_bytes(d)
    capacity = max(CAPACITY, triton.next_power_of_2(n_items // SHARE[gpu_terms.has_two(d)]))
    row = 4 * capacity + item + 64 + 16 * triton.cdiv(n_items + BITS, BITS)
    rows, chunk = max_bytes // 2 // row, max_bytes // 2 // item
    if not (rows and chunk):
        raise KernelInputError(f"max_bytes={max_bytes} holds no list at d={d}; give at least {2 * max(row, item)}")
    return capacity, rows, min(chunk, n_items, _NUMBERS // gpu_terms.padded(d))


@dataclass(frozen=True, slots=True)
class _Work:
    """Users x float32 [U, d], items y float32 [I, d], and held-out items.

    Attributes:
        capacity: ids that a list holds.
        rows: held-out items in flight.
        chunk: items encoded at a time.
    """

    x: Tensor
    y: Tensor
    held: _Heldout
    capacity: int
    rows: int
    chunk: int

    def counts(self) -> Tensor:
        """Return the number of items ahead of each held-out item, excluded ones included; int32 [H]."""
        largest = gpu_score.largest_of(gpu_score.norms(self.y))
        items = gpu_terms.Items(self.y, gpu_score.inverse(largest), self.chunk, _tile(self.x.shape[1]).columns)
        starts = range(0, len(self.held.users), self.rows)
        return torch.cat([self._block(self.held.part(slice(at, at + self.rows)), items, largest) for at in starts])

    def _block(self, held: _Heldout, items: gpu_terms.Items, largest: Tensor) -> Tensor:
        lengths = gpu_score.dots(self.x, self.x, held.users, held.users).sqrt_()
        x, unit = gpu_terms.encode(self.x, held.users, gpu_score.inverse(lengths)), lengths * largest
        slope, offset, decided = _distance(held.scores, unit, items.error(x, unit))
        ahead, near = torch.zeros_like(held.users), torch.where(decided, 0, self.capacity + 1).to(torch.int32)
        lists = torch.empty((len(ahead), self.capacity), dtype=torch.int32, device=ahead.device)
        d = self.x.shape[1]
        tile = _tile(d)
        blocks = triton.cdiv(len(ahead), tile.rows)
        for part, first in enumerate(items.starts):
            y = items.at(part)
            tiles = len(y.first) // tile.columns
            share = triton.cdiv(tiles, min(tiles, triton.cdiv(PROGRAMS, blocks)))
            quads = triton.cdiv(len(y.first), BITS)
            bits = torch.zeros((len(ahead), 4 * quads), dtype=torch.int32, device=ahead.device)
            count_ahead[(blocks, triton.cdiv(tiles, share))](
                x.first, x.second, y.first, y.second, slope, offset, ahead, bits, len(ahead), tiles, share, quads,
                HELD=gpu_terms.is_held(d), TWO=gpu_terms.has_two(d), D=x.first.shape[1], BM=tile.rows,
                BN=tile.columns, BK=gpu_score.STEP, num_warps=tile.warps, num_stages=tile.stages, **gpu_score.FUSED,
            )  # fmt: skip
            list_marked[(len(ahead),)](bits, near, lists, quads, first, self.capacity, B=WORDS)
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


def _distance(scores: Tensor, unit: Tensor, error: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (slope, offset, decided) [H]: float32(slope P + offset) > 1 proves an item ahead, < -1 that it is not.

    The error is widened by what float32 rounds: slope and the sum by 2^-24 of them, the offset by 2^-24 of
    |score / unit| slope. Where it is not decided, every number is neither.
    """
    middle = scores.double() / unit
    wide = error * (1 + 2.0**-20) + (middle.abs() + 1) * 2.0**-22
    decided = wide < _WIDEST
    slope = torch.where(decided, 1 / wide, 0.0).to(torch.float32)
    offset = torch.where(decided, -middle * slope.double(), -torch.inf).to(torch.float32)
    return slope, offset, decided

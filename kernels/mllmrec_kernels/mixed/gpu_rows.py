"""The sparse part on the device: rows of R W, their spread, and what a few scored items do to a rank.

A block of users has its rows of R W dense, float32 [b, I], in the order of additions of mixed/scores.py: one program
a user, its items one after another, the entries of a row of W at once, for they are distinct. Multiplications are
not fused into additions here, which would save a rounding that the CPU makes.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from mllmrec_kernels.mixed import reference

ENTRIES = 256  # of a row of W that a program adds at a time
LISTED = 256  # scored items that a program compares at a time
UNFUSED = {"enable_fp_fusion": False}


@triton.jit
def add_rows(  # type: ignore[no-untyped-def]
    users, indptr, ids, values, weight_indptr, weight_ids, weights, sums, n_items,
    VALUES: tl.constexpr, DENSE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """sums[p] += (R W)[users[p]], where sums float32 [., n_items] is 0.

    users int64; R: indptr int64, ids int32, and with VALUES values float32; W: weight_indptr int64, weight_ids int32,
    weights float32, or, if DENSE, weights float32 [., n_items] alone.
    """
    p = tl.program_id(0)
    u = tl.load(users + p)
    row = sums + p.to(tl.int64) * n_items
    for n in range(tl.load(indptr + u), tl.load(indptr + u + 1)):
        j = tl.load(ids + n).to(tl.int64)
        value = tl.load(values + n) if VALUES else 1.0
        start = j * n_items if DENSE else tl.load(weight_indptr + j)
        stop = start + n_items if DENSE else tl.load(weight_indptr + j + 1)
        for at in range(start, stop, B):
            entry = at + tl.arange(0, B)
            live = entry < stop
            i = entry - start if DENSE else tl.load(weight_ids + entry, mask=live, other=0).to(tl.int64)
            weight = tl.load(weights + entry, mask=live, other=0.0)
            before = tl.load(row + i, mask=live, other=0.0)
            tl.store(row + i, before + (weight * value if VALUES else weight), mask=live)
        tl.debug_barrier()  # the next row of W may name the same items


@triton.jit
def fold(lanes):  # type: ignore[no-untyped-def]
    """The sum of 256 lanes by halves, as the reference folds them."""
    lanes = tl.sum(tl.reshape(lanes, [2, 128]), axis=0)
    lanes = tl.sum(tl.reshape(lanes, [2, 64]), axis=0)
    lanes = tl.sum(tl.reshape(lanes, [2, 32]), axis=0)
    lanes = tl.sum(tl.reshape(lanes, [2, 16]), axis=0)
    lanes = tl.sum(tl.reshape(lanes, [2, 8]), axis=0)
    lanes = tl.sum(tl.reshape(lanes, [2, 4]), axis=0)
    lanes = tl.sum(tl.reshape(lanes, [2, 2]), axis=0)
    return tl.sum(lanes, axis=0)


@triton.jit
def row_moments(sums, means, squares, zeros, n_items, LANES: tl.constexpr):  # type: ignore[no-untyped-def]
    """Of each row of sums float32 [., n_items]: the mean, the squares about it of what is not 0, the number of zeros.

    means, squares, zeros: float64.
    """
    p = tl.program_id(0)
    row = sums + p.to(tl.int64) * n_items
    lanes = tl.zeros([LANES], tl.float64)
    for start in range(0, n_items, LANES):
        i = start + tl.arange(0, LANES)
        lanes += tl.load(row + i, mask=i < n_items, other=0.0).to(tl.float64)
    mean = fold(lanes) / n_items
    lanes, filled = tl.zeros([LANES], tl.float64), tl.zeros([LANES], tl.float64)
    for start in range(0, n_items, LANES):
        i = start + tl.arange(0, LANES)
        x = tl.load(row + i, mask=i < n_items, other=0.0).to(tl.float64)
        off = x - mean
        lanes += tl.where(x != 0.0, off * off, 0.0)
        filled += tl.where(x != 0.0, 1.0, 0.0)
    tl.store(means + p, mean)
    tl.store(squares + p, fold(lanes))
    tl.store(zeros + p, n_items - fold(filled))


@triton.jit
def count_scored(own, own_items, items, counted, scores, starts, stops, out, B: tl.constexpr):  # type: ignore[no-untyped-def]
    """out[h] = how many of items[starts[h]:stops[h]] stand before own_items[h] by scores, less those by counted.

    own, counted, scores float32; own_items, items, out int32; starts, stops int64.
    """
    h = tl.program_id(0)
    item, score = tl.load(own_items + h), tl.load(own + h)
    start, stop = tl.load(starts + h), tl.load(stops + h)
    total = tl.zeros([B], tl.int32)
    for at in range(start, stop, B):
        entry = at + tl.arange(0, B)
        live = entry < stop
        other = tl.load(items + entry, mask=live, other=0)
        now = tl.load(scores + entry, mask=live, other=0.0)
        then = tl.load(counted + entry, mask=live, other=0.0)
        total += (live & ((now > score) | ((now == score) & (other < item)))).to(tl.int32)
        total -= (live & ((then > score) | ((then == score) & (other < item)))).to(tl.int32)
    tl.store(out + h, tl.sum(total, axis=0))


def spreads(sums: Tensor) -> Tensor:
    """Return the standard deviation of each row, float64 [b]; see the reference."""
    b, n_items = sums.shape
    means, squares, zeros = (torch.empty(b, dtype=torch.float64, device=sums.device) for _ in range(3))
    if b and n_items:
        row_moments[(b,)](sums, means, squares, zeros, n_items, LANES=reference.LANES, **UNFUSED)
    # On CUDA, torch divides by a number as a product with its inverse, which rounds twice; by a tensor it divides.
    count = torch.full_like(means, n_items)
    return torch.sqrt((squares + zeros * (means * means)) / count) if n_items else torch.zeros_like(means)

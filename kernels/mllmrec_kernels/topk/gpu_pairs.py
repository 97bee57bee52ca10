"""Device kernels of a self graph by int8 products: thresholds, pairs, lists, decisions. See gpu_self.py.

q, loss and step are those of gpu_int8.py; scores below are in units of step². `low` [padded n] is the threshold of a
list, negated: an item goes to the list of a query if P + loss(item) + low(query) >= 0.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mllmrec_kernels.exact.gpu_int8 import BLOCK, DEAD
from mllmrec_kernels.exact.gpu_lists import EMPTY, key_score, pack
from mllmrec_kernels.exact.gpu_queue import ENTRY, enqueue
from mllmrec_kernels.exact.gpu_score import UNROLLED, exact_dot

LOWEST = tl.constexpr(-(2**30))


@triton.jit
def _row_blocks(q: tl.tensor, rows: tl.tensor, D: tl.constexpr) -> tl.tuple:
    """Return rows of q in blocks of columns, each int8 [., BLOCK]."""
    at = q + rows.to(tl.int64)[:, None] * D + tl.arange(0, BLOCK)[None, :]
    blocks = ()
    for block in tl.static_range(D // BLOCK):
        blocks = blocks + (tl.load(at + block * BLOCK),)  # type: ignore[assignment]  # noqa: RUF005
    return blocks


@triton.jit(do_not_specialize=["least", "k", "stride", "n_sample", "last"])
def sample_low(
    q: tl.tensor, loss: tl.tensor, low: tl.tensor, least: tl.tensor, k: tl.tensor, stride: tl.tensor,
    n_sample: tl.tensor, last: tl.tensor, EXCLUDE_SELF: tl.constexpr, D: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    """Write low: from the k-th largest of BN group maxima over a sample, and from the least score.

    Item g stride is in the sample. Of each group g, g + BN, ... the largest P - loss(item) counts, which is a bound
    below its score, but for the query's loss. A sampled query that must not list itself counts one place more.

    least: the least score, rounded down; last: a row that is DEAD.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    left = _row_blocks(q, rows, D)
    c = tl.arange(0, BLOCK)
    best = tl.full([BM, BN], LOWEST, tl.int32)
    items = tl.minimum(tl.arange(0, BN) * stride, last)
    loss_next = tl.load(loss + items)  # a tile ahead
    for start in tl.range(0, n_sample, BN, num_stages=STAGES):
        loss_item = loss_next
        at = q + items.to(tl.int64)[:, None] * D + c[None, :]
        tile = tl.zeros([BM, BN], tl.int32)
        for block in tl.static_range(D // BLOCK):
            tile = tl.dot(left[block], tl.trans(tl.load(at + block * BLOCK)), tile, out_dtype=tl.int32)
        best = tl.maximum(best, tile - tl.abs(loss_item)[None, :])
        items = tl.minimum((start + BN + tl.arange(0, BN)) * stride, last)
        loss_next = tl.load(loss + items)
    need = tl.zeros([BM], tl.int32) + k
    if EXCLUDE_SELF:
        need += (rows % stride == 0).to(tl.int32)
    kth = tl.full([BM], LOWEST, tl.int32)
    for place in range(k + 1):
        top = tl.max(best, axis=1)
        kth = tl.where(place < need, top, kth)
        best = tl.where(best == top[:, None], LOWEST, best)  # all equal maxima: a lower threshold holds too
    own = tl.load(loss + rows)
    threshold = tl.maximum(kth - 2 * own, least - own)
    tl.store(low + rows, tl.where(own < 0, -DEAD, -tl.maximum(threshold, -DEAD // 2)))


@triton.jit(do_not_specialize=["first_row", "last_row", "first_item", "last_item"])
def queue_pairs(
    q: tl.tensor, loss: tl.tensor, low: tl.tensor, queue: tl.tensor, first_row: tl.tensor, last_row: tl.tensor,
    first_item: tl.tensor, last_item: tl.tensor, limit: tl.tensor, D: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, LENGTH: tl.constexpr, STAGES: tl.constexpr,
) -> None:  # fmt: skip
    """Queue the pairs, row before column, that either side's list may take.

    Rows first_row to last_row, multiples of BM, and items first_item to last_item, multiples of BN. A program keeps BM
    rows in shared memory while LENGTH items pass by; programs that run together see the same items, from L2.
    """
    height = (last_row - first_row) // BM
    first = tl.maximum(first_row, first_item) // BN * BN
    works = height * tl.cdiv(last_item - first, LENGTH)
    for work in range(tl.program_id(0), works, tl.num_programs(0)):
        row = first_row + work % height * BM
        begin = first + work // height * LENGTH
        start = tl.maximum(begin, row // BN * BN)
        stop = tl.minimum(begin + LENGTH, last_item)
        if start < stop:
            rows = row + tl.arange(0, BM)
            left = _row_blocks(q, rows, D)
            low_row = tl.load(low + rows)
            loss_row = tl.load(loss + rows)
            # A tile's thresholds are loaded a tile ahead.
            low_next = tl.load(low + start + tl.arange(0, BN))
            loss_next = tl.load(loss + start + tl.arange(0, BN))
            at = q + (start + tl.arange(0, BN)).to(tl.int64)[:, None] * D + tl.arange(0, BLOCK)[None, :]
            for item in tl.range(start, stop, BN, num_stages=STAGES):
                columns = item + tl.arange(0, BN)
                low_column = low_next
                loss_column = loss_next
                low_next = tl.load(low + BN + columns)
                loss_next = tl.load(loss + BN + columns)
                tile = tl.zeros([BM, BN], tl.int32)
                for block in tl.static_range(D // BLOCK):
                    tile = tl.dot(left[block], tl.trans(tl.load(at + block * BLOCK)), tile, out_dtype=tl.int32)
                at += BN * D
                if item < row + BM:
                    tile = tl.where(rows[:, None] < columns[None, :], tile, -DEAD)
                enqueue(
                    queue, tile, low_row[:, None], low_column[None, :], loss_row[:, None], loss_column[None, :],
                    rows[:, None], columns[None, :], limit,
                )  # fmt: skip


@triton.jit
def fill_lists(
    queue: tl.tensor, loss: tl.tensor, low: tl.tensor, keys: tl.tensor, counts: tl.tensor, lost: tl.tensor,
    limit: tl.tensor, capacity: tl.tensor, B: tl.constexpr,
) -> None:  # fmt: skip
    """Take the pairs of a queue to the lists; each program empties one.

    keys int64 [n, capacity]: P - loss(item) above 2^31 - 1 - item, capacity - 1 of them at most; counts int32 [n]; lost
    int32 [1]: set to 1 if the queue was full.
    """
    held = tl.load(queue + tl.program_id(0))
    if held > limit:
        tl.store(lost, 1)
    held = tl.minimum(held, limit)
    region = queue + tl.num_programs(0) + tl.program_id(0).to(tl.int64) * limit * ENTRY
    for start in range(0, held, B):
        at = start + tl.arange(0, B)
        live = at < held
        row = tl.load(region + at * ENTRY, mask=live, other=0)
        column = tl.load(region + at * ENTRY + 1, mask=live, other=0)
        value = tl.load(region + at * ENTRY + 2, mask=live, other=0)
        loss_row = tl.load(loss + row, mask=live, other=0)
        loss_column = tl.load(loss + column, mask=live, other=0)
        by_row = live & (value + tl.load(low + row, mask=live, other=0) + loss_column >= 0)
        by_column = live & (value + tl.load(low + column, mask=live, other=0) + loss_row >= 0)
        _put(keys, counts, row, column, value - loss_column, by_row, capacity)
        _put(keys, counts, column, row, value - loss_row, by_column, capacity)


@triton.jit
def _put(
    keys: tl.tensor, counts: tl.tensor, query: tl.tensor, item: tl.tensor, value: tl.tensor, hit: tl.tensor,
    capacity: tl.tensor,
) -> None:  # fmt: skip
    slot = tl.atomic_add(counts + query, 1, mask=hit, sem="relaxed")
    key = (value.to(tl.int64) << 32) | (item ^ 0x7FFFFFFF).to(tl.int64)
    tl.store(keys + query.to(tl.int64) * capacity + slot, key, mask=hit & (slot < capacity - 1))


@triton.jit
def _kth(value: tl.tensor, k: tl.tensor) -> tl.tensor:
    """Return the k-th largest different number, which is at most the k-th largest."""
    top = tl.max(value, axis=0)
    for _ in range(k - 1):
        value = tl.where(value == top, LOWEST, value)
        top = tl.max(value, axis=0)
    return top


@triton.jit(do_not_specialize=["first", "k"])
def raise_low(
    keys: tl.tensor, counts: tl.tensor, loss: tl.tensor, low: tl.tensor, chosen: tl.tensor, x: tl.tensor,
    weights: tl.tensor, first: tl.tensor, capacity: tl.tensor, k: tl.tensor, d: tl.tensor, UNITS: tl.constexpr,
    W: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Raise thresholds to the k-th best exact score among the best products of a list, from list `first` on.

    chosen int32 [n, B]: working memory, B >= k; x float32 [n, d]; weights float64 [n]; UNITS: 1 / step²; W >= capacity.
    """
    query = first + tl.program_id(0)
    held = tl.minimum(tl.load(counts + query), capacity - 1)
    if held >= k:
        slot = tl.arange(0, W)
        key = tl.load(keys + query.to(tl.int64) * capacity + slot, mask=slot < held, other=EMPTY)
        value = tl.maximum((key >> 32).to(tl.int32), LOWEST)
        kth = _kth(value, k)
        own = tl.load(loss + query)
        threshold = kth - 2 * own
        best = (slot < held) & (value >= kth)
        place = tl.cumsum(best.to(tl.int32), axis=0) - 1
        at = chosen + query.to(tl.int64) * B
        tl.store(at + place, key.to(tl.int32) ^ 0x7FFFFFFF, mask=best & (place < B))
        tl.debug_barrier()
        entry = tl.arange(0, B)
        live = entry < tl.sum(best.to(tl.int32), axis=0)
        score = _scores(x, weights, query, tl.load(at + entry, mask=live, other=0), live, d, B)
        units = (_kth(tl.where(live, score, LOWEST), k) - 2.0**-20) * UNITS
        threshold = tl.maximum(threshold, tl.floor(tl.maximum(units, LOWEST)).to(tl.int32) - own)
        tl.store(low + query, tl.minimum(tl.load(low + query), -threshold))


@triton.jit
def _scores(
    x: tl.tensor, weights: tl.tensor, query: tl.tensor, items: tl.tensor, live: tl.tensor, d: tl.tensor, B: tl.constexpr
) -> tl.tensor:  # fmt: skip
    """Return the scores of a query with items [B], float64; 0 where not live."""
    left = x + query.to(tl.int64) * d + tl.zeros([B], tl.int32)
    both = tl.load(weights + query) * tl.load(weights + items, mask=live, other=0.0)
    return exact_dot(left, x + items.to(tl.int64) * d, live, d, B, UNROLLED) * both


@triton.jit(do_not_specialize=["k"])
def decide(
    keys: tl.tensor, counts: tl.tensor, loss: tl.tensor, largest: tl.tensor, x: tl.tensor, weights: tl.tensor,
    min_score: tl.tensor, ids: tl.tensor, scores: tl.tensor, full: tl.tensor, d: tl.tensor, capacity: tl.tensor,
    k: tl.tensor, INCLUDE_SELF: tl.constexpr, W: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Write the k best of each list by their exact scores; a list is working memory.

    largest int32 [1]: the largest loss; x float32 [n, d]; weights float64 [n]; min_score float64 [1]; ids int32 and
    scores float32 [n, k]; full int32 [1]: raised by the number of lists that took more than capacity - 1.
    """
    query = tl.program_id(0)
    at = keys + query.to(tl.int64) * capacity
    held = tl.load(counts + query)
    if held >= capacity:
        tl.atomic_add(full, 1)
    held = tl.minimum(held, capacity - 1)
    slot = tl.arange(0, W)
    key = tl.load(at + slot, mask=slot < held, other=EMPTY)
    value = tl.maximum((key >> 32).to(tl.int32), LOWEST)
    item = key.to(tl.int32) ^ 0x7FFFFFFF
    own = tl.load(loss + query)
    bound = _kth(value, k) - 2 * own
    maybe = (slot < held) & (value + 2 * tl.load(largest) >= bound)
    kept = maybe & (value + 2 * tl.load(loss + item, mask=maybe, other=0) >= bound)
    n_kept = tl.sum(kept.to(tl.int32), axis=0)
    tl.debug_barrier()  # the list was read by other threads
    tl.store(at + tl.cumsum(kept.to(tl.int32), axis=0) - 1, item.to(tl.int64), mask=kept)
    if INCLUDE_SELF:  # in the slot that a list leaves free
        tl.store(at + n_kept, query.to(tl.int64))
        n_kept += 1
    tl.debug_barrier()
    for start in range(0, n_kept, B):
        entry = start + tl.arange(0, B)
        live = entry < n_kept
        other = tl.load(at + entry, mask=live, other=0).to(tl.int32)
        score = _scores(x, weights, query, other, live, d, B).to(tl.float32)
        good = live & (own >= 0) & (score.to(tl.float64) >= tl.load(min_score))
        tl.debug_barrier()
        tl.store(at + entry, tl.where(good, pack(score, other), EMPTY), mask=live)
    tl.debug_barrier()
    if n_kept <= B:
        few = tl.arange(0, B)
        _write(tl.load(at + few, mask=few < n_kept, other=EMPTY), ids, scores, query, k)
    else:
        _write(tl.load(at + slot, mask=slot < n_kept, other=EMPTY), ids, scores, query, k)


@triton.jit
def _write(key: tl.tensor, ids: tl.tensor, scores: tl.tensor, query: tl.tensor, k: tl.tensor) -> None:
    at = query.to(tl.int64) * k
    for place in range(k):
        top = tl.max(key, axis=0)
        key = tl.where(key == top, EMPTY, key)
        tl.store(ids + at + place, tl.where(top == EMPTY, -1, top.to(tl.int32) ^ 0x7FFFFFFF))
        tl.store(scores + at + place, tl.where(top == EMPTY, float("-inf"), key_score(top)))

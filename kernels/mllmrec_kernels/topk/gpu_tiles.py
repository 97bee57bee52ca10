"""Device kernels of top-k: thresholds from a sample, pairs above their threshold, their exact scores. See gpu.py."""

from __future__ import annotations

import triton
import triton.language as tl

from mllmrec_kernels.exact.gpu_lists import EMPTY, append, append_both, key_item, key_score, pack, room
from mllmrec_kernels.exact.gpu_score import exact_dot, product


@triton.jit
def sample_thresholds(
    x: tl.tensor, sample: tl.tensor, places: tl.tensor, out: tl.tensor, n_rows: tl.tensor, n_sample: tl.tensor,
    largest: tl.tensor, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
) -> None:  # fmt: skip
    """Write out[q], the places[q]-th largest of BN group maxima; group g is the sampled items g, g + BN, ...

    x float16 [n_rows, D]; sample float16 [n_sample, D], NaN for an item that has no score; places int32 [n_rows], at
    most `largest`.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    x_rows = tl.minimum(rows, n_rows - 1)
    best = tl.full([BM, BN], float("-inf"), tl.float32)
    for start in range(0, n_sample, BN):
        columns = start + tl.arange(0, BN)
        tile = product(x, sample, x_rows, tl.minimum(columns, n_sample - 1), D, BM, BN, BK)
        if start + BN > n_sample:
            tile = tl.where((columns < n_sample)[None, :], tile, float("nan"))
        best = tl.maximum(best, tile)  # NaN gives way
    need = tl.load(places + rows, mask=rows < n_rows, other=0)
    threshold = tl.full([BM], float("-inf"), tl.float32)
    for place in range(largest):
        top = tl.max(best, axis=1)
        threshold = tl.where(place < need, top, threshold)
        best = tl.where(best == top[:, None], float("-inf"), best)  # all equal maxima: a lower threshold holds too
    tl.store(out + rows, threshold, mask=rows < n_rows)


@triton.jit
def collect(
    x: tl.tensor, y: tl.tensor, rows: tl.tensor, thresholds: tl.tensor, keys: tl.tensor, counts: tl.tensor,
    n_rows: tl.tensor, n_items: tl.tensor, first_item: tl.tensor, first_block: tl.tensor, capacity: tl.tensor,
    SYMMETRIC: tl.constexpr, GROUP: tl.constexpr, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
    BK: tl.constexpr,
) -> None:  # fmt: skip
    """Append to list p the key of every item whose product with row rows[p] of x is at least thresholds[p].

    x float16 [., D]; y float16 [n_items, D], the items first_item..., NaN for one that has no score; rows int32 and
    thresholds float32 [n_rows]; keys int64 [n_rows, capacity]; counts int32 [n_rows].
    SYMMETRIC: y is x and rows its numbers; one product per pair feeds the lists of both sides.
    """
    pid = tl.program_id(0)
    if SYMMETRIC:  # a band of GROUP blocks of queries, and the blocks of items that do not lie wholly before it
        m = first_block + pid % GROUP
        n = first_block * BM // BN + pid // GROUP
        if ((n + 1) * BN <= m * BM) | (m * BM >= n_rows):
            return
    else:  # GROUP blocks of queries stand beside each block of items while that is in L2
        width = GROUP * tl.cdiv(n_items, BN)
        first = (pid // width) * GROUP
        height = tl.minimum(tl.cdiv(n_rows, BM) - first, GROUP)
        m = first + (pid % width) % height
        n = (pid % width) // height
    places = m * BM + tl.arange(0, BM)
    columns = n * BN + tl.arange(0, BN)
    inside = places < n_rows
    # Loaded before the product, which then hides their latency.
    by_row = tl.load(thresholds + places, mask=inside, other=float("inf"))
    by_row = tl.where(room(counts, places, inside, capacity), by_row, float("inf"))
    by_column = by_row
    if SYMMETRIC:
        by_column = tl.load(thresholds + columns, mask=columns < n_items, other=float("inf"))
        by_column = tl.where(room(counts, columns, columns < n_items, capacity), by_column, float("inf"))
    x_rows = tl.load(rows + places, mask=inside, other=0)
    tile = product(x, y, x_rows, tl.minimum(columns, n_items - 1), D, BM, BN, BK)
    # Few blocks lie at an edge, so the masks stand behind a branch.
    if (n + 1) * BN > n_items:
        tile = tl.where((columns < n_items)[None, :], tile, float("nan"))
    if SYMMETRIC:
        if (m + 1) * BM > n_rows:
            tile = tl.where(inside[:, None], tile, float("nan"))
        if n * BN < (m + 1) * BM:
            tile = tl.where(places[:, None] <= columns[None, :], tile, float("nan"))
        append_both(
            keys, counts, tile, by_row[:, None], by_column[None, :], places[:, None], columns[None, :], capacity
        )
    else:
        append(keys, counts, tile, by_row[:, None], places[:, None], (first_item + columns)[None, :], capacity)


@triton.jit
def drop(
    keys: tl.tensor, counts: tl.tensor, rows: tl.tensor, indptr: tl.tensor, excluded: tl.tensor,
    first_query: tl.tensor, n: tl.tensor, width: tl.tensor, search_steps: tl.tensor, EXCLUDE_SELF: tl.constexpr,
    EXCLUDE: tl.constexpr, B: tl.constexpr,
) -> None:  # fmt: skip
    """Set to EMPTY the slots past the count, the query itself, and its excluded items.

    keys int64 [n / width, width]; counts, rows int32 [n / width]: list p is of query first_query + rows[p];
    indptr int64, excluded int32: the CSR of excluded items.
    """
    entry = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = entry < n
    place = entry // width
    query = first_query + tl.load(rows + place, mask=live, other=0)
    key = tl.load(keys + entry, mask=live, other=EMPTY)
    item = key_item(key)
    gone = (entry % width) >= tl.load(counts + place, mask=live, other=0)
    if EXCLUDE_SELF:
        gone = gone | (item == query)
    if EXCLUDE:
        stop = tl.load(indptr + query + 1, mask=live, other=0)
        low = tl.load(indptr + query, mask=live, other=0)
        high = stop
        for _ in range(search_steps):
            open_ = low < high
            middle = (low + high) // 2
            below = tl.load(excluded + middle, mask=live & open_, other=0) < item
            low = tl.where(open_ & below, middle + 1, low)
            high = tl.where(open_ & (below == 0), middle, high)
        found = tl.load(excluded + low, mask=live & (low < stop), other=-1)
        gone = gone | (found == item)
    tl.store(keys + entry, EMPTY, mask=live & gone)


@triton.jit
def sort_rows(keys: tl.tensor, stride: tl.tensor, W: tl.constexpr) -> None:
    """Sort the first W keys of each row, falling, in place."""
    at = keys + tl.program_id(0).to(tl.int64) * stride + tl.arange(0, W)
    tl.store(at, tl.sort(tl.load(at), descending=True))


@triton.jit
def rescore(
    keys: tl.tensor, thresholds: tl.tensor, rows: tl.tensor, x: tl.tensor, y: tl.tensor, a: tl.tensor, b: tl.tensor,
    min_score: tl.tensor, n: tl.tensor, width: tl.tensor, d: tl.tensor, B: tl.constexpr,
) -> None:  # fmt: skip
    """Replace the fast score in each key by the exact one; EMPTY if the threshold or the least score is not met.

    keys int64 [n / width, width]; thresholds float32, rows int32 [n / width]; x, y float32 [., d] and a, b float64 [.]
    as in gpu_score.py; min_score float64 [1].
    """
    entry = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = entry < n
    place = entry // width
    key = tl.load(keys + entry, mask=live, other=EMPTY)
    live = live & (key_score(key) >= tl.load(thresholds + place, mask=live, other=float("inf")))
    item = tl.where(live, key_item(key), 0)
    query = tl.load(rows + place, mask=live, other=0)
    dot = exact_dot(x + query.to(tl.int64) * d, y + item.to(tl.int64) * d, live, d, B)
    weight = tl.load(a + query, mask=live, other=0.0) * tl.load(b + item, mask=live, other=0.0)
    score = (dot * weight).to(tl.float32)
    kept = live & (weight != 0.0) & (score.to(tl.float64) >= tl.load(min_score))
    tl.store(keys + entry, tl.where(kept, pack(score, item), EMPTY), mask=entry < n)

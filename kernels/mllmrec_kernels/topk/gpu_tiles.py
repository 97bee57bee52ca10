"""Device kernels of topk on the GPU: bars from a sample, pairs above their bar, their exact scores. See gpu.py.

A key is one int64 that sorts as the answer does: the bits of the score, made monotone, above 2^31 - 1 - id, so that
a higher key is a higher score or an equal one of a lower id. A list entry without a pair holds EMPTY.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mllmrec_kernels.topk.gpu_score import exact_dot

EMPTY = tl.constexpr(-(2**63))


@triton.jit
def pack(score, item):  # type: ignore[no-untyped-def]
    """The key of a float32 score and an int32 id; -0 sorts with +0."""
    bits = tl.where(score == 0.0, 0.0, score).to(tl.int32, bitcast=True)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.to(tl.int64) << 32) | (item ^ 0x7FFFFFFF).to(tl.int64)


@triton.jit
def key_score(key):  # type: ignore[no-untyped-def]
    """The float32 score of a key; NaN for EMPTY."""
    ordered = (key >> 32).to(tl.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def key_item(key):  # type: ignore[no-untyped-def]
    """The id of a key."""
    return key.to(tl.int32) ^ 0x7FFFFFFF


@triton.jit
def product(x, y, x_rows, y_rows, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 [BM, BN]: rows x_rows of x times rows y_rows of y, both float16 [., D]."""
    c = tl.arange(0, BK)
    left = x + x_rows.to(tl.int64)[:, None] * D + c[None, :]
    right = y + y_rows.to(tl.int64)[:, None] * D + c[None, :]
    tile = tl.zeros([BM, BN], tl.float32)
    for _ in range(0, D, BK):
        tile = tl.dot(tl.load(left), tl.trans(tl.load(right)), tile, input_precision="ieee")
        left += BK
        right += BK
    return tile


@triton.jit
def sample_bars(  # type: ignore[no-untyped-def]
    x, sample, alive, wanted, out, n_rows, n_sample, most,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """out[q] = the wanted[q]-th largest of BN group maxima, group g being the sampled items g, g + BN, ...

    x float16 [n_rows, D], sample float16 [n_sample, D], alive float64 [n_sample], wanted int32 [n_rows] <= most.
    """
    rows = tl.program_id(0) * BM + tl.arange(0, BM)
    x_rows = tl.minimum(rows, n_rows - 1)
    best = tl.full([BM, BN], float("-inf"), tl.float32)
    for start in range(0, n_sample, BN):
        columns = start + tl.arange(0, BN)
        tile = product(x, sample, x_rows, tl.minimum(columns, n_sample - 1), D, BM, BN, BK)
        usable = tl.load(alive + columns, mask=columns < n_sample, other=0.0) > 0
        best = tl.maximum(best, tl.where(usable[None, :], tile, float("-inf")))
    need = tl.load(wanted + rows, mask=rows < n_rows, other=0)
    bar = tl.full([BM], float("-inf"), tl.float32)
    for place in range(most):
        top = tl.max(best, axis=1)
        bar = tl.where(place < need, top, bar)
        best = tl.where(best == top[:, None], float("-inf"), best)  # equal maxima go together: a lower bar holds too
    tl.store(out + rows, bar, mask=rows < n_rows)


@triton.jit
def _append(keys, counts, places, bar, items, tile, capacity, AXIS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Move what is at or above its bar from the tile to the lists along its other axis, one a list and turn.

    Few turns: a tile holds a handful of such pairs. A list that is full takes no more, and its count says so.
    """
    numbers = tl.expand_dims(items, 1 - AXIS)
    top = tl.max(tile, axis=AXIS)
    while tl.max((top >= bar).to(tl.int32), axis=0) > 0:
        hit = top >= bar
        item = tl.min(tl.where(tile == tl.expand_dims(top, AXIS), numbers, 2147483647), axis=AXIS)
        slot = tl.atomic_add(counts + places, 1, mask=hit, sem="relaxed")
        full = slot >= capacity
        tl.store(keys + places.to(tl.int64) * capacity + slot, pack(top, item), mask=hit & (full == 0))
        bar = tl.where(hit & full, float("inf"), bar)
        tile = tl.where(numbers == tl.expand_dims(item, AXIS), float("-inf"), tile)
        top = tl.max(tile, axis=AXIS)


@triton.jit
def collect(  # type: ignore[no-untyped-def]
    x, y, rows, bars, alive, keys, counts, n_rows, n_items, first_item, first_block, capacity,
    SYMMETRIC: tl.constexpr, GROUP: tl.constexpr,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Append to list p the key of every item whose product with row rows[p] of x is at least bars[p].

    x float16 [., D]; y float16 [n_items, D], the items first_item...; rows int32 and bars float32 [n_rows];
    alive float64 [n_items], 0 for an item that has no score; keys int64 [n_rows, capacity]; counts int32 [n_rows].
    SYMMETRIC: y is x and rows its numbers; of each pair of blocks one product is made, and feeds both sides' lists.
    """
    pid = tl.program_id(0)
    if SYMMETRIC:
        m = first_block + pid % GROUP
        n = first_block + pid // GROUP
        if (n < m) | (m * BM >= n_rows):
            return
    else:  # GROUP blocks of queries stand beside each block of items while that is in L2
        width = GROUP * tl.cdiv(n_items, BN)
        first = (pid // width) * GROUP
        height = tl.minimum(tl.cdiv(n_rows, BM) - first, GROUP)
        m = first + (pid % width) % height
        n = (pid % width) // height
    places = m * BM + tl.arange(0, BM)
    columns = n * BN + tl.arange(0, BN)
    x_rows = tl.load(rows + places, mask=places < n_rows, other=0)
    tile = product(x, y, x_rows, tl.minimum(columns, n_items - 1), D, BM, BN, BK)
    bar = tl.load(bars + places, mask=places < n_rows, other=float("inf"))
    usable = tl.load(alive + columns, mask=columns < n_items, other=0.0) > 0
    shown = tl.where(usable[None, :], tile, float("-inf"))
    _append(keys, counts, places, bar, first_item + columns, shown, capacity, 1)
    if SYMMETRIC:  # noqa: SIM102 - the outer is decided when compiling, the inner when running
        if m != n:
            bar = tl.load(bars + columns, mask=columns < n_items, other=float("inf"))
            usable = tl.load(alive + places, mask=places < n_rows, other=0.0) > 0
            shown = tl.where(usable[:, None], tile, float("-inf"))
            # Asked row by row first: a maximum down the columns goes through every thread of a warp.
            if tl.max(tl.max((shown >= bar[None, :]).to(tl.int32), axis=1), axis=0) > 0:
                _append(keys, counts, columns, bar, places, shown, capacity, 0)


@triton.jit
def drop(  # type: ignore[no-untyped-def]
    keys, counts, rows, indptr, excluded, first_query, n, width, search_steps,
    WITHOUT_SELF: tl.constexpr, EXCLUDE: tl.constexpr, B: tl.constexpr,
):  # fmt: skip
    """Set to EMPTY what no list may hold: slots past the count, the query itself, its excluded items.

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
    if WITHOUT_SELF:
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
def sort_rows(keys, stride, W: tl.constexpr):  # type: ignore[no-untyped-def]
    """The first W keys of each row, falling, in place."""
    at = keys + tl.program_id(0).to(tl.int64) * stride + tl.arange(0, W)
    tl.store(at, tl.sort(tl.load(at), descending=True))


@triton.jit
def rescore(  # type: ignore[no-untyped-def]
    keys, bars, rows, x, y, a, b, floor, n, width, d, B: tl.constexpr
):  # fmt: skip
    """Replace the fast score in each key by the exact one; EMPTY where the bar or the floor is not met.

    keys int64 [n / width, width]; bars float32, rows int32 [n / width]; x, y float32 [., d], a, b float64 [.]: see
    gpu_score.py; floor float64 [1].
    """
    entry = tl.program_id(0).to(tl.int64) * B + tl.arange(0, B)
    live = entry < n
    place = entry // width
    key = tl.load(keys + entry, mask=live, other=EMPTY)
    live = live & (key_score(key) >= tl.load(bars + place, mask=live, other=float("inf")))
    item = tl.where(live, key_item(key), 0)
    query = tl.load(rows + place, mask=live, other=0)
    dot = exact_dot(x + query.to(tl.int64) * d, y + item.to(tl.int64) * d, live, d, B)
    weight = tl.load(a + query, mask=live, other=0.0) * tl.load(b + item, mask=live, other=0.0)
    score = (dot * weight).to(tl.float32)
    kept = live & (weight != 0.0) & (score.to(tl.float64) >= tl.load(floor))
    tl.store(keys + entry, tl.where(kept, pack(score, item), EMPTY), mask=entry < n)

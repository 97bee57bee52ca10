"""Row counter in Numba: c_i· for one item at a time in a counter of I integers, its top-k kept, no nnz(C).

    for u in N(i): for j in row(u): counter[j] += 1         sum over users of d_u² steps in all

N(i) comes from transposing the interactions one block of items at a time, so that the transpose never
exists as a whole. Bytes: 4 nnz read per block, 4 per step of the counter (which stays in L2 for I < 100 k),
plus the reads of the users' rows. Every item is computed by only one thread, in exact integers, so the
number of threads changes nothing.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.jit import prefetch

_PADDING = 8  # float64 of a cache line, between the lists of two threads: a shared line moves at each insertion
_AHEAD = 4  # users whose rows are prefetched: they lie anywhere in memory
_BLOCK_BYTES = 2**22  # of transposed entries: more would save passes over the interactions, which cost little
_MAX_BYTES = 2**24  # unless it is too little for the counters
Ids: TypeAlias = NDArray[np.int32]
Offsets: TypeAlias = NDArray[np.int64]
MEASURES = {"count": 0, "cosine": 1, "jaccard": 2}


@njit(cache=True)
def _degrees(indices: Ids, n_items: int) -> Ids:
    degrees = np.zeros(n_items, np.int32)
    for e in range(len(indices)):
        degrees[indices[e]] += 1
    return degrees


@njit(cache=True)
def _transpose_block(
    indptr: Offsets, indices: Ids, low: int, high: int, cursor: Offsets, users: Ids, entries: Offsets,
) -> None:  # fmt: skip
    """Write the users of the items in [low, high), item by item; their entries too if `entries` has room."""
    for u in range(len(indptr) - 1):
        for e in range(indptr[u], indptr[u + 1]):
            j = indices[e] - low
            if 0 <= j < high - low:
                users[cursor[j]] = u
                if len(entries):
                    entries[cursor[j]] = e
                cursor[j] += 1


@njit(cache=True)
def _key(measure: int, c: int, d_i: int, d_j: int) -> np.float64:
    if measure == 0:
        return np.float64(c)
    if measure == 1:
        return np.float64(c) * np.float64(c) / np.float64(d_j)
    return np.float64(c) / np.float64(d_i + d_j - c)


@njit(cache=True)
def _is_below(measure: int, c: int, d_i: int, d_j: int, threshold: float) -> bool | np.bool_:
    """Tell if the key is surely below `threshold`, by a product instead of the division, with room for rounding."""
    low = threshold * (1 - 1e-9)
    if measure == 0:
        return c < low
    if measure == 1:
        return np.float64(c) * np.float64(c) < low * np.float64(d_j)
    return np.float64(c) < low * np.float64(d_i + d_j - c)


@njit(cache=True)
def _insert(keys: NDArray[np.float64], ids: Ids, filled: int, key: float, j: int) -> None:
    """Insert (key, j) into the descending list; the caller has checked that it belongs there."""
    at = min(filled, len(keys) - 1)
    while at > 0 and (key > keys[at - 1] or (key == keys[at - 1] and j < ids[at - 1])):
        keys[at] = keys[at - 1]
        ids[at] = ids[at - 1]
        at -= 1
    keys[at] = key
    ids[at] = j


@njit(cache=True)
def _keep_best(
    i: int, touched: Ids, n_touched: int, counter: Ids, degrees: Ids, measure: int, keys: NDArray[np.float64],
    best: Ids, ids: Ids, scores: NDArray[np.float32],
) -> None:  # fmt: skip
    """Empty the counter into the item's top-k, by way of the thread's own `keys` and `best`."""
    k = len(ids)
    filled = 0
    for t in range(n_touched):
        j = touched[t]
        c = counter[j]
        counter[j] = 0
        if j == i or (filled == k and _is_below(measure, c, degrees[i], degrees[j], keys[k - 1])):
            continue
        key = _key(measure, c, degrees[i], degrees[j])
        if filled == k and (key < keys[k - 1] or (key == keys[k - 1] and j > best[k - 1])):
            continue
        _insert(keys[:k], best, filled, key, j)
        filled = min(filled + 1, k)
    for m in range(filled):
        ids[m] = best[m]
        scores[m] = np.sqrt(keys[m] / degrees[i]) if measure == 1 else keys[m]
    ids[filled:] = -1
    scores[filled:] = 0


@njit(cache=True, parallel=True)
def _count_block(
    low: int, high: int, starts: Offsets, users: Ids, entries: Offsets, indptr: Offsets, indices: Ids, times: Offsets,
    window: int, degrees: Ids, measure: int, counters: Ids, touched: Ids, keys: NDArray[np.float64], best: Ids,
    first: int, ids: Ids, scores: NDArray[np.float32],
) -> None:  # fmt: skip
    n_threads = len(counters)
    for thread in prange(n_threads):
        counter, seen = counters[thread], touched[thread]
        # Items are dealt out in turn: popular ones, often close in id, spread over the threads.
        for i in range(low + thread, high, n_threads):
            n_touched = 0
            stop = starts[i - low + 1]
            for p in range(starts[i - low], stop):
                u = users[p]
                if p + 2 * _AHEAD < stop:
                    prefetch(indptr, users[p + 2 * _AHEAD])
                    prefetch(indices, indptr[users[p + _AHEAD]])
                for e in range(indptr[u], indptr[u + 1]):
                    if len(times) and abs(times[e] - times[entries[p]]) > window:
                        continue
                    j = np.uint32(indices[e])  # unsigned: no test for an index from the end
                    seen[n_touched] = j
                    n_touched += counter[j] == 0
                    counter[j] += 1
            _keep_best(
                i, seen, n_touched, counter, degrees, measure, keys[thread], best[thread], ids[i - first],
                scores[i - first],
            )  # fmt: skip


def _blocks(
    degrees: NDArray[np.int32], bytes_an_entry: int, budget: int, items: tuple[int, int]
) -> list[tuple[int, int]]:
    """Cut a range of items into ranges whose transposed entries fit the budget; each holds at least one item."""
    ends = np.cumsum(degrees, dtype=np.int64) * bytes_an_entry
    blocks, (low, stop) = [], items
    while low < stop:
        done = int(ends[low - 1]) if low else 0
        high = min(stop, max(int(np.searchsorted(ends, done + budget, side="right")), low + 1))
        blocks.append((low, high))
        low = high
    return blocks


def working_bytes(n_items: int, k: int, threads: int) -> int:
    """Count the bytes beside input, output and the transposed block.

    Args:
        n_items: columns of the interactions.
        k: neighbors per item.
        threads: threads that count.
    """
    return n_items * (4 + 8) + threads * (n_items * 8 + 4 + k * 12 + 16 * _PADDING)


def cooccurrence_topk(
    user_items: CSR, k: int, measure: str, window: int | None, times: NDArray[np.int64] | None, max_bytes: int | None,
    items: tuple[int, int],
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:  # fmt: skip
    """Return ids int32 [B, k] and scores float32 [B, k] of a range of B items.

    Args:
        user_items: [U, I], the pattern.
        k: neighbors per item.
        measure: "jaccard", "cosine" or "count".
        window: longest distance in time of two counted entries; None for all.
        times: int64 [nnz], needed by `window`.
        max_bytes: working memory; None for the default of the verb.
        items: first item of the range, and one past its last.
    """
    n_items, threads = user_items.n_columns, get_num_threads()
    degrees = _degrees(user_items.indices, n_items)
    bytes_an_entry = 4 if times is None else 12
    largest = int(degrees.max(initial=0)) * bytes_an_entry
    if max_bytes is None:
        max_bytes = max(_MAX_BYTES, 2 * working_bytes(n_items, k, threads) + largest)
    while threads > 1 and working_bytes(n_items, k, threads) > max_bytes // 2:
        threads -= 1
    least = working_bytes(n_items, k, threads) + largest
    if least > max_bytes:
        raise KernelInputError(
            f"cooccurrence_topk over {n_items} items needs at least {least} bytes; max_bytes is {max_bytes}"
        )
    counters = np.zeros((threads, n_items), np.int32)
    touched = np.empty((threads, n_items + 1), np.int32)  # one is written before it is known to be new
    keys, best = np.empty((threads, k + _PADDING), np.float64), np.empty((threads, k + 2 * _PADDING), np.int32)
    ids = np.empty((items[1] - items[0], k), np.int32)
    scores = np.empty(ids.shape, np.float32)
    entry_times = np.empty(0, np.int64) if times is None else times
    budget = min(_BLOCK_BYTES, max_bytes - working_bytes(n_items, k, threads))
    for low, high in _blocks(degrees, bytes_an_entry, budget, items):
        starts = np.concatenate(([0], np.cumsum(degrees[low:high], dtype=np.int64)))
        users = np.empty(starts[-1], np.int32)
        entries = np.empty(0 if times is None else starts[-1], np.int64)
        _transpose_block(user_items.indptr, user_items.indices, low, high, starts[:-1].copy(), users, entries)
        _count_block(
            low, high, starts, users, entries, user_items.indptr, user_items.indices, entry_times, window or 0,
            degrees, MEASURES[measure], counters, touched, keys, best, items[0], ids, scores,
        )  # fmt: skip
    return ids, scores

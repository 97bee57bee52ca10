"""Row counter in CUDA through CuPy: c_i. for one item at a time in I integers, its top-k kept, no nnz(C).

    for u in N(i): for j in row(u): counter[j] += 1         sum over users of d_u^2 steps in all

A block of threads owns a counter and a list of the items that it touched, both of I integers. It takes items from a
queue, popular ones first. N(i) comes from one transpose on the device. The counts are integers and a list's order is
total. So the result depends neither on the order of the atomics nor on the number of blocks. CuPy's own csr @ csr is
not used: at scale it fails, then returns zeros (cupy #10033).

Bytes: the matrix and its transpose, 8 nnz + 8 U + 48 I, 16 nnz more under a window; 8 I per block; 4 per step, from L2
while blocks x I counters fit there. Bound by the atomics. `max_bytes` bounds all of it, by fewer blocks.
The kernels are in counter.cu; fused multiply-adds change nothing there (products of integers below 2^53 are exact).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError

LANES, THREADS = 32, 256
BLOCKS_A_PROCESSOR = 8
SOURCE = Path(__file__).with_name("counter.cu")
OPTIONS = (f"-DLANES={LANES}", f"-DTHREADS={THREADS}")
_MEASURES = {"count": 0, "cosine": 1, "jaccard": 2}
_NULL = np.uint64(0)

Launch = Callable[[int, tuple[Any, ...]], None]


def count(
    xp: Any,
    transpose: Launch,
    count_rows: Launch,
    user_items: CSR,
    k: int,
    measure: str,
    window: int | None,
    times: NDArray[np.int64] | None,
    blocks: int,
) -> tuple[Any, Any]:
    """Return the k items of each item with the highest co-occurrence: ids int32 and scores float32, [I, k] of `xp`.

    Args:
        xp: CuPy, or NumPy beside kernels that run on the CPU.
        transpose: launches the kernel `transpose`, given the number of blocks and the arguments.
        count_rows: launches the kernel `count_rows`, likewise.
        user_items: [U, I], the pattern.
        k: neighbors per item.
        measure: "jaccard", "cosine" or "count".
        window: longest distance in time of two counted entries; None for all.
        times: int64 [nnz], needed by `window`.
        blocks: blocks of threads that count, each with counters of its own.
    """
    n_items = user_items.n_columns
    indptr, indices = xp.asarray(user_items.indptr), xp.asarray(user_items.indices)
    degrees = xp.bincount(indices, minlength=n_items)
    starts = xp.zeros(n_items + 1, np.int64)
    starts[1:] = xp.cumsum(degrees)
    users = xp.empty(user_items.nnz, np.int32)
    entry_times, entries = (_NULL, _NULL) if times is None else (xp.asarray(times), xp.empty(user_items.nnz, np.int64))
    transpose(4 * blocks, (indptr, indices, np.int32(user_items.n_rows), starts[:-1].copy(), users, entries))
    counters, touched = xp.zeros((blocks, n_items), np.int32), xp.empty((blocks, n_items), np.int32)
    ids, scores = xp.empty((n_items, k), np.int32), xp.empty((n_items, k), np.float32)
    count_rows(blocks, (
        indptr, indices, entry_times, np.int64(window or 0), starts, users, entries, degrees.astype(np.int32),
        xp.argsort(-degrees).astype(np.int32), np.int32(n_items), np.int32(_MEASURES[measure]), np.int32(k),
        xp.zeros(1, np.int32), counters, touched, ids, scores,
    ))  # fmt: skip
    return ids, scores


def fixed_bytes(user_items: CSR, *, timed: bool) -> int:
    """Count the bytes on the device beside the output and the blocks' counters."""
    return user_items.nnz * (24 if timed else 8) + 8 * user_items.n_rows + 48 * user_items.n_columns


@cache
def _kernels() -> tuple[Launch, Launch]:
    import cupy

    module = cupy.RawModule(code=SOURCE.read_text(encoding="utf-8"), options=OPTIONS)

    def launch(name: str) -> Launch:
        function = module.get_function(name)
        return lambda blocks, arguments: function((blocks,), (THREADS,), arguments)

    return launch("transpose"), launch("count_rows")


def _blocks(user_items: CSR, *, timed: bool, max_bytes: int | None) -> int:
    import cupy

    processors = cupy.cuda.Device().attributes["MultiProcessorCount"]
    budget = cupy.cuda.Device().mem_info[0] // 4 if max_bytes is None else max_bytes
    fixed, block = fixed_bytes(user_items, timed=timed), 8 * user_items.n_columns
    if fixed + block > budget:
        raise KernelInputError(
            f"cooccurrence_topk over {user_items.n_columns} items needs at least {fixed + block} bytes on the device; "
            f"max_bytes is {budget}"
        )
    return int(min((budget - fixed) // block, processors * BLOCKS_A_PROCESSOR, user_items.n_columns))


def cooccurrence_topk(
    user_items: CSR, k: int, measure: str, window: int | None, times: NDArray[np.int64] | None, max_bytes: int | None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return ids int32 [I, k] and scores float32 [I, k].

    Args:
        user_items: [U, I], the pattern.
        k: neighbors per item.
        measure: "jaccard", "cosine" or "count".
        window: longest distance in time of two counted entries; None for all.
        times: int64 [nnz], needed by `window`.
        max_bytes: working memory; None for the default of the verb.
    """
    if not user_items.nnz:
        shape = (user_items.n_columns, k)
        return np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
    import cupy

    blocks = _blocks(user_items, timed=times is not None, max_bytes=max_bytes)
    while True:
        try:
            ids, scores = count(cupy, *_kernels(), user_items, k, measure, window, times, blocks)
            return cupy.asnumpy(ids), cupy.asnumpy(scores)
        except cupy.cuda.memory.OutOfMemoryError:
            if blocks == 1:
                raise KernelError(
                    f"cooccurrence_topk over {user_items.n_columns} items: the device is out of memory"
                ) from None
            blocks //= 2

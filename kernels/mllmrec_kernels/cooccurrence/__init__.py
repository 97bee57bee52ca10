"""Item-item co-occurrence from a binary user x item matrix, the best k per item."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.cooccurrence import reference

MEASURES = ("jaccard", "cosine", "count")


def cooccurrence_topk(
    user_items: CSR,
    k: int,
    *,
    measure: str = "jaccard",
    window: int | None = None,
    times: NDArray[np.int64] | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The k items that share the most users with each item (method 2.6, issue 3).

    With d_i users of item i and c_ij users of both: "jaccard" is c_ij / (d_i + d_j - c_ij), "cosine"
    c_ij / sqrt(d_i d_j), "count" c_ij. The item itself is left out, and so are items that share no user.

    Order: the measure falling, equal ones by the lower id. It is decided in float64 by one division of
    integers (c / (d_i + d_j - c), and c² / d_j for the cosine, whose d_i is constant in a row), so equal
    ratios tie exactly, and unequal ones never do while |N(i) ∪ N(j)| < 2^26 (cosine: while c² d_j < 2^52).
    The float32 scores are rounded afterwards; counts are exact up to 2^24.

    Args:
        user_items: U x I; only the pattern is read, so a stored zero counts as an interaction.
        k: neighbours an item, at least 1; may exceed I.
        measure: "jaccard", "cosine" or "count".
        window: c_ij counts only users who touched i and j at most this far apart in time; d_i stays.
        times: int64, shape (nnz,), the time of each entry of `user_items.indices`; needed by `window`.
        backend: "auto", "numba", "cupy" or "reference". A CSR lives on the host, so "auto" is never CuPy.
        max_bytes: working memory beyond input and output; the transpose is made in blocks to fit it. None is
            16 MiB on the CPU, or twice what all threads' counters take where items are so many that this is more
            (8 bytes an item and thread); a quarter of what is free on a GPU.

    Returns:
        ids int32 [I, k], padded with -1, and scores float32 [I, k], padded with 0. They do not depend on
        the number of threads nor on max_bytes.

    Raises:
        KernelInputError: an argument is out of range, times do not match, or max_bytes is too little for
            one item's counters; the text names the bytes needed.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    _check(user_items, k, measure, window, times)
    if window is None:
        times = None
    chosen = backends.choose(backend, user_items.indices, cpu=("numba",), gpu=("cupy",))
    if chosen == "reference":
        return reference.cooccurrence_topk(user_items, k, measure, window, times)
    if chosen == "cupy":
        from mllmrec_kernels.cooccurrence import gpu

        return gpu.cooccurrence_topk(user_items, k, measure, window, times, max_bytes)
    from mllmrec_kernels.cooccurrence import cpu

    return cpu.cooccurrence_topk(user_items, k, measure, window, times, max_bytes)


def _check(user_items: CSR, k: int, measure: str, window: int | None, times: NDArray[np.int64] | None) -> None:
    if k < 1:
        raise KernelInputError(f"k must be at least 1; got {k}")
    if measure not in MEASURES:
        raise KernelInputError(f"measure {measure!r} is not one of {', '.join(MEASURES)}")
    if window is None:
        return
    if window < 0:
        raise KernelInputError(f"window must not be negative; got {window}")
    if times is None or times.shape != user_items.indices.shape or times.dtype != np.int64:
        got = "nothing" if times is None else f"{times.dtype} of shape {times.shape}"
        raise KernelInputError(f"window needs times, int64 of shape ({user_items.nnz},); got {got}")

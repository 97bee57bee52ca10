"""Item-item co-occurrence from a binary user x item matrix, the best k per item."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.arrays import as_bytes, as_count
from mllmrec_kernels.base.csr import CSR, as_csr, is_canonical_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.cooccurrence import reference

if TYPE_CHECKING:
    from mllmrec_kernels.base.csr import SparseLike

MEASURES = ("jaccard", "cosine", "count")


def cooccurrence_topk(
    user_items: SparseLike,
    k: int,
    *,
    measure: str = "jaccard",
    window: int | None = None,
    times: NDArray[np.int64] | None = None,
    items: tuple[int, int] | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the k items that share the most users with each item.

    With d_i users of item i and c_ij users of both: "jaccard" is c_ij / (d_i + d_j - c_ij), "cosine"
    c_ij / sqrt(d_i d_j), "count" c_ij. The item itself is left out, and so are items that share no user.

    Order: the measure falling, equal ones by the lower id. It is decided in float64 by one division of
    integers: c / (d_i + d_j - c), and c² / d_j for the cosine, whose d_i is constant in a row. Equal
    ratios tie exactly. Unequal ones never do while |N(i) ∪ N(j)| < 2^26 (cosine: while c² d_j < 2^52).
    The float32 scores are rounded afterwards; counts are exact up to 2^24.

    Args:
        user_items: sparse [U, I]; only the pattern is read, so a stored zero counts as an interaction.
        k: neighbors per item, at least 1; may exceed I.
        measure: "jaccard", "cosine" or "count".
        window: c_ij counts only users who touched i and j at most this far apart in time; d_i stays.
        times: int64 [nnz], the time of each entry of `user_items.indices`; needed by `window`. The matrix must then be
            a CSR with ascending, unique ids in a row, whose entries keep their order.
        items: first item and one past the last of those that lists are wanted of; None: of all.
        backend: "auto", "numba", "cupy" or "reference". The matrix is counted on the host unless "cupy" is named.
        max_bytes: working memory beyond input and output; the transpose is made in blocks to fit it. None is
            16 MiB on the CPU, or twice the counters of all threads (8 bytes per item and thread) where that is more.
            On a GPU it is a quarter of the free memory.

    Returns:
        ids int32 [I, k], padded with -1, and scores float32 [I, k], padded with 0; of `items`, a row for each of
        them. They do not depend on the number of threads nor on max_bytes.

    Raises:
        KernelInputError: an argument is out of range, times do not match, or max_bytes is too little for
            one item's counters; the text names the bytes needed.
        BackendUnavailableError: the named backend cannot run here.
    """
    k, max_bytes = as_count("k", k), as_bytes(max_bytes)
    matrix = as_csr("user_items", user_items, binary=True)
    if measure not in MEASURES:
        raise KernelInputError(f"measure {measure!r} is not one of {', '.join(MEASURES)}")
    span = _item_span(matrix.n_columns, items)
    if window is None:
        times = None
    else:
        _check_window(user_items, matrix, window, times)
    chosen = backends.choose(backend, matrix.indices, cpu=("numba",), gpu=("cupy",))
    if chosen == "reference":
        ids, scores = reference.cooccurrence_topk(matrix, k, measure, window, times)
        return ids[slice(*span)], scores[slice(*span)]
    if chosen == "cupy":
        from mllmrec_kernels.cooccurrence import gpu

        ids, scores = gpu.cooccurrence_topk(matrix, k, measure, window, times, max_bytes)
        return ids[slice(*span)], scores[slice(*span)]
    from mllmrec_kernels.cooccurrence import cpu

    return cpu.cooccurrence_topk(matrix, k, measure, window, times, max_bytes, span)


def _item_span(n_items: int, items: tuple[int, int] | None) -> tuple[int, int]:
    start, stop = items or (0, n_items)
    if not 0 <= start <= stop <= n_items:
        raise KernelInputError(f"items must lie in 0 .. {n_items}; got {start} .. {stop}")
    return start, stop


def _check_window(user_items: SparseLike, matrix: CSR, window: int, times: NDArray[np.int64] | None) -> None:
    if window < 0:
        raise KernelInputError(f"window must not be negative; got {window}")
    if not isinstance(times, np.ndarray) or times.shape != matrix.indices.shape or times.dtype != np.int64:
        given = f"{times.dtype} of shape {times.shape}" if isinstance(times, np.ndarray) else type(times).__name__
        given = "nothing" if times is None else given
        raise KernelInputError(f"window needs times, int64 of shape ({matrix.nnz},); got {given}")
    if not is_canonical_csr(user_items):
        raise KernelInputError(
            "times are in the order of the entries, so user_items must be a CSR with ascending, unique ids in a row; "
            "sort matrix and times together"
        )

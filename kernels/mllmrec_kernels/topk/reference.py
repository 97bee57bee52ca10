"""The contract of topk_cosine and topk_dot: score every pair, sort every row.

    cosine(x, y) = x.y / (|x| |y|),   dot(x, y) = x.y,   both rounded once to float32 (see score.py)

Whole Q x I arrays, eight times over: for tests, not for use.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.score import dot_reference, inverse_norms

TopK = tuple[NDArray[np.int32], NDArray[np.float32]]


def topk_cosine(
    queries: NDArray[np.float32],
    features: NDArray[np.float32],
    k: int,
    *,
    threshold: float | None,
    without_self: bool,
) -> TopK:
    """Exact top-k by cosine; see the verb."""
    a, b = inverse_norms(queries), inverse_norms(features)
    scores = (dot_reference(queries, features) * (a[:, None] * b)).astype(np.float32)  # [Q, I]
    allowed = (a[:, None] > 0) & (b > 0)
    if threshold is not None:
        allowed &= scores >= np.float32(threshold)
    if without_self:
        np.fill_diagonal(allowed, val=False)
    return select(scores, allowed, k)


def topk_dot(queries: NDArray[np.float32], items: NDArray[np.float32], k: int, *, exclude: CSR | None) -> TopK:
    """Exact top-k by inner product; see the verb."""
    scores = dot_reference(queries, items).astype(np.float32)  # [Q, I]
    allowed = np.ones(scores.shape, dtype=bool)
    if exclude is not None:
        for q in range(exclude.n_rows):
            allowed[q, exclude.row(q)] = False
    return select(scores, allowed, k)


def select(scores: NDArray[np.float32], allowed: NDArray[np.bool_], k: int) -> TopK:
    """The k best allowed entries of each row, by score falling, then id rising; -1 and -inf pad."""
    ids = np.full((len(scores), k), -1, dtype=np.int32)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for q, row in enumerate(scores):
        candidates = np.flatnonzero(allowed[q])
        order = candidates[np.argsort(-row[candidates], kind="stable")][:k]
        ids[q, : len(order)], best[q, : len(order)] = order, row[order]
    return ids, best

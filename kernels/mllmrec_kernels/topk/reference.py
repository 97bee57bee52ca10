"""The contract of topk_cosine and topk_dot: score every pair, sort every row.

    cosine(x, y) = x.y / (|x| |y|),   dot(x, y) = x.y,   both rounded once to float32 (see score.py)

It makes whole Q x I arrays, eight at a time: for tests, not for use.
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
    exclude_self: bool,
) -> TopK:
    """Return the exact top-k by cosine: ids int32 [Q, k] and scores float32 [Q, k].

    Args:
        queries: float32 [Q, d].
        features: float32 [N, d].
        k: neighbors per query.
        threshold: least float32 cosine; None for all.
        exclude_self: leave row q out of list q.
    """
    a, b = inverse_norms(queries), inverse_norms(features)
    scores = (dot_reference(queries, features) * (a[:, None] * b)).astype(np.float32)  # [Q, I]
    allowed = (a[:, None] > 0) & (b > 0)
    if threshold is not None:
        allowed &= scores >= np.float32(threshold)
    if exclude_self:
        np.fill_diagonal(allowed, val=False)
    return _select(scores, allowed, k)


def topk_dot(queries: NDArray[np.float32], items: NDArray[np.float32], k: int, *, exclude: CSR | None) -> TopK:
    """Return the exact top-k by inner product: ids int32 [Q, k] and scores float32 [Q, k].

    Args:
        queries: float32 [Q, d].
        items: float32 [I, d].
        k: items per query.
        exclude: [Q, I], items that each query must not list.
    """
    scores = dot_reference(queries, items).astype(np.float32)  # [Q, I]
    allowed = np.ones(scores.shape, dtype=bool)
    if exclude is not None:
        for q in range(exclude.n_rows):
            allowed[q, exclude.row(q)] = False
    return _select(scores, allowed, k)


def _select(scores: NDArray[np.float32], allowed: NDArray[np.bool_], k: int) -> TopK:
    """Return the k best allowed entries of each row, by score falling, then id rising; -1 and -inf pad."""
    ids = np.full((len(scores), k), -1, dtype=np.int32)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    for q, row in enumerate(scores):
        candidates = np.flatnonzero(allowed[q])
        order = candidates[np.argsort(-row[candidates], kind="stable")][:k]
        ids[q, : len(order)], best[q, : len(order)] = order, row[order]
    return ids, best

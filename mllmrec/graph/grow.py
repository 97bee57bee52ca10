"""Lists of nearest items after some rows changed, with the bits of a search from scratch.

With N the new or changed rows and the cosine of a pair the same bits wherever it is computed,

    a row of N                                  is searched among all
    a row whose list named a changed row        is searched among all, for another may follow in its place
    any other row                               joins its list with its best of N

A search from scratch costs I² pairs, this |N| I and the second kind. Lists by shared users are counted again: that
is one pass over the interactions.
"""

from __future__ import annotations

import numpy as np
import torch
from mllmrec_kernels import topk_cosine
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec.graph import neighbors
from mllmrec.graph.neighbors import Lists

_MANY = 0.5  # share of rows to search among all from which a search from scratch is cheaper


def grow_lists(
    vectors: Vectors,
    earlier: Lists,
    changed: NDArray[np.bool_],
    k: int,
    device: torch.device,
    threshold: float | None = None,
) -> Lists:
    """Return the k nearest rows of each row by cosine, from the lists of an earlier table.

    Args:
        vectors: float32 [I, d].
        earlier: ids int32 [J, k] and cosines float32 [J, k] of the first J <= I rows, as by_vectors gave them.
        changed: bool [I], rows that are new or whose vector changed; all from J on are.
        k: neighbors an item.
        device: where neighbors are searched from scratch, if much changed.
        threshold: lowest cosine of a list, as in the earlier search; None: any.

    Returns:
        ids int32 [I, k] and cosines float32 [I, k], the same bits as neighbors.by_vectors.
    """
    before, n = len(earlier[0]), len(vectors)
    named_changed = (earlier[0] >= 0) & changed[np.maximum(earlier[0], 0)]
    stale = changed.copy()
    stale[:before] |= named_changed.any(axis=1)
    if stale.sum() > _MANY * n:
        return neighbors.by_vectors(vectors, k, device, threshold=threshold)
    ids, cosines = np.full((n, k), -1, np.int32), np.full((n, k), -np.inf, np.float32)
    ids[:before], cosines[:before] = earlier
    rows, others, new = np.flatnonzero(stale), np.flatnonzero(~stale), np.flatnonzero(changed)
    if len(rows):
        ids[rows], cosines[rows] = _search(vectors, rows, k, threshold)
    if len(others) and len(new):
        found, near = topk_cosine(vectors[new], k, queries=vectors[others], threshold=threshold)
        named = np.where(found >= 0, new[found], -1).astype(np.int32)
        ids[others], cosines[others] = _join((ids[others], cosines[others]), (named, near), k)
    return ids, cosines


def _search(vectors: Vectors, rows: NDArray[np.int64], k: int, threshold: float | None) -> Lists:
    """Return the k nearest of some rows among all, themselves left out."""
    ids, cosines = topk_cosine(vectors, k + 1, queries=vectors[rows], threshold=threshold)
    own = ids == rows[:, None]
    own[~own.any(axis=1), -1] = True  # of more equal rows than places, the row itself may not be listed
    return ids[~own].reshape(-1, k), cosines[~own].reshape(-1, k)


def _join(left: Lists, right: Lists, k: int) -> Lists:
    """Return the k best of two lists that share nothing, by cosine falling and id rising; -1 stands for none."""
    ids, cosines = (np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True))
    last = np.where(ids >= 0, ids, np.iinfo(np.int32).max)
    order = np.lexsort((last, -cosines), axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(cosines, order, axis=1)

"""Exact top-k on the CPU: by the int8 product if it pays, by the float32 product elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array
from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.exact.float32_tile import for_each_tile
from mllmrec_kernels.exact.int8_tile import supported
from mllmrec_kernels.exact.kept import KeptItems, KeptLists
from mllmrec_kernels.exact.plan import make_plan
from mllmrec_kernels.exact.problem import Heaps, TopKProblem, is_excluded, push, score_pair, sort_heaps
from mllmrec_kernels.topk.reference import TopK

FEW_PAIRS = 2**20  # below, planning costs more than any product
_SCAN = 64  # products compared with the threshold at once


def solve(problem: TopKProblem, k: int, max_bytes: int) -> TopK:
    """Return each query's list in order.

    Args:
        problem: the search.
        k: columns of the result, at least `problem.k`.
        max_bytes: working memory.

    Returns:
        ids int32 [Q, k], padded with -1, and scores float32 [Q, k], padded with -inf.
    """
    n_queries = len(problem.queries)
    ids = np.full((n_queries, k), -1, dtype=np.int32)
    scores = np.full((n_queries, k), -np.inf, dtype=np.float32)
    if problem.k == 0 or n_queries == 0:
        return ids, scores
    heaps = Heaps(ids, scores, np.zeros(n_queries, np.int64))
    fill(problem, heaps, max_bytes)
    sort_heaps(*heaps)
    return ids, scores


def fill(problem: TopKProblem, heaps: Heaps, max_bytes: int, kept: KeptItems | None = None, n_queries: int = 0) -> None:
    """Offer every pair to the heaps, which may hold entries that the problem excludes.

    Args:
        problem: the search.
        heaps: of `problem.k` entries at most.
        max_bytes: working memory.
        kept: of earlier searches of the same items; added to.
        n_queries: of this search and those after it that are to use what is kept; 0: of this one.
    """
    if not _fill_by_int8(problem, heaps, max_bytes, kept or KeptItems(), n_queries or len(problem.queries)):
        _fill_by_float32(problem, heaps, max_bytes)


def _fill_by_int8(problem: TopKProblem, heaps: Heaps, max_bytes: int, kept: KeptItems, n_queries: int) -> bool:
    from mllmrec_kernels.topk import exact_int8

    if not supported() or len(problem.queries) * len(problem.items) < FEW_PAIRS:
        return False
    lists = kept.lists
    if lists.k != problem.k:
        ends = heaps.scores[:, 0] if len(heaps.sizes) and heaps.scores.shape[1] else np.zeros(0, np.float32)
        plan = make_plan(problem, np.where(heaps.sizes == problem.k, ends, np.float32(-np.inf)), n_queries)
        lists = kept.lists = KeptLists(problem.k, plan)
    return lists.plan is not None and exact_int8.fill(problem, heaps, lists, max_bytes)


def _fill_by_float32(problem: TopKProblem, heaps: Heaps, max_bytes: int) -> None:
    def _offer(tile: NDArray[np.float32], q: int, i: int) -> None:
        _offer_tile(tile, q, i, problem, heaps)

    for_each_tile(problem, max_bytes, _offer)


@jit
def _offer_tile(tile: Float32Array, first_query: int, first_item: int, problem: TopKProblem, heaps: Heaps) -> None:
    for r in range(len(tile)):
        _offer_row(tile[r], first_query + r, first_item, problem, heaps)


@jit
def _offer_row(products: Float32Array, q: int, first_item: int, problem: TopKProblem, heaps: Heaps) -> None:
    threshold = np.float32(_threshold(problem, heaps, q))
    for start in range(0, len(products), _SCAN):
        stop = min(start + _SCAN, len(products))
        hits = 0  # a branch-free count is one vector loop, and nearly always zero
        for c in range(start, stop):
            hits += products[c] >= threshold
        for c in range(start, stop if hits else start):
            i = first_item + c
            if products[c] < threshold or is_excluded(problem, q, i):
                continue
            score = score_pair(problem, q, i)
            if score >= problem.min_score:
                heaps.sizes[q] = push(heaps.ids, heaps.scores, q, heaps.sizes[q], problem.k, score, i)
                threshold = np.float32(_threshold(problem, heaps, q))


@jit
def _threshold(problem: TopKProblem, heaps: Heaps, q: int) -> float:
    """Return the least float32 product with which a pair may enter the list of q, error included."""
    score = heaps.scores[q, 0] if heaps.sizes[q] == problem.k else problem.min_score
    if score == -np.inf or problem.rounding_error[q] == np.inf:
        return -np.inf
    return float(score / problem.score_unit[q] - problem.rounding_error[q])

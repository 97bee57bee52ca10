"""One request for lists, as both CPU paths take it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.jit import compiled
from mllmrec_kernels.exact.score import FLUSHED, TINY, dot_rows, float32_error, inverse_norms

_NOBODY = np.zeros(0, dtype=np.int32)


class Ask(NamedTuple):
    """Who is scored against whom, and what a list takes; a tuple, so that compiled code takes it as it is.

    Rows of norm at most 1 are `queries * to_unit` and `items * shrink`; their product times unit[q] is the score.

    Attributes:
        queries, items: float32 [Q, d], [N, d]; one array for a graph of rows among themselves.
        a, b: float64 [Q], [N]; score = float32(dot * (a[q] * b[i])), and 0 in either leaves the pair out.
        to_unit, shrink: float64 [Q], [N].
        unit: float64 [Q].
        slack: float64 [Q], bound of what scaling, rounding and underflow do to a score, in units of unit[q].
        floor: lowest score that a list takes.
        kept: entries a list.
        alone: whether a row is left out of its own list.
        indptr, excluded: CSR of items that each query must not list.
    """

    queries: NDArray[np.float32]
    items: NDArray[np.float32]
    a: NDArray[np.float64]
    b: NDArray[np.float64]
    to_unit: NDArray[np.float64]
    shrink: NDArray[np.float64]
    unit: NDArray[np.float64]
    slack: NDArray[np.float64]
    floor: float
    kept: int
    alone: bool
    indptr: NDArray[np.int64]
    excluded: NDArray[np.int32]


class Lists(NamedTuple):
    """Heaps under construction: ids int32 [Q, k], best float32 [Q, k], sizes int64 [Q]."""

    ids: NDArray[np.int32]
    best: NDArray[np.float32]
    sizes: NDArray[np.int64]


def constant(value: float, n: int) -> NDArray[Any]:
    """`value`, n times, in the memory of one."""
    return np.broadcast_to(np.float64(value), (n,))


def cosine(
    queries: NDArray[np.float32], features: NDArray[np.float32], k: int, threshold: float | None, *, alone: bool
) -> Ask:
    """By cosine; a row of zeros has none."""
    b = inverse_norms(features)
    a = b if queries is features else inverse_norms(queries)
    floor = -np.inf if threshold is None else float(np.float32(threshold))
    unit = constant(1.0, len(queries))
    slack = constant(float(bar_slack(np.ones(1), queries.shape[1])[0]), len(queries))
    indptr = np.broadcast_to(np.int64(0), (len(queries) + 1,))
    return Ask(queries, features, a, b, a, b, unit, slack, floor, min(k, len(features)), alone, indptr, _NOBODY)


def inner_product(queries: NDArray[np.float32], items: NDArray[np.float32], k: int, exclude: CSR | None) -> Ask:
    """By inner product, `exclude` left out."""
    to_unit, largest = inverse_norms(queries), largest_norm(items)
    unit = np.divide(largest, to_unit, out=np.zeros(len(to_unit)), where=to_unit > 0)
    shrink = constant(1.0 / largest if largest > 0 else 0.0, len(items))
    indptr = np.broadcast_to(np.int64(0), (len(queries) + 1,)) if exclude is None else exclude.indptr
    excluded = _NOBODY if exclude is None else exclude.indices
    return Ask(
        queries, items, constant(1.0, len(queries)), constant(1.0, len(items)), to_unit, shrink, unit,
        bar_slack(unit, queries.shape[1]), -np.inf, min(k, len(items)), False, indptr, excluded,
    )  # fmt: skip


def largest_norm(vectors: NDArray[np.float32]) -> float:
    """The largest |row|; 0 for no rows."""
    inverse = inverse_norms(vectors)
    return float(1.0 / inverse[inverse > 0].min()) if (inverse > 0).any() else 0.0


def bar_slack(unit: NDArray[np.float64], d: int) -> NDArray[np.float64]:
    """Bound of |product of float32 rows of norm at most 1 - score / unit|: rounding, and what underflows; [Q]."""
    with np.errstate(divide="ignore", over="ignore"):
        return np.asarray(float32_error(d) + 2 * d * FLUSHED + 2 * TINY / unit)


@compiled
def bar_of(ask: Any, lists: Any, q: Any) -> float:
    """What x.y of rows of norm at most 1 must reach for the list of q to take the pair, error included."""
    lowest = lists.best[q, 0] if lists.sizes[q] == ask.kept else ask.floor
    if lowest == -np.inf or ask.slack[q] == np.inf:
        return -np.inf
    return float(lowest / ask.unit[q] - ask.slack[q])


@compiled
def score_of(ask: Any, q: Any, i: Any) -> np.float32:
    """The score itself (score.py)."""
    return np.float32(dot_rows(ask.queries, q, ask.items, i) * (ask.a[q] * ask.b[i]))


@compiled
def is_barred(ask: Any, q: Any, i: Any) -> bool:
    """Whether the pair has no score, or may not be listed."""
    if ask.a[q] * ask.b[i] == 0.0 or (ask.alone and i == q):
        return True
    return is_stored(ask.indptr, ask.excluded, q, i)


@compiled
def is_stored(indptr: Any, indices: Any, q: Any, i: Any) -> bool:
    """Whether row q of a CSR holds column i."""
    low, high = indptr[q], indptr[q + 1]
    stop = high
    while low < high:
        middle = (low + high) // 2
        if indices[middle] < i:
            low = middle + 1
        else:
            high = middle
    return bool(low < stop and indices[low] == i)

"""Lists for one user at a time, from item weights and vectors that were checked and encoded once.

`topk_mixed` checks and encodes all items in each call, which pays for many users. Here a call does

    1. sum the sparse part;
    2. bound all scores by the leading axes (leading_rows.py), a span per thread, which reads a fifth of a table of
       two bytes per coordinate;
    3. score the k items of highest center, then those whose upper bounds are no lower than the least of these: that of
       the axes, and that of all coordinates (coded_rows.py);
    4. join the spans' heaps.

Lists have the bits of `topk_mixed`. Memory: 2 d + 170 bytes per item, beside the weights and the vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.base.parallel import equal_parts, parallel_for
from mllmrec_kernels.exact.problem import Heaps, push
from mllmrec_kernels.mixed.coded_rows import CodedRows, bound_dot, encode_user
from mllmrec_kernels.mixed.few import LEAST, ROUNDED, room, score_pair, side_of, spread, sum_row
from mllmrec_kernels.mixed.items import MixedItems
from mllmrec_kernels.mixed.leading_rows import LeadingRows, LeadingUsers, bound_leading, lead_users
from mllmrec_kernels.mixed.scores import Problem, SparsePart

Lists = tuple[NDArray[np.int32], NDArray[np.float32]]

if TYPE_CHECKING:
    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike

_SPAN = 1 << 14  # items of a thread, at least
_BLOCK = 1 << 9  # items that are bounded at a time
_ALL = 1 << 62  # bytes: the items are encoded whatever they take


class MixedIndex:
    """Items of mixed scores, ready for one user after another.

    Args:
        item_weights: W, sparse or floating [J, I]; row j is what item j adds to each item's score. MixedItems hold
            W and q, encoded once for this and for lists of many users.
        item_vectors: q, floating [I, d]; None for no inner product.

    Attributes:
        items: W and q.

    Raises:
        KernelInputError: a wrong type or shape, or numbers that are NaN or infinite.
    """

    def __init__(
        self, item_weights: SparseLike | ArrayLike | MixedItems, item_vectors: ArrayLike | None = None
    ) -> None:
        self.items = item_weights if isinstance(item_weights, MixedItems) else MixedItems(item_weights, item_vectors)
        self._rows = self.items.coded(_ALL)
        self._leading = self.items.leading(_ALL)
        self._n_rows, self.n_items = self.items.shape
        self._room, self._ids = room(self.n_items), np.arange(self.n_items, dtype=np.int32)

    def topk(
        self,
        items: NDArray[np.integer[Any]],
        k: int,
        *,
        user_vector: NDArray[np.float32] | None = None,
        standardize: bool = False,
        exclude: NDArray[np.integer[Any]] | None = None,
    ) -> Lists:
        """Return the k items of highest score for one user, as topk_mixed does.

        Args:
            items: int [n], ascending and unique: the user's row of R.
            k: items of the list, at least 1.
            user_vector: float32 [d]; None if there is no inner product.
            standardize: divide the sparse part by its standard deviation over all items, as row_spread has it.
            exclude: int [m], ascending and unique, items that are not listed; None: `items`.

        Returns:
            ids int32 [k], padded with -1, and scores float32 [k], padded with -inf.

        Raises:
            KernelInputError: ids do not ascend or are no items, or the vector has another width.
        """
        k, owned = arrays.as_count("k", k), _checked_ids("items", items, self._n_rows)
        excluded = owned if exclude is None else _checked_ids("exclude", exclude, self.n_items)
        problem = self._of_user(owned, user_vector)
        n, deviation = _sum(problem.sparse, self._room)
        scale = np.ones(1, np.float32)
        if standardize:
            scale[0] = np.float32(1 / deviation) if deviation > 0 else 0
        added = np.zeros(self.n_items, np.float32)
        added[self._room.ids[:n]] = self._room.values[:n]
        added[excluded] = -np.inf
        return self._listed(problem._replace(scale=scale), added, k)

    def _of_user(self, owned: NDArray[np.int32], user_vector: NDArray[np.float32] | None) -> Problem:
        d = self.items.vectors.shape[1]
        vector = np.zeros(0, np.float32) if user_vector is None else np.asarray(user_vector, np.float32)
        if vector.shape != (d,) or not np.isfinite(vector).all():
            raise KernelInputError(f"user_vector must be {d} finite numbers; got shape {vector.shape}")
        sparse = self.items.sparse_part(CSR(np.array([0, len(owned)]), owned, None, self._n_rows))
        return Problem(sparse, np.ones(1, np.float32), vector[None], self.items.vectors)

    def _listed(self, problem: Problem, added: NDArray[np.float32], k: int) -> Lists:
        """Return the list of the one user of `problem`.

        Args:
            problem: of one user.
            added: float32 [I], sparse parts; -inf for items that are not listed.
            k: entries of the list.
        """
        codes, bounds = np.zeros((1, self._rows.codes.shape[1]), np.int16), np.zeros((1, 3))
        user, spans = lead_users(problem.users, self._leading), equal_parts(self.n_items, _SPAN)
        ids = np.full((len(spans), min(k, self.n_items)), -1, np.int32)
        heaps = Heaps(ids, np.full(ids.shape, -np.inf, np.float32), np.zeros(len(ids), np.int64))
        _encode(problem, self._rows, codes, bounds)

        def _work(start: int, stop: int) -> None:
            heap = next(n for n, span in enumerate(spans) if span[0] == start)
            ids = self._ids[start:stop]
            _list_span(problem, self._rows, self._leading, user, codes, bounds, added, heaps, heap, ids)

        parallel_for(_work, spans, keep_threads=True)
        listed = ids.ravel() >= 0
        found, best = ids.ravel()[listed], heaps.scores.ravel()[listed]
        order = np.lexsort((found, -best))[:k]
        padded = np.full(k, -1, np.int32), np.full(k, -np.inf, np.float32)
        padded[0][: len(order)], padded[1][: len(order)] = found[order], best[order]
        return padded


def _checked_ids(name: str, ids: NDArray[np.integer[Any]], n: int) -> NDArray[np.int32]:
    checked = np.ascontiguousarray(ids, np.int32)
    if checked.ndim != 1 or (len(checked) and (checked[0] < 0 or checked[-1] >= n or (np.diff(checked) <= 0).any())):
        raise KernelInputError(f"{name} must be ascending, unique ids in [0, {n}); got shape {checked.shape}")
    return checked


@njit(cache=True, nogil=True, error_model="numpy")
def _sum(sparse: SparsePart, room: Any) -> tuple[int, float]:
    """Sum R_u W into the room; return how many items have a part, and the standard deviation over all."""
    n = sum_row(sparse, 0, room)
    return n, spread(room, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _encode(problem: Any, rows: CodedRows, codes: Any, bounds: Any) -> None:
    """Encode the one user."""
    if codes.shape[1] > 0:
        encode_user(problem.users, 0, rows.sizes, codes, bounds, 0)


@njit(cache=True, nogil=True, error_model="numpy")
def _list_span(
    problem: Any, rows: CodedRows, leading: LeadingRows, user: LeadingUsers, codes: Any, bounds: Any, added: Any,
    heaps: Heaps, q: Any, items: Any,
) -> None:  # fmt: skip
    """Put the best of some items into heap q.

    The k of highest center are scored. An item whose upper bound is below their least score is not listed.
    """
    ids, scores, k, size = heaps.ids, heaps.scores, heaps.ids.shape[1], 0
    highs, scale = np.empty(len(items)), np.float64(problem.scale[0])
    _bound_span(rows, leading, user, codes, bounds, added, scale, heaps, q, items, highs)
    threshold = np.float32(-np.inf)
    if k > 0 and heaps.sizes[q] == k:
        threshold = np.float32(np.inf)
        for e in range(k):
            threshold = min(threshold, score_pair(problem, 0, ids[q, e], added[ids[q, e]]))
    for t in range(len(items)):
        i = items[t]
        if highs[t] < threshold or added[i] == -np.inf:
            continue
        if user.codes.shape[1] > 0 and codes.shape[1] > 0 and threshold > -np.inf:
            center, radius = bound_dot(codes, bounds, 0, rows, i)
            if side_of(center + np.float64(added[i]) * scale, radius, threshold) < 0:
                continue
        size = push(ids, scores, q, size, k, score_pair(problem, 0, i, added[i]), i)
        if size == k:
            threshold = max(threshold, scores[q, 0])
    heaps.sizes[q] = size
    ids[q, size:], scores[q, size:] = -1, np.float32(-np.inf)


@njit(cache=True, nogil=True, error_model="numpy")
def _bound_span(
    rows: CodedRows, leading: LeadingRows, user: LeadingUsers, codes: Any, bounds: Any, added: Any, scale: Any,
    heaps: Heaps, q: Any, items: Any, highs: Any,
) -> None:  # fmt: skip
    """Write upper bounds of the scores of some items; put the k of highest center into heap q."""
    ids, scores, k, size, least = heaps.ids, heaps.scores, heaps.ids.shape[1], 0, np.float32(-np.inf)
    centers, radii, sums = np.zeros(_BLOCK), np.zeros(_BLOCK), np.empty(_BLOCK, np.float32)
    for first in range(0, len(highs), _BLOCK):
        n = min(_BLOCK, len(highs) - first)
        if user.codes.shape[1] > 0:
            bound_leading(user, 0, leading, items, first, n, centers, radii)
        elif codes.shape[1] > 0:
            for t in range(n):
                centers[t], radii[t] = bound_dot(codes, bounds, 0, rows, items[first + t])
        for t in range(n):
            x = added[items[first + t]]
            center = centers[t] + np.float64(x) * scale
            margin = radii[t] + (abs(centers[t]) + abs(center) + radii[t]) * ROUNDED + LEAST
            listed = x > -np.inf
            highs[first + t] = center + margin if listed else -np.inf
            sums[t] = np.float32(center) if listed else np.float32(-np.inf)
        for t in range(n):
            if sums[t] > least or (size < k and sums[t] > -np.inf):
                size = push(ids, scores, q, size, k, sums[t], items[first + t])
                if size == k:
                    least = scores[q, 0]
    heaps.sizes[q] = size

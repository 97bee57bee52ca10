"""Lists for one user at a time, from item weights and vectors that were checked and encoded once.

`topk_mixed` checks and encodes all items in each call, which pays for many users. Here a call does

    1. sum the sparse part, and offer its items to a heap: their k-th score is a high threshold;
    2. scan all other items against it, a span per thread, each with a heap of its own;
    3. join the heaps.

An item of the scan has no sparse part. It is scored exactly where two bounds leave it: with norms of blocks of columns,
|p . q| <= sum over blocks of |p_b| |q_b|, and with two bytes per coordinate, that of coded_rows.py.

Lists have the bits of `topk_mixed`. Memory: 2 d bytes per item, and 4 per block, beside the weights and the vectors.
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
from mllmrec_kernels.exact.problem import push
from mllmrec_kernels.mixed.coded_rows import CodedRows, bound_dot, encode_user
from mllmrec_kernels.mixed.few import room, score_pair, side_of, spread, sum_row
from mllmrec_kernels.mixed.items import MixedItems
from mllmrec_kernels.mixed.scores import Problem, SparsePart

if TYPE_CHECKING:
    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike

_SPAN = 1 << 14  # items of a thread, at least
_BLOCK = 64  # columns of a block
_UPWARD = 1.0 + 1e-6  # more than the rounding of a norm to float32
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
        self._norms = _block_norms(self.items.vectors)
        self._n_rows, self.n_items = self.items.shape
        self._room = room(self.n_items)

    def topk(
        self,
        items: NDArray[np.integer[Any]],
        k: int,
        *,
        user_vector: NDArray[np.float32] | None = None,
        standardize: bool = False,
        exclude: NDArray[np.integer[Any]] | None = None,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
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
        problem = problem._replace(scale=scale)
        ids, values = self._room.ids[:n], self._room.values[:n]
        return self._listed(problem, ids, values, excluded, min(k, self.n_items), k)

    def _of_user(self, owned: NDArray[np.int32], user_vector: NDArray[np.float32] | None) -> Problem:
        d = self.items.vectors.shape[1]
        vector = np.zeros(0, np.float32) if user_vector is None else np.asarray(user_vector, np.float32)
        if vector.shape != (d,) or not np.isfinite(vector).all():
            raise KernelInputError(f"user_vector must be {d} finite numbers; got shape {vector.shape}")
        sparse = self.items.sparse_part(CSR(np.array([0, len(owned)]), owned, None, self._n_rows))
        return Problem(sparse, np.ones(1, np.float32), vector[None], self.items.vectors)

    def _listed(
        self,
        problem: Problem,
        few: NDArray[np.int32],
        values: NDArray[np.float32],
        excluded: NDArray[np.int32],
        size: int,
        k: int,
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Return the list of the one user of `problem`, padded to k.

        Args:
            problem: of one user.
            few: int32 [n], ascending, the items whose sparse part is not 0.
            values: float32 [n], their sparse parts.
            excluded: int32 [m], ascending.
            size: entries that a heap takes.
            k: entries of the list.
        """
        codes, bounds = np.zeros((1, self._rows.codes.shape[1]), np.int16), np.zeros((1, 3))
        spans = equal_parts(self.n_items, _SPAN)
        ids = np.full((len(spans) + 1, size), -1, np.int32)
        scores, sizes = np.full(ids.shape, -np.inf, np.float32), np.zeros(len(ids), np.int64)
        _offer(problem, self._rows, few, values, excluded, codes, bounds, (ids, scores, sizes))
        own = _block_norms(problem.users)[0]
        least = scores[0, 0] if size and sizes[0] == size else np.float32(-np.inf)

        def scan(start: int, stop: int) -> None:
            heap = 1 + next(n for n, span in enumerate(spans) if span[0] == start)
            _scan(
                problem, self._rows, few, excluded, codes, bounds, (ids, scores, sizes), heap, least, start, stop,
                self._norms, own,
            )  # fmt: skip

        parallel_for(scan, spans, keep_threads=True)
        listed = ids.ravel() >= 0
        found, best = ids.ravel()[listed], scores.ravel()[listed]
        order = np.lexsort((found, -best))[:k]
        padded = np.full(k, -1, np.int32), np.full(k, -np.inf, np.float32)
        padded[0][: len(order)], padded[1][: len(order)] = found[order], best[order]
        return padded


def _block_norms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a bound of the norm of each block of columns, float32 [n, blocks]."""
    n, d = vectors.shape
    norms = np.zeros((n, -(-d // _BLOCK)), np.float32)
    for b in range(norms.shape[1]):
        part = vectors[:, b * _BLOCK : (b + 1) * _BLOCK]
        norms[:, b] = np.sqrt(np.einsum("nd,nd->n", part, part, dtype=np.float64)) * _UPWARD
    return norms


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
def _offer(
    problem: Any, rows: CodedRows, few: Any, values: Any, excluded: Any, codes: Any, bounds: Any, heaps: Any
) -> None:
    """Encode the user, and offer the few that are not excluded to heap 0."""
    ids, scores, sizes = heaps
    if codes.shape[1] > 0:
        encode_user(problem.users, 0, rows.sizes, codes, bounds, 0)
    k, size, e, scale = ids.shape[1], 0, 0, np.float64(problem.scale[0])
    for m in range(len(few)):
        i, x, below = few[m], values[m], False
        while e < len(excluded) and excluded[e] < i:
            e += 1
        if e < len(excluded) and excluded[e] == i:
            continue
        if size == k and codes.shape[1] > 0:
            center, radius = bound_dot(codes, bounds, 0, rows, i)
            below = side_of(center + np.float64(x) * scale, radius, scores[0, 0]) < 0
        if not below:
            size = push(ids, scores, 0, size, k, score_pair(problem, 0, i, x), i)
    sizes[0] = size


@njit(cache=True, nogil=True, error_model="numpy")
def _scan(
    problem: Any, rows: CodedRows, few: Any, excluded: Any, codes: Any, bounds: Any, heaps: Any, q: Any, least: Any,
    start: Any, stop: Any, norms: Any, own: Any,
) -> None:  # fmt: skip
    """Offer the items start to stop that are neither few nor excluded to heap q, where they may exceed `least`."""
    ids, scores, sizes = heaps
    k, size, threshold = ids.shape[1], 0, least
    f, e = np.searchsorted(few, start), np.searchsorted(excluded, start)
    for i in range(start, stop):
        if f < len(few) and few[f] == i:
            f += 1
            continue
        while e < len(excluded) and excluded[e] < i:
            e += 1
        if e < len(excluded) and excluded[e] == i:
            continue
        if codes.shape[1] > 0 and threshold > -np.inf:
            largest = 0.0
            for b in range(len(own)):
                largest += np.float64(own[b]) * np.float64(norms[i, b])
            if side_of(0.0, largest * (1.0 + 1e-9), threshold) < 0:
                continue
            center, radius = bound_dot(codes, bounds, 0, rows, i)
            if side_of(center, radius, threshold) < 0:
                continue
        size = push(ids, scores, q, size, k, score_pair(problem, 0, i, np.float32(0)), i)
        if size == k:
            threshold = max(least, scores[q, 0])
    sizes[q] = size

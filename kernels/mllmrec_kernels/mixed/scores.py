"""Scores that are a sparse part plus an inner product, and what the backends take them as.

    x(u, i)     = sum over j of R[u, j] W[j, i]        float32, j ascending, one rounding a product and one a sum
    score(u, i) = float32( scale[u] x(u, i) + dot(p_u, q_i) )

The product of two float32 numbers is exact in float64, and `dot` is that of exact/score.py. The sum rounds once to
float64 and once to float32. So a score has the same bits on every backend. An item with x(u, i) = 0 has the score of
only the inner product, which is what the kernels build on: few of a user's items are otherwise.

Several sparse terms are one: their R stand side by side, each scaled by row, and their W below each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base.csr import as_csr
from mllmrec_kernels.base.errors import KernelInputError

if TYPE_CHECKING:
    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import CSR, SparseLike
    from mllmrec_kernels.mixed.items import MixedItems

_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True, eq=False)
class MixedScores:
    """Scores of U users for I items: scale[u] (R_u W)_i + p_u . q_i.

    Attributes:
        user_items: R, sparse [U, J]; a binary one says which items each user has.
        item_weights: W, sparse or floating [J, I]; row j is what item j adds to each item's score. MixedItems hold
            W and q, encoded once for all calls.
        scale: floating [U], times each user's sparse part; None for 1.
        user_vectors: p, floating [U, d]; None, with `item_vectors`, for no inner product.
        item_vectors: q, floating [I, d]; None where `item_weights` are MixedItems.
        standardize: the scale is 1 / the standard deviation of each user's sparse part, as row_spread has it, and 0
            where that is 0; `scale` is None.
    """

    user_items: SparseLike
    item_weights: SparseLike | ArrayLike | MixedItems
    scale: ArrayLike | None = None
    user_vectors: ArrayLike | None = None
    item_vectors: ArrayLike | None = None
    standardize: bool = False

    def take(self, users: NDArray[np.int64]) -> MixedScores:
        """Return the scores of some users, int64 [B], in that order."""
        return MixedScores(
            as_csr("user_items", self.user_items).take_rows(users),
            self.item_weights,
            None if self.scale is None else self.scale[users],
            None if self.user_vectors is None else self.user_vectors[users],
            self.item_vectors,
            self.standardize,
        )


class SparsePart(NamedTuple):
    """R and W; a tuple, because compiled code takes it as it is.

    Attributes:
        indptr, ids, values: R; no values if all are 1.
        weight_indptr, weight_ids, weight_values: W where it is sparse.
        dense_weights: float32 [J, I], W where it is dense; no rows where it is not.
    """

    indptr: NDArray[np.int64]
    ids: NDArray[np.int32]
    values: NDArray[np.float32]
    weight_indptr: NDArray[np.int64]
    weight_ids: NDArray[np.int32]
    weight_values: NDArray[np.float32]
    dense_weights: NDArray[np.float32]


class Problem(NamedTuple):
    """Checked scores; a tuple, because compiled code takes it as it is.

    Attributes:
        sparse: R and W.
        scale: float32 [U].
        users: float32 [U, d]; d is 0 if there is no inner product.
        items: float32 [I, d].
        standardize: the scale is written as users are summed.
    """

    sparse: SparsePart
    scale: NDArray[np.float32]
    users: NDArray[np.float32]
    items: NDArray[np.float32]
    standardize: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """(U, I)."""
        return len(self.users), len(self.items)


def as_sparse_part(user_items: SparseLike, item_weights: SparseLike | ArrayLike) -> tuple[SparsePart, int]:
    """Return R and W, checked, and I.

    Args:
        user_items: sparse [U, J].
        item_weights: sparse or floating [J, I].

    Raises:
        KernelInputError: a wrong type or shape, or values that are NaN or infinite.
    """
    R = as_csr("user_items", user_items)
    if _is_dense(item_weights):
        dense = arrays.float32_rows("item_weights", cast("ArrayLike", item_weights))
        values = check_row_values(R, len(dense))
        none = np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32)
        return SparsePart(R.indptr, R.indices, values, *none, dense), dense.shape[1]
    W = as_csr("item_weights", item_weights)
    values = check_row_values(R, W.n_rows)
    _check_values("item_weights", W.values())
    no_rows = np.zeros((0, 0), np.float32)
    return SparsePart(R.indptr, R.indices, values, W.indptr, W.indices, W.values(), no_rows), W.n_columns


def check_row_values(R: CSR, n_rows: int) -> NDArray[np.float32]:
    """Return the values of R, none where all are 1; refuse a width other than the rows of W."""
    if R.n_columns != n_rows:
        raise KernelInputError(f"item_weights must have {R.n_columns} rows, the columns of user_items; got {n_rows}")
    values = np.zeros(0, np.float32) if R.data is None else R.data
    _check_values("user_items", values)
    return values


def largest_weight(sparse: SparsePart) -> float:
    """Return the largest |weight|, 0 for none."""
    weights = sparse.dense_weights if len(sparse.dense_weights) else sparse.weight_values
    return max(float(weights.max(initial=0.0)), -float(weights.min(initial=0.0)))


def count_few(sparse: SparsePart, n_items: int) -> NDArray[np.int64]:
    """Bound how many items have a sparse part that is not 0, for each user; int64 [U]."""
    lengths = np.diff(sparse.weight_indptr)
    if len(sparse.dense_weights):
        lengths = np.full(len(sparse.dense_weights), n_items)
    ends = np.concatenate([[0], np.cumsum(lengths[sparse.ids])])
    return np.asarray(np.minimum(ends[sparse.indptr[1:]] - ends[sparse.indptr[:-1]], n_items), np.int64)


def check_lengths(n_users: int | None, n_items: int | None, shape: tuple[int, int]) -> None:
    """Refuse vectors of another number of users or items than the sparse part has.

    Args:
        n_users: rows of the user vectors; None: not checked.
        n_items: rows of the item vectors; None: not checked.
        shape: (U, I) of the sparse part.
    """
    for name, rows, expected in (("user_vectors", n_users, shape[0]), ("item_vectors", n_items, shape[1])):
        if rows is not None and rows != expected:
            raise KernelInputError(f"{name} must have {expected} rows, as the sparse part has; got {rows}")


def as_scale(scale: ArrayLike | None, n_users: int) -> NDArray[np.float32]:
    """Return the scale as float32 [U], checked; ones for None."""
    if scale is None:
        return np.ones(n_users, np.float32)
    array = np.ascontiguousarray(arrays.as_numpy("scale", scale), np.float32)
    if array.shape != (n_users,):
        raise KernelInputError(f"scale must have shape ({n_users},); got {array.shape}")
    _check_values("scale", array)
    return array


def _check_values(name: str, values: NDArray[np.float32]) -> None:
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise KernelInputError(f"{name} must be finite; {bad} values are NaN or infinite")


def check_range(sparse: SparsePart, scale: NDArray[np.float32], largest_weight: float, largest_product: float) -> None:
    """Refuse scores that may leave float32.

    Args:
        sparse: R, bounded by each user's sum of |R|.
        scale: float32 [U].
        largest_weight: largest |W|.
        largest_product: bound of all inner products.
    """
    _check_values("scale", scale)
    magnitudes = np.abs(sparse.values, dtype=np.float64) if len(sparse.values) else np.ones(len(sparse.ids))
    ends = np.concatenate([[0.0], np.cumsum(magnitudes)])
    totals = (ends[sparse.indptr[1:]] - ends[sparse.indptr[:-1]]) * np.maximum(np.abs(scale, dtype=np.float64), 1)
    largest = 1.001 * float(totals.max(initial=0.0)) * largest_weight + largest_product
    if largest >= _LARGEST:
        raise KernelInputError(f"scores reach {largest:.3g}, beyond float32; scale weights and vectors down")


def inverse_spread(spread: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return 1 / spread, and 0 where it is 0, float32 [U]."""
    return np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0).astype(np.float32)


def _is_dense(weights: Any) -> bool:
    return isinstance(weights, np.ndarray) or (arrays.is_tensor(weights) and str(weights.layout) == "torch.strided")

"""Predict the parameters of items that a fit did not know, from the vectors of the items that it did; no training.

A new item has no factors and no column of weights. Zeros would say that everybody refused it. Here each of its
parameters is a weighted mean of the same parameter of its nearest known items, those with training interactions. With
x the item vectors, and N_j the k known items nearest to item j,

    a_ji = max(0, x_j . x_i)^s / sum over N_j of the same,   i in N_j.

Every model places new items with A [J, I] at s = 1 (`place`):

    a table of item vectors Q       rows A Q
    item-item weights W             columns W A^T, rows A W

The ensemble chooses its prediction by validation (new_item_placement.py):

    W_.j = g (W + o I) A_j,   q_j = g sum over i of a_ji q_i.

An item's ridge weight on itself is 0, for nobody buys it twice. A new item that is like an owned one may well be
bought: o is what owning a neighbor itself adds. Scores are linear in the parameters. So a new item's score is g times
the mean score of its nearest known items, for each user.

The ensemble's x are centered and half-whitened: coordinates on the principal axes times eigenvalue^-1/4, unit again.
The axes that all items share count less then, and what sets two items apart counts more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, topk_cosine
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.mixed.largest import largest_of_product
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work, rows_a_block
from mllmrec.errors import InputError
from mllmrec.features.encode import Vectors, normalize_rows
from mllmrec.graph.neighbors import Lists, shard_block
from mllmrec.models.ordered_sums import ROWS, gram_of

NEIGHBORS = 20  # k
MOST_WEIGHTS = 400  # of a predicted column; the smallest are dropped
_ROUNDING = 1e-9  # eigenvalues below this share of the largest are rounding
_BLOCK = 1 << 10  # items searched for or predicted at once


def place(known: Vectors, new: Vectors, user_items: CSR | None) -> sp.csr_array:
    """Return A at s = 1, float32 [N, I]; a row of zeros for an item whose vector is zero, or like no other.

    Args:
        known: float32 [I, d], vectors of the items of the fit.
        new: float32 [N, d].
        user_items: [U, I], training interactions; None: every item counts as one with interactions.
    """
    n_items = len(known)
    counts = np.ones(n_items) if user_items is None else np.bincount(user_items.indices, minlength=n_items)
    warm = np.flatnonzero(counts)
    shares = neighbor_weights(np.ascontiguousarray(new), np.ascontiguousarray(known[warm]), 1.0)
    return spread_columns(shares, warm, n_items)


def check_new_vectors(known: Vectors | None, new: Vectors) -> tuple[Vectors, Vectors]:
    """Return the vectors of known and new items as float32, or refuse them.

    Args:
        known: of the model's items; None if the model has none.
        new: anything like an array.

    Raises:
        InputError: the model has no item vectors, or the new ones have another width or hold NaN.
    """
    if known is None:
        raise InputError(
            "this model has no item vectors to place new items by; fit it with item_features=, or set item_features "
            "to those of its items"
        )
    vectors = np.ascontiguousarray(new, np.float32)
    if vectors.ndim != 2 or vectors.shape[1] != known.shape[1]:
        raise InputError(
            f"features must have shape (N, {known.shape[1]}), as the items of the fit; got {vectors.shape}"
        )
    if not np.isfinite(vectors).all():
        raise InputError("features hold NaN or infinity; mend or drop these items")
    return np.ascontiguousarray(known, np.float32), vectors


def extend_weights(weights: sp.csr_array | NDArray[np.float32], shares: sp.csr_array) -> CSR | NDArray[np.float32]:
    """Return item-item weights [I + N, I + N].

    Args:
        weights: W, [I, I], sparse or dense.
        shares: A, [N, I].
    """
    columns = weights @ shares.T  # [I, N]
    rows = shares @ weights  # [N, I]
    corner = shares @ columns
    if sp.issparse(weights):
        whole = sp.block_array([[weights, columns], [rows, corner]], format="csr")
        return CSR.from_scipy(whole.astype(np.float32))
    return np.asarray(np.block([[weights, columns], [rows, corner]]), np.float32)


def extend_columns(user_items: CSR, n_new: int) -> CSR:
    """Return interactions [U, I + n_new]; nobody has the new items."""
    return CSR(user_items.indptr, user_items.indices, user_items.data, user_items.n_columns + n_new)


def extend_rows(table: Vectors, shares: sp.csr_array) -> Vectors:
    """Return a table of item vectors [I + N, r]: Q, and A Q below."""
    return np.concatenate([table, np.asarray(shares @ table, np.float32)])


@dataclass(frozen=True, slots=True)
class HalfWhitening:
    """A map of item vectors to x of the module.

    Attributes:
        mean: float32 [d], of the vectors that it was fitted on.
        axes: float32 [d, r], principal axes times eigenvalue^-1/4.
    """

    mean: Vectors
    axes: Vectors

    @staticmethod
    def of(vectors: Vectors) -> HalfWhitening:
        """Fit the map to vectors [I, d]."""
        mean = vectors.mean(axis=0, dtype=np.float64)
        values, axes = np.linalg.eigh(gram_of(vectors, mean) / max(1, len(vectors)))
        kept = values > _ROUNDING * max(values.max(initial=0), np.finfo(np.float32).tiny)
        return HalfWhitening(mean.astype(np.float32), (axes[:, kept] * values[kept] ** -0.25).astype(np.float32))

    def __call__(self, vectors: Vectors) -> Vectors:
        """Return x of vectors [J, d], float32 [J, r] with unit rows; an item without a vector gets zeros."""
        x = np.empty((len(vectors), self.axes.shape[1]), np.float32)

        def _work(start: int, stop: int) -> None:
            x[start:stop] = normalize_rows(np.asarray((vectors[start:stop] - self.mean) @ self.axes, np.float32))

        parallel_for(_work, chunks(len(vectors), ROWS))
        x[~vectors.any(axis=1)] = 0
        return x


@dataclass(frozen=True, slots=True)
class Prediction:
    """The settings of a prediction from known items.

    Attributes:
        sharpness: s; the higher, the more the nearest neighbors alone count.
        owned: o, the weight of a neighbor that the user owns.
        gain: g, a factor on the scale of known items.
    """

    sharpness: float = 4.0
    owned: float = 0.0
    gain: float = 1.0


def neighbor_weights(new: Vectors, known: Vectors, sharpness: float) -> sp.csr_array:
    """Return A, float32 [J, K]; rows sum to 1, or to 0 where an item has no vector or nothing like it is known.

    Args:
        new: x of the new items, float32 [J, r], unit rows.
        known: x of the known items, float32 [K, r], unit rows.
        sharpness: s >= 0.
    """
    (weights,) = all_neighbor_weights(new, known, [sharpness])
    return weights


def all_neighbor_weights(
    new: Vectors, known: Vectors, sharpness: Sequence[float], blocks: Blocks | None = None
) -> list[sp.csr_array]:
    """Return A for each s, from one search; see neighbor_weights.

    Args:
        new: x of the new items, float32 [J, r], unit rows.
        known: x of the known items, float32 [K, r], unit rows.
        sharpness: s >= 0 of each.
        blocks: workers that search instead of this process.
    """
    k = min(NEIGHBORS, len(known))
    shape = len(new), len(known)
    if not k or not len(new) or not known.shape[1]:
        return [sp.csr_array(shape, dtype=np.float32) for _ in sharpness]
    ids, cosines = _nearest(new, known, k, blocks) if blocks else topk_cosine(known, k, queries=new)
    near, found = (ids >= 0) & (cosines > 0), []
    for s in sharpness:
        weights = np.where(near, np.where(near, cosines, 1).astype(np.float64) ** s, 0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), np.finfo(np.float64).tiny)
        rows, places = np.nonzero(weights)
        pairs = rows, ids[rows, places]
        found.append(sp.csr_array((weights[rows, places].astype(np.float32), pairs), shape=shape))
    return found


def _nearest(new: Vectors, known: Vectors, k: int, blocks: Blocks) -> Lists:
    settings, size = {"k": k, "first": 0, "include_self": True}, rows_a_block(len(new), _BLOCK)
    label = "neighbors of new items"
    found = blocks.run(Work(shard_block, label, len(new), size, {"rows": new}, {"shard": known}, settings))
    return found["ids"], found["scores"]


def spread_columns(matrix: sp.csr_array, columns: NDArray[np.int64], width: int) -> sp.csr_array:
    """Return a matrix whose column k is column columns[k] of `width`.

    Args:
        matrix: [J, K].
        columns: int64 [K], ascending.
        width: columns of the result.
    """
    return sp.csr_array((matrix.data, columns[matrix.indices], matrix.indptr), shape=(matrix.shape[0], width))


def predict_columns(
    weights: sp.csr_array, mean: sp.csr_array, prediction: Prediction, blocks: Blocks | None = None
) -> sp.csc_array:
    """Return W_.j of new items, float32 [I, J], at most MOST_WEIGHTS a column.

    Args:
        weights: W, float32 [I, I].
        mean: A, float32 [J, I].
        prediction: o and g.
        blocks: workers that predict instead of this process.
    """
    (predicted,) = predict_all_columns(CSR.from_scipy(weights.T), mean, [prediction.owned], blocks)
    return sp.csc_array(predicted * np.float32(prediction.gain))


def predict_all_columns(
    columns: CSR, mean: sp.csr_array, owned: Sequence[float], blocks: Blocks | None = None
) -> list[sp.csc_array]:
    """Return W_.j of new items for each o and a gain of 1, from one product; see predict_columns.

    Args:
        columns: W^T, float32 [I, I]; a row is a column of W.
        mean: A, float32 [J, I].
        owned: o of each.
        blocks: workers that predict instead of this process.
    """
    n, shape = mean.shape[0], mean.shape[::-1]
    if blocks and n:
        rows, shared, size = {"mean": CSR.from_scipy(mean)}, {"columns": columns}, rows_a_block(n, _BLOCK)
        found = blocks.run(Work(predict_block, "predict new items", n, size, rows, shared, {"owned": list(owned)}))
        return [_joined(found, m, shape) for m in range(len(owned))]
    return [_columns(rows) for rows in largest_of_product(CSR.from_scipy(mean), columns, owned, MOST_WEIGHTS)]


def _columns(rows: CSR) -> sp.csc_array:
    """Return rows [J, I] as columns [I, J], over the same arrays."""
    by_row = rows.to_scipy()
    return sp.csc_array((by_row.data, by_row.indices, by_row.indptr), shape=by_row.shape[::-1])


def predict_block(block: Block) -> Arrays:
    """Return the weights of the block's new items for each o: entries of each column, their rows and values."""
    arrays: Arrays = {}
    predicted = largest_of_product(block.matrix("mean"), block.matrix("columns"), block.settings["owned"], MOST_WEIGHTS)
    for n, rows in enumerate(predicted):
        arrays |= {f"lengths {n}": np.diff(rows.indptr), f"rows {n}": rows.indices, f"values {n}": rows.values()}
    return arrays


def _joined(found: Arrays, n: int, shape: tuple[int, int]) -> sp.csc_array:
    indptr = np.concatenate([[0], np.cumsum(found[f"lengths {n}"], dtype=np.int64)])
    return sp.csc_array((found[f"values {n}"], found[f"rows {n}"], indptr), shape=shape)


def predict_rows(table: Vectors, mean: sp.csr_array, prediction: Prediction) -> Vectors:
    """Return q_j of new items, float32 [J, D].

    Args:
        table: q, float32 [I, D].
        mean: A, float32 [J, I].
        prediction: g.
    """
    return np.asarray(np.float32(prediction.gain) * (mean @ table), np.float32)

"""Similarities of items on normalized graphs, and polynomials of them, as lists of the strongest K an item.

With R [U, I], D_U and D_I its sums by row and by column, and a and s numbers,

    R~ = D_U^-a R D_I^(a-1),   P = R~^T R~ with each entry to the power s.

R may be interactions, or tables of item vectors without negative entries, V^T [d, I]. A polynomial f(P) is computed a
block of rows at a time. Memory: I x K.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, topk_dot
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.scoring import block_rows

Filter = Literal["linear", "second", "third"]


def similar_by_users(user_items: CSR, exponent: float, power: float, k: int) -> sp.csr_array:
    """Return P of interactions, [I, I], its k largest entries per row.

    Args:
        user_items: R, binary [U, I].
        exponent: a, from 0 to 1.
        power: s, above 0.
        k: entries per row; of equal ones the lower ids.
    """
    R = user_items.to_scipy().astype(np.float64)
    by_user, by_item = (np.maximum(np.asarray(R.sum(axis=axis)).ravel(), 1) for axis in (1, 0))
    scaled = (sp.diags_array(by_user**-exponent) @ R @ sp.diags_array(by_item ** (exponent - 1))).tocsr()
    by_rows, blocks = scaled.T.tocsr(), []
    for start in range(0, R.shape[1], block_rows(R.shape[1])):
        rows = sp.csr_array(by_rows[start : start + block_rows(R.shape[1])] @ scaled)
        rows.data **= power
        blocks.append(strongest(rows, k))
    return sp.csr_array(sp.vstack(blocks))


def similar_by_vectors(vectors: Vectors, exponent: float, power: float, k: int) -> sp.csr_array:
    """Return P of item vectors, [I, I], its k largest entries per row.

    Each dimension is centered by its median, divided by its interquartile range, and shifted to start at 0.

    Args:
        vectors: V, float32 [I, d].
        exponent: a, from 0 to 1.
        power: s, above 0.
        k: entries per row; of equal ones the lower ids.
    """
    low, middle, high = np.percentile(vectors.astype(np.float64), (25, 50, 75), axis=0)
    V = (vectors - middle) / np.where(high > low, high - low, 1)
    V -= V.min(axis=0)
    by_dimension, by_item = (np.where(total > 0, total, 1) for total in (V.sum(axis=0), V.sum(axis=1)))
    scaled = (V * by_dimension**-exponent * (by_item ** (exponent - 1))[:, None]).astype(np.float32)
    ids, values = topk_dot(scaled, scaled, min(k, len(scaled)))
    rows = np.repeat(np.arange(len(ids)), ids.shape[1])
    kept = (values.ravel() > 0) & (ids.ravel() >= 0)
    entries = values.ravel()[kept].astype(np.float64) ** power
    return sp.csr_array((entries, (rows[kept], ids.ravel()[kept])), shape=(len(ids), len(ids)))


def apply_filter(P: sp.csr_array, form: Filter, k: int, progress: Progress = silent) -> sp.csr_array:
    """Return f(P), its k strongest entries per row.

        linear  P
        second  2 P - P²
        third   P + .01 (-P³ + 10 P² - 29 P)

    Args:
        P: [I, I].
        form: of f.
        k: entries per row.
        progress: called after each block of rows.
    """
    if form == "linear":
        return P
    n, blocks = P.shape[0], []
    for start in range(0, n, block_rows(n)):
        first = P[start : start + block_rows(n)]
        second = first @ P
        rows = 2 * first - second if form == "second" else 0.71 * first + 0.1 * second - 0.01 * (second @ P)
        blocks.append(strongest(sp.csr_array(rows), k))
        progress("filter items", start + first.shape[0], n)
    return sp.csr_array(sp.vstack(blocks))


def strongest(rows: sp.csr_array, k: int) -> sp.csr_array:
    """Return the k entries of largest size of each row, other than 0; of equal ones the lower ids."""
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    order = np.lexsort((rows.indices, -np.abs(rows.data), owner))
    place = np.arange(len(order)) - rows.indptr[owner]
    kept = order[(place < k) & (rows.data[order] != 0)]
    return sp.csr_array((rows.data[kept], (owner[kept], rows.indices[kept])), shape=rows.shape)


def as_weights(matrix: sp.csr_array) -> CSR:
    """Return item-item weights without their diagonal, which touches only a user's own items."""
    entries = sp.coo_array(matrix)
    kept: NDArray[np.bool_] = entries.row != entries.col
    weights = (entries.data[kept].astype(np.float32), (entries.row[kept], entries.col[kept]))
    return CSR.from_scipy(sp.csr_array(weights, shape=matrix.shape))

"""Turbo-CF and MM-GF: polynomial filters of item similarities, without training.

Park et al., Turbo-CF: Matrix Decomposition-Free Graph Filtering for Fast Recommendation, SIGIR 2024. With R [U, I], D_U
and D_I its sums by row and by column, a and s numbers, and f a polynomial,

    R~ = D_U^-a R D_I^(a-1),   P = R~^T R~ with each entry to the power s,   score_u = R_u f(P).

Roh et al., MM-GF: Multi-Modal Graph Filtering (arXiv 2503.04406), adds the same filter on item vectors, here one table
of them, with its own weight b. V^T [d, I], without negative entries, stands for R:

    score_u = R_u (f(P) + b f(P_V)).

Both papers fit on training and validation interactions together; these read only training. P and f(P) keep their
`neighbors` strongest entries per item, and f(P) is computed a block of rows at a time. Memory: I x neighbors.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, topk_dot
from numpy.typing import NDArray
from pydantic import Field

from mllmrec.config import ModelConfig, Positive, Share
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import FitData
from mllmrec.models.item_weight_model import ItemWeightModel
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


class TurboCFConfig(ModelConfig):
    """Settings of Turbo-CF."""

    kind: Literal["turbo-cf"] = "turbo-cf"
    filter: Filter = "linear"  # f
    exponent: Share = 0.5  # a
    power: Annotated[float, Field(gt=0)] = 1.0  # s
    neighbors: Positive = 1000  # entries kept an item


class TurboCF(ItemWeightModel):
    """See the module."""

    Config = TurboCFConfig
    config: TurboCFConfig
    title = "Turbo-CF"
    reads = frozenset()
    candidates = tuple(
        (f"model.filter={form}", f"model.power={power}")
        for form in ("linear", "second", "third")
        for power in (1.0, 0.7, 0.5)
    )

    def _fit(self, data: FitData) -> None:
        """Compute f(P)."""
        R, config = data.user_items, self.config
        P = similar_by_users(R, config.exponent, config.power, config.neighbors)
        self.set_weights(R, as_weights(apply_filter(P, config.filter, config.neighbors, self.context.progress)))


class MMGFConfig(ModelConfig):
    """Settings of MM-GF."""

    kind: Literal["mm-gf"] = "mm-gf"
    filter: Filter = "linear"  # f
    exponent: Share = 0.5  # a
    power: Annotated[float, Field(gt=0)] = 0.7  # s
    content_weight: Annotated[float, Field(ge=0)] = 3.0  # b
    neighbors: Positive = 1000  # entries kept an item


class MMGF(ItemWeightModel):
    """See the module; without item features it is Turbo-CF."""

    Config = MMGFConfig
    config: MMGFConfig
    title = "MM-GF"
    reads = frozenset({"items"})
    candidates = tuple(
        (f"model.content_weight={b}", f"model.power={power}") for b in (3, 1, 10) for power in (0.7, 1.0, 0.5)
    )

    def _fit(self, data: FitData) -> None:
        """Compute f(P) + b f(P_V)."""
        R, config, progress = data.user_items, self.config, self.context.progress
        settings = config.exponent, config.power, config.neighbors
        weights = apply_filter(similar_by_users(R, *settings), config.filter, config.neighbors, progress)
        if data.items is not None and config.content_weight:
            P = similar_by_vectors(data.items, *settings)
            weights = weights + config.content_weight * apply_filter(P, config.filter, config.neighbors, progress)
        self.set_weights(R, as_weights(weights))

"""Items of mixed scores, checked and encoded once for block after block of users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base.csr import as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.exact.kept import KeptItems
from mllmrec_kernels.exact.score import norms
from mllmrec_kernels.mixed.coded_rows import CodedRows, encode
from mllmrec_kernels.mixed.leading_rows import LeadingRows, lead_items
from mllmrec_kernels.mixed.scores import (
    MixedScores,
    Problem,
    SparsePart,
    as_scale,
    as_sparse_part,
    check_lengths,
    check_range,
    check_row_values,
    largest_weight,
)

if TYPE_CHECKING:
    import torch

    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike
    from mllmrec_kernels.mixed.gpu_items import DeviceItems


class MixedItems:
    """Weights and vectors of items, which rank_mixed, topk_mixed and score_mixed take in the place of both.

    What a verb makes of the items is kept for the next: rows in two bytes per coordinate, and those in one byte that
    ranks and lists multiply. So block after block of users costs what all users at once would. The memory is up to
    6 d bytes per item, beside the weights and the vectors; a verb keeps nothing that its `max_bytes` does not hold.
    A GPU keeps a copy of weights and vectors.

    Args:
        item_weights: W, sparse or floating [J, I]; row j is what item j adds to each item's score.
        item_vectors: q, floating [I, d]; None for no inner product.

    Raises:
        KernelInputError: a wrong type or shape, or numbers that are NaN or infinite.
    """

    def __init__(self, item_weights: SparseLike | ArrayLike, item_vectors: ArrayLike | None = None) -> None:
        self.given = item_weights, item_vectors
        n_rows = int(getattr(item_weights, "shape", (0,))[0])
        nobody = sp.csr_array((0, n_rows), dtype=np.float32)
        self._sparse, n_items = as_sparse_part(nobody, item_weights)
        self.vectors = np.zeros((n_items, 0), np.float32)
        if item_vectors is not None:
            self.vectors = arrays.float32_rows("item_vectors", item_vectors)
            check_lengths(None, len(self.vectors), (0, n_items))
        self.shape = n_rows, n_items
        self.largest_weight = largest_weight(self._sparse)
        self.largest_norm = float(norms(self.vectors).max(initial=0.0)) if self.vectors.shape[1] else 0.0
        self.kept = KeptItems()
        self._coded: CodedRows | None = None
        self._leading: LeadingRows | None = None
        self._on_device: dict[torch.device, DeviceItems] = {}

    def sparse_part(self, user_items: SparseLike) -> SparsePart:
        """Return the sparse part of users by their rows of R, sparse [U, J], checked."""
        R = as_csr("user_items", user_items)
        values = check_row_values(R, self.shape[0])
        return self._sparse._replace(indptr=R.indptr, ids=R.indices, values=values)

    def on_device(self, device: torch.device) -> DeviceItems:
        """Return weights and vectors on a device, copied by the first call."""
        from mllmrec_kernels.mixed.gpu_items import items_on_device

        if device not in self._on_device:
            self._on_device[device] = items_on_device(self._sparse, self.vectors, device)
        return self._on_device[device]

    def coded(self, max_bytes: int) -> CodedRows:
        """Return the rows in two bytes per coordinate, or no rows where they take more than `max_bytes`."""
        if self._coded is not None:
            return self._coded
        rows = encode(self.vectors, max_bytes)
        self._coded = rows if len(rows.codes) else None
        return rows

    def leading(self, max_bytes: int) -> LeadingRows:
        """Return the vectors on their leading axes, or on none where that takes more than `max_bytes`."""
        if self._leading is not None:
            return self._leading
        rows = lead_items(self.vectors, max_bytes)
        self._leading = rows if len(rows.axes) else None
        return rows


def as_items(scores: MixedScores) -> MixedItems:
    """Return the items of scores, as they are or checked.

    Raises:
        KernelInputError: vectors of only one side, a wrong type or shape, or numbers that are NaN or infinite.
    """
    if not isinstance(scores, MixedScores):
        raise KernelInputError(f"scores must be MixedScores; got {type(scores).__name__}")
    if scores.standardize and scores.scale is not None:
        raise KernelInputError("standardized scores take no scale; theirs is 1 / the spread of each user's sparse part")
    if not isinstance(scores.item_weights, MixedItems):
        if (scores.user_vectors is None) != (scores.item_vectors is None):
            raise KernelInputError("user_vectors and item_vectors must both be given, or neither")
        return MixedItems(scores.item_weights, scores.item_vectors)
    if scores.item_vectors is not None:
        raise KernelInputError("item_vectors must be None beside MixedItems, which hold them")
    if scores.user_vectors is None and scores.item_weights.vectors.shape[1]:
        raise KernelInputError("user_vectors must be given, for the MixedItems have vectors")
    return scores.item_weights


def as_problem(scores: MixedScores, items: MixedItems) -> Problem:
    """Return checked scores; of standardized ones the scale is 0 until it is known.

    Args:
        scores: of U users.
        items: theirs.

    Raises:
        KernelInputError: a wrong type, shape or dtype, numbers that are NaN or infinite, or scores beyond float32.
    """
    sparse = items.sparse_part(scores.user_items)
    n_users = len(sparse.indptr) - 1
    users = np.zeros((n_users, 0), np.float32)
    if scores.user_vectors is not None:
        users = arrays.float32_rows("user_vectors", scores.user_vectors, d=items.vectors.shape[1])
        check_lengths(len(users), None, (n_users, 0))
    scale = np.zeros(n_users, np.float32) if scores.standardize else as_scale(scores.scale, n_users)
    problem = Problem(sparse, scale, users, items.vectors, scores.standardize)
    check_scores(problem, items)
    return problem


def check_scores(problem: Problem, items: MixedItems) -> None:
    """Refuse scores that may leave float32; of standardized ones, once their scale is known."""
    largest = norms(problem.users).max(initial=0.0) * items.largest_norm if problem.users.shape[1] else 0.0
    check_range(problem.sparse, problem.scale, items.largest_weight, float(largest))

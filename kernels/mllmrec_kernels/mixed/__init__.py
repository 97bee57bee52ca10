"""Ranks, lists and scores by a sparse part plus an inner product, without a U x I array."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.mixed import reference
from mllmrec_kernels.mixed.scores import MixedScores, Problem, as_problem, as_sparse_part
from mllmrec_kernels.rank import _disjoint

if TYPE_CHECKING:
    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike

MAX_BYTES = 256 * 2**20  # working memory on the CPU where the caller names none: a catalogue in int8, and lists

__all__ = ["MixedScores", "rank_mixed", "row_spread", "score_mixed", "topk_mixed"]


def rank_mixed(
    scores: MixedScores,
    exclude: SparseLike,
    heldout: SparseLike,
    *,
    limit: int | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> Any:
    max_bytes = arrays.as_bytes(max_bytes)
    problem = as_problem(scores)
    excluded, held = _disjoint(exclude, heldout, problem.shape)
    if backend == "reference":
        return reference.rank_mixed(problem, excluded, held)
    from mllmrec_kernels.mixed import cpu
    return cpu.rank_mixed(problem, excluded, held, limit=problem.shape[1] if limit is None else limit, max_bytes=max_bytes or MAX_BYTES)


def topk_mixed(scores, k, *, exclude=None, backend="auto", max_bytes=None):
    max_bytes = arrays.as_bytes(max_bytes)
    problem = as_problem(scores)
    if exclude is not None:
        exclude = as_csr("exclude", exclude, shape=problem.shape, binary=True)
    if backend == "reference":
        return reference.topk_mixed(problem, k, exclude)
    from mllmrec_kernels.mixed import cpu
    return cpu.topk_mixed(problem, k, exclude, max_bytes or MAX_BYTES)


def score_mixed(scores, pairs, *, backend="auto"):
    problem = as_problem(scores)
    pairs = as_csr("pairs", pairs, shape=problem.shape, binary=True)
    if backend == "reference":
        return reference.score_mixed(problem, pairs)
    from mllmrec_kernels.mixed import cpu
    return cpu.score_mixed(problem, pairs)


def row_spread(user_items, item_weights, *, backend="auto"):
    sparse, n = as_sparse_part(user_items, item_weights)
    if backend == "reference":
        return reference.row_spread(sparse, n)
    from mllmrec_kernels.mixed import cpu
    return cpu.row_spread(sparse, n)

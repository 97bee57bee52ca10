"""Ranks, lists and scores by a sparse part plus an inner product, without a U x I array.

These are verbs of their own, not further arguments of rank_heldout and topk_dot. They share one description of a score,
`MixedScores`, in which the inner product is optional. `MixedItems` in it are encoded once for any number of calls.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.mixed import reference
from mllmrec_kernels.mixed.index import MixedIndex
from mllmrec_kernels.mixed.items import MixedItems, as_items, as_problem
from mllmrec_kernels.mixed.pair_sums import sum_pairs
from mllmrec_kernels.mixed.scores import (
    MixedScores,
    Problem,
    as_scale,
    as_sparse_part,
    check_lengths,
    check_range,
    inverse_spread,
    largest_weight,
)
from mllmrec_kernels.rank import as_disjoint

if TYPE_CHECKING:
    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike
    from mllmrec_kernels.mixed import gpu

__all__ = [
    "MixedIndex",
    "MixedItems",
    "MixedScores",
    "rank_mixed",
    "row_spread",
    "score_mixed",
    "sum_pairs",
    "topk_mixed",
]

MAX_BYTES = 256 * 2**20  # working memory on the CPU where the caller names none: items in two bytes, and lists


def rank_mixed(
    scores: MixedScores,
    exclude: SparseLike,
    heldout: SparseLike,
    *,
    limit: int | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> Any:
    """Return the 0-based rank of each held-out item among the items its user may be shown, as rank_heldout does.

    The rank is the number of non-excluded items of higher score, plus those of equal score and lower id. Scores are
    those of mixed/scores.py, with the same bits on every backend.

    Args:
        scores: of U users for I items.
        exclude: sparse [U, I], items that are not candidates (training items, say).
        heldout: sparse [U, I], the items to rank.
        limit: ranks of `limit` or more may come out as any number from `limit` on. On the CPU most of the work is
            then left out; a GPU counts to the end.
        backend: "auto", by where `scores.user_vectors` lies, "numba", "triton", or "reference".
        max_bytes: working memory beyond input and output. None is 256 MiB on the CPU, a quarter of the free memory
            on a GPU.

    Returns:
        int32 [entries of heldout], user by user, a user's items in rising order of their ids; a tensor on the device
        of `scores.user_vectors` where these are one.

    Raises:
        KernelInputError: a wrong type, shape or dtype, numbers that are NaN or infinite, scores beyond float32, or an
            item that is both held out and excluded.
        BackendUnavailableError: the named backend cannot run here.
    """
    max_bytes, chosen = arrays.as_bytes(max_bytes), _choose(backend, scores)
    if chosen == "triton":
        from mllmrec_kernels.mixed import gpu

        device_scores, shape = _on_device(scores)
        device = device_scores.sparse.device
        with backends.on(device):
            excluded, held = as_disjoint(exclude, heldout, shape, device)
            return _tensor_like(scores, gpu.rank_mixed(device_scores, excluded, held, max_bytes))
    items = as_items(scores)
    problem = as_problem(scores, items)
    excluded, held = as_disjoint(exclude, heldout, problem.shape)
    if chosen == "reference":
        return _like(scores, reference.rank_mixed(_scaled(problem), excluded, held))
    from mllmrec_kernels.mixed import cpu

    largest, memory = problem.shape[1] if limit is None else limit, max_bytes or MAX_BYTES
    return _like(scores, cpu.rank_mixed(problem, items, excluded, held, limit=largest, max_bytes=memory))


def topk_mixed(
    scores: MixedScores,
    k: int,
    *,
    exclude: SparseLike | None = None,
    floor: NDArray[np.float32] | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[Any, Any]:
    """Return the k items of highest score for each user, exactly, ties to the lower id.

    Args:
        scores: of U users for I items.
        k: items per user; a list with fewer candidates is padded with id -1 and score -inf.
        exclude: sparse [U, I]; the items stored in row u are never listed for user u.
        floor: float32 [U], below which no score is listed; on the CPU a high one saves work. None: all are.
        backend: as in rank_mixed.
        max_bytes: as in rank_mixed.

    Returns:
        ids int32 [U, k] and scores float32 [U, k], by score falling, then id rising; tensors as in rank_mixed.

    Raises:
        KernelInputError: as rank_mixed, or k < 1.
        BackendUnavailableError: the named backend cannot run here.
    """
    k, max_bytes, chosen = arrays.as_count("k", k), arrays.as_bytes(max_bytes), _choose(backend, scores)
    if chosen == "triton":
        from mllmrec_kernels.mixed import gpu

        device_scores, shape = _on_device(scores)
        excluded = None if exclude is None else as_csr("exclude", exclude, shape=shape, binary=True)
        with backends.on(device_scores.sparse.device):
            ids, best = gpu.topk_mixed(device_scores, k, excluded, max_bytes)
        if floor is not None:
            below = best < best.new_tensor(_as_floor(floor, shape[0]))[:, None]
            ids, best = ids.masked_fill(below, -1), best.masked_fill(below, -math.inf)
        return _tensor_like(scores, ids), _tensor_like(scores, best)
    items = as_items(scores)
    problem = as_problem(scores, items)
    excluded = None if exclude is None else as_csr("exclude", exclude, shape=problem.shape, binary=True)
    floors = _as_floor(floor, problem.shape[0])
    if chosen == "reference":
        lists = reference.topk_mixed(_scaled(problem), k, excluded, floors)
    else:
        from mllmrec_kernels.mixed import cpu

        lists = cpu.topk_mixed(problem, items, k, excluded, max_bytes or MAX_BYTES, floors)
    return _like(scores, lists[0]), _like(scores, lists[1])


def score_mixed(scores: MixedScores, pairs: SparseLike, *, backend: str = "auto", max_bytes: int | None = None) -> Any:
    """Return the scores of chosen items.

    Args:
        scores: of U users for I items.
        pairs: sparse [U, I], the items of each user to score; its values are not read.
        backend: as in rank_mixed.
        max_bytes: as in rank_mixed; only a GPU's.

    Returns:
        float32 [entries of pairs], user by user, a user's items in rising order of their ids; a tensor as in
        rank_mixed.
    """
    max_bytes, chosen = arrays.as_bytes(max_bytes), _choose(backend, scores)
    if chosen == "triton":
        from mllmrec_kernels.mixed import gpu

        device_scores, shape = _on_device(scores)
        entries = as_csr("pairs", pairs, shape=shape, binary=True)
        with backends.on(device_scores.sparse.device):
            return _tensor_like(scores, gpu.score_mixed(device_scores, entries, max_bytes))
    items = as_items(scores)
    problem = as_problem(scores, items)
    entries = as_csr("pairs", pairs, shape=problem.shape, binary=True)
    if chosen == "reference":
        return _like(scores, reference.score_mixed(_scaled(problem), entries))
    from mllmrec_kernels.mixed import cpu

    return _like(scores, cpu.score_mixed(problem, items, entries))


def row_spread(
    user_items: SparseLike, item_weights: SparseLike | ArrayLike, *, backend: str = "auto", max_bytes: int | None = None
) -> Any:
    """Return the standard deviation of each user's sparse part over all I items, zeros included.

    Args:
        user_items: R, sparse [U, J].
        item_weights: W, sparse or floating [J, I].
        backend: "auto", which is "numba", or "triton", or "reference"; all give the same bits.
        max_bytes: working memory of a GPU; None is a quarter of what is free.

    Returns:
        float64 [U]; a NumPy array.

    Raises:
        KernelInputError: a wrong type or shape, or values that are NaN or infinite.
        BackendUnavailableError: the named backend cannot run here.
    """
    max_bytes = arrays.as_bytes(max_bytes)
    chosen = backends.choose(backend, None, cpu=("numba",), gpu=("triton",))
    sparse, n_items = as_sparse_part(user_items, item_weights)
    if chosen == "reference":
        return reference.row_spread(sparse, n_items)
    if chosen == "triton":
        from mllmrec_kernels.mixed import gpu
        from mllmrec_kernels.mixed.gpu_items import DeviceSparse

        device = backends.device_of(None)
        with backends.on(device):
            return gpu.row_spread(DeviceSparse(sparse, n_items, device), max_bytes).cpu().numpy()
    from mllmrec_kernels.mixed import cpu

    return cpu.row_spread(sparse, n_items)


def _as_floor(floor: NDArray[np.float32] | None, n_users: int) -> NDArray[np.float32]:
    """Return the floor of each user, float32 [U]; -inf for None."""
    if floor is None:
        return np.full(n_users, -np.inf, np.float32)
    array = np.ascontiguousarray(floor, np.float32)
    if array.shape != (n_users,) or np.isnan(array).any():
        raise KernelInputError(f"floor must be {n_users} numbers; got shape {array.shape}")
    return array


def _choose(backend: str, scores: MixedScores) -> str:
    return backends.choose(backend, scores.user_vectors, cpu=("numba",), gpu=("triton",))


def _scaled(problem: Problem) -> Problem:
    """Return the problem of standardized scores with its scale; others as they are."""
    if not problem.standardize:
        return problem
    spread = reference.row_spread(problem.sparse, problem.shape[1])
    return problem._replace(scale=inverse_spread(spread))


def _on_device(scores: MixedScores) -> tuple[gpu.DeviceScores, tuple[int, int]]:
    """Return the checked scores on a device, and (U, I)."""
    import torch

    from mllmrec_kernels.exact import gpu_score
    from mllmrec_kernels.mixed import gpu
    from mllmrec_kernels.mixed.gpu_items import DeviceSparse

    vectors: ArrayLike | None
    device, given = backends.device_of(scores.user_vectors), scores.item_weights
    with backends.on(device):
        if isinstance(given, MixedItems):
            as_items(scores)
            kept, sparse, n_items = given.on_device(device), given.sparse_part(scores.user_items), given.shape[1]
            on_device, vectors = DeviceSparse(sparse, n_items, device, kept.weights), kept.vectors
        else:
            sparse, n_items = as_sparse_part(scores.user_items, given)
            on_device, vectors = DeviceSparse(sparse, n_items, device), scores.item_vectors
        shape = (len(sparse.indptr) - 1, n_items)
        scale, users, items, largest = as_scale(scores.scale, shape[0]), None, None, 0.0
        if scores.standardize:
            scale = inverse_spread(gpu.row_spread(on_device, None).cpu().numpy())
        if scores.user_vectors is not None and vectors is not None:
            users = arrays.rows_on_device("user_vectors", scores.user_vectors, device)
            items = arrays.rows_on_device("item_vectors", vectors, device, d=users.shape[1])
            check_lengths(len(users), len(items), shape)
            largest = float(gpu_score.largest_of(gpu_score.norms(users)) * gpu_score.largest_of(gpu_score.norms(items)))
    check_range(sparse, scale, largest_weight(sparse), largest)
    return gpu.DeviceScores(on_device, torch.from_numpy(scale).to(device), users, items), shape


def _like(scores: MixedScores, result: Any) -> Any:
    return result if scores.user_vectors is None else arrays.like(scores.user_vectors, result)


def _tensor_like(scores: MixedScores, result: Any) -> Any:
    return result.cpu().numpy() if scores.user_vectors is None else arrays.tensor_like(scores.user_vectors, result)

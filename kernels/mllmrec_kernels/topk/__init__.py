"""Exact top-k neighbors by cosine, and exact top-k of inner products with exclusions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base import arrays
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR, as_csr
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.exact import score
from mllmrec_kernels.topk import reference

if TYPE_CHECKING:
    from torch import Tensor

    from mllmrec_kernels.base.arrays import ArrayLike
    from mllmrec_kernels.base.csr import SparseLike

__all__ = ["topk_cosine", "topk_dot"]

_CPU = ("numba",)
_GPU = ("triton",)


@overload
def topk_cosine(
    features: NDArray[Any],
    k: int,
    *,
    queries: ArrayLike | None = None,
    threshold: float | None = None,
    include_self: bool = False,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...


@overload
def topk_cosine(
    features: Tensor,
    k: int,
    *,
    queries: ArrayLike | None = None,
    threshold: float | None = None,
    include_self: bool = False,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[Tensor, Tensor]: ...


def topk_cosine(
    features: ArrayLike,
    k: int,
    *,
    queries: ArrayLike | None = None,
    threshold: float | None = None,
    include_self: bool = False,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[ArrayLike, ArrayLike]:
    """Find the k rows of `features` nearest to each query by cosine, exactly.

    A cosine is computed in float64 and rounded once to float32. Equal rows tie on every backend, and ties
    go to the lower id. A zero row has no cosine: it has no neighbors and is no one's neighbor.

    Args:
        features: floating [N, d]; rows need not be normalized.
        k: neighbors per query; shorter lists are padded with id -1 and score -inf.
        queries: floating [Q, d]; None takes the rows of `features` themselves.
        threshold: neighbors whose float32 cosine is below float32(threshold) are dropped.
        include_self: with `queries=None`, list a row as its own neighbor. Otherwise it is left out by position,
            so an equal row elsewhere stays.
        backend: "auto", "numba", "triton", or "reference".
        max_bytes: working memory beyond input, output and some 20 bytes per row (norms, lengths of lists, order). None
            is 64 MiB on the CPU, a quarter of the free memory on a GPU.

    Returns:
        ids, int32 [Q, k], and scores, float32 [Q, k], by score falling, then id rising. They are tensors on the
        device of `features` where that is a tensor, NumPy arrays otherwise.

    Raises:
        KernelInputError: a wrong type, shape or dtype, NaN or infinite rows, k < 1, or a threshold that is NaN.
        BackendUnavailableError: the named backend cannot run here.
    """
    k, max_bytes = arrays.as_count("k", k), arrays.as_bytes(max_bytes)
    if threshold is not None and np.isnan(threshold):
        raise KernelInputError("threshold must be a number or None; got NaN")
    exclude_self = queries is None and not include_self
    chosen = backends.choose(backend, features, cpu=_CPU, gpu=_GPU)
    if chosen == "triton":
        return _cosine_on_device(features, queries, k, threshold, exclude_self, max_bytes)
    items = arrays.float32_rows("features", features)
    rows = items if queries is None else arrays.float32_rows("queries", queries, d=items.shape[1])
    if chosen == "reference":
        ids, scores = reference.topk_cosine(rows, items, k, threshold=threshold, exclude_self=exclude_self)
    else:
        from mllmrec_kernels.exact.problem import cosine_problem
        from mllmrec_kernels.topk import cpu

        problem = cosine_problem(rows, items, k, threshold, exclude_self=exclude_self)
        ids, scores = cpu.solve(problem, k, max_bytes or arrays.MAX_BYTES)
    return arrays.like(features, ids), arrays.like(features, scores)


@overload
def topk_dot(
    queries: NDArray[Any],
    items: ArrayLike,
    k: int,
    *,
    exclude: SparseLike | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float32]]: ...


@overload
def topk_dot(
    queries: Tensor,
    items: ArrayLike,
    k: int,
    *,
    exclude: SparseLike | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[Tensor, Tensor]: ...


def topk_dot(
    queries: ArrayLike,
    items: ArrayLike,
    k: int,
    *,
    exclude: SparseLike | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[ArrayLike, ArrayLike]:
    """Find the k items of highest inner product with each query, exactly, without a Q x I array.

    An inner product is computed in float64 and rounded once to float32. Equal rows tie on every backend,
    and ties go to the lower id.

    Args:
        queries: floating [Q, d].
        items: floating [I, d].
        k: items per query; shorter lists are padded with id -1 and score -inf.
        exclude: sparse [Q, I]; the items stored in row q are never listed for query q.
        backend: "auto", "numba", "triton", or "reference".
        max_bytes: working memory beyond input, output and some 20 bytes per row (norms, lengths of lists, order). None
            is 64 MiB on the CPU, a quarter of the free memory on a GPU.

    Returns:
        ids, int32 [Q, k], and scores, float32 [Q, k], by score falling, then id rising. They are tensors on the
        device of `queries` where that is a tensor, NumPy arrays otherwise.

    Raises:
        KernelInputError: a wrong type, shape or dtype, NaN or infinite rows, products beyond float32, or k < 1.
        BackendUnavailableError: the named backend cannot run here.
    """
    k, max_bytes = arrays.as_count("k", k), arrays.as_bytes(max_bytes)
    chosen = backends.choose(backend, queries, cpu=_CPU, gpu=_GPU)
    if chosen == "triton":
        return _dot_on_device(queries, items, k, exclude, max_bytes)
    x = arrays.float32_rows("queries", queries)
    y = arrays.float32_rows("items", items, d=x.shape[1])
    arrays.check_products(score.norms(x), score.norms(y))
    excluded = _excluded(exclude, (len(x), len(y)))
    if chosen == "reference":
        ids, scores = reference.topk_dot(x, y, k, exclude=excluded)
    else:
        from mllmrec_kernels.exact.problem import dot_problem
        from mllmrec_kernels.topk import cpu

        ids, scores = cpu.solve(dot_problem(x, y, k, excluded), k, max_bytes or arrays.MAX_BYTES)
    return arrays.like(queries, ids), arrays.like(queries, scores)


def _excluded(exclude: SparseLike | None, shape: tuple[int, int]) -> CSR | None:
    return None if exclude is None else as_csr("exclude", exclude, shape=shape, binary=True)


def _cosine_on_device(
    features: ArrayLike,
    queries: ArrayLike | None,
    k: int,
    threshold: float | None,
    exclude_self: bool,
    max_bytes: int | None,
) -> tuple[ArrayLike, ArrayLike]:
    from mllmrec_kernels.topk import gpu

    device = backends.device_of(features)
    y = arrays.rows_on_device("features", features, device)
    x = y if queries is None else arrays.rows_on_device("queries", queries, device, d=y.shape[1])
    with backends.on(device):
        ids, scores = gpu.topk_cosine(x, y, k, threshold=threshold, exclude_self=exclude_self, max_bytes=max_bytes)
    return arrays.tensor_like(features, ids), arrays.tensor_like(features, scores)


def _dot_on_device(
    queries: ArrayLike, items: ArrayLike, k: int, exclude: SparseLike | None, max_bytes: int | None
) -> tuple[ArrayLike, ArrayLike]:
    from mllmrec_kernels.exact import gpu_score
    from mllmrec_kernels.topk import gpu

    device = backends.device_of(queries)
    x = arrays.rows_on_device("queries", queries, device)
    y = arrays.rows_on_device("items", items, device, d=x.shape[1])
    excluded = _excluded(exclude, (len(x), len(y)))
    with backends.on(device):
        gpu_score.check_products(x, y)
        ids, scores = gpu.topk_dot(x, y, k, exclude=excluded, max_bytes=max_bytes)
    return arrays.tensor_like(queries, ids), arrays.tensor_like(queries, scores)

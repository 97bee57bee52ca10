"""Exact top-k neighbours by cosine, and exact top-k of inner products with exclusions."""

from __future__ import annotations

from typing import Any

import numpy as np

from mllmrec_kernels.base import arrays as inputs
from mllmrec_kernels.base import backend as backends
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelInputError
from mllmrec_kernels.exact import score
from mllmrec_kernels.topk import reference

__all__ = ["topk_cosine", "topk_dot"]

_CPU = ("numba",)
_GPU = ("triton",)


def topk_cosine(
    features: Any,
    k: int,
    *,
    queries: Any = None,
    threshold: float | None = None,
    include_self: bool = False,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[Any, Any]:
    """The k rows of `features` nearest to each query by cosine, exactly (issue 3).

    A cosine is computed in float64 and rounded once to float32; equal rows tie on every backend, and ties
    go to the lower id. A zero row has no cosine: it has no neighbours and is nobody's neighbour.

    Args:
        features: floating, shape (N, d); rows need not be normalised.
        k: neighbours a query; where fewer are there, the list is padded with id -1 and score -inf.
        queries: floating, shape (Q, d); None asks for the neighbours of `features` themselves.
        threshold: neighbours whose float32 cosine is below float32(threshold) are dropped.
        include_self: with `queries=None`, whether a row may be listed as its own neighbour; it is left out
            by position, so an equal row elsewhere stays.
        backend: "auto", "numba", "triton", or "reference".
        max_bytes: working memory beyond input, output and some 20 bytes a row (norms, lengths of lists, order); None
            is 64 MiB on the CPU, a quarter of what is free on a GPU.

    Returns:
        ids, int32, shape (Q, k), and scores, float32, shape (Q, k), by score falling, then id rising; where
        `features` is a torch tensor, tensors on its device.

    Raises:
        KernelInputError: a wrong shape or dtype, NaN or infinite rows, k < 1, a threshold that is NaN.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    k, max_bytes = inputs.count("k", k), inputs.memory(max_bytes)
    if threshold is not None and np.isnan(threshold):
        raise KernelInputError("threshold must be a number or None; got NaN")
    without_self = queries is None and not include_self
    chosen = backends.choose(backend, features, cpu=_CPU, gpu=_GPU)
    if chosen == "triton":
        return _cosine_on_device(features, queries, k, threshold, without_self, max_bytes)
    max_bytes = max_bytes or inputs.MAX_BYTES
    x = inputs.vectors("features", features)
    asked = x if queries is None else inputs.vectors("queries", queries, d=x.shape[1])
    if chosen == "reference":
        result = reference.topk_cosine(asked, x, k, threshold=threshold, without_self=without_self)
    else:
        from mllmrec_kernels.topk import cpu

        result = cpu.topk_cosine(asked, x, k, threshold=threshold, without_self=without_self, max_bytes=max_bytes)
    ids, scores = inputs.like(features, result)
    return ids, scores


def topk_dot(
    queries: Any,
    items: Any,
    k: int,
    *,
    exclude: CSR | None = None,
    backend: str = "auto",
    max_bytes: int | None = None,
) -> tuple[Any, Any]:
    """The k items of highest inner product with each query, exactly, without a Q x I array (issue 3).

    An inner product is computed in float64 and rounded once to float32; equal rows tie on every backend,
    and ties go to the lower id.

    Args:
        queries: floating, shape (Q, d).
        items: floating, shape (I, d).
        k: items a query; where fewer are left, the list is padded with id -1 and score -inf.
        exclude: CSR of shape (Q, I); the items stored in row q are never listed for query q.
        backend: "auto", "numba", "triton", or "reference".
        max_bytes: working memory beyond input, output and some 20 bytes a row (norms, lengths of lists, order); None
            is 64 MiB on the CPU, a quarter of what is free on a GPU.

    Returns:
        ids, int32, shape (Q, k), and scores, float32, shape (Q, k), by score falling, then id rising; where
        `queries` is a torch tensor, tensors on its device.

    Raises:
        KernelInputError: a wrong shape or dtype, NaN or infinite rows, products beyond float32, k < 1.
        BackendUnavailableError: the backend asked for cannot run here.
    """
    k, max_bytes = inputs.count("k", k), inputs.memory(max_bytes)
    chosen = backends.choose(backend, queries, cpu=_CPU, gpu=_GPU)
    if chosen == "triton":
        return _dot_on_device(queries, items, k, exclude, max_bytes)
    max_bytes = max_bytes or inputs.MAX_BYTES
    x = inputs.vectors("queries", queries)
    y = inputs.vectors("items", items, d=x.shape[1])
    inputs.check_products(score.norms(x), score.norms(y))
    if exclude is not None:
        inputs.csr("exclude", exclude, (len(x), len(y)))
    if chosen == "reference":
        result = reference.topk_dot(x, y, k, exclude=exclude)
    else:
        from mllmrec_kernels.topk import cpu

        result = cpu.topk_dot(x, y, k, exclude=exclude, max_bytes=max_bytes)
    ids, scores = inputs.like(queries, result)
    return ids, scores


def _cosine_on_device(
    features: Any, queries: Any, k: int, threshold: float | None, without_self: bool, max_bytes: int | None
) -> tuple[Any, Any]:
    from mllmrec_kernels.topk import gpu

    device = backends.device_of(features)
    y = inputs.on_device("features", features, device)
    x = y if queries is None else inputs.on_device("queries", queries, device, d=y.shape[1])
    with backends.on(device):
        result = gpu.topk_cosine(x, y, k, threshold=threshold, without_self=without_self, max_bytes=max_bytes)
    ids, scores = inputs.back(features, result)
    return ids, scores


def _dot_on_device(queries: Any, items: Any, k: int, exclude: CSR | None, max_bytes: int | None) -> tuple[Any, Any]:
    from mllmrec_kernels.exact import gpu_score
    from mllmrec_kernels.topk import gpu

    device = backends.device_of(queries)
    x = inputs.on_device("queries", queries, device)
    y = inputs.on_device("items", items, device, d=x.shape[1])
    if exclude is not None:
        inputs.csr("exclude", exclude, (len(x), len(y)))
    with backends.on(device):
        gpu_score.check_products(x, y)
        result = gpu.topk_dot(x, y, k, exclude=exclude, max_bytes=max_bytes)
    ids, scores = inputs.back(queries, result)
    return ids, scores

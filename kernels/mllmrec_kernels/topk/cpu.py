"""topk_cosine and topk_dot on the CPU: by the int8 product where it pays, by the float32 one elsewhere."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact import float32_tile as floats
from mllmrec_kernels.exact import problem as asks
from mllmrec_kernels.exact.heap import sort_lists
from mllmrec_kernels.exact.int8_tile import supported
from mllmrec_kernels.exact.plan import make_plan
from mllmrec_kernels.exact.problem import Ask, Lists
from mllmrec_kernels.topk.reference import TopK

FEW_PAIRS = 2**20  # below, planning costs more than any product


def topk_cosine(
    queries: NDArray[np.float32],
    features: NDArray[np.float32],
    k: int,
    *,
    threshold: float | None,
    without_self: bool,
    max_bytes: int,
) -> TopK:
    """Exact top-k by cosine; see the verb."""
    return _topk(asks.cosine(queries, features, k, threshold, alone=without_self), k, max_bytes)


def topk_dot(
    queries: NDArray[np.float32],
    items: NDArray[np.float32],
    k: int,
    *,
    exclude: CSR | None,
    max_bytes: int,
) -> TopK:
    """Exact top-k by inner product; see the verb."""
    return _topk(asks.inner_product(queries, items, k, exclude), k, max_bytes)


def _topk(ask: Ask, k: int, max_bytes: int) -> TopK:
    q_total = len(ask.queries)
    ids = np.full((q_total, k), -1, dtype=np.int32)
    best = np.full((q_total, k), -np.inf, dtype=np.float32)
    if ask.kept == 0 or q_total == 0:
        return ids, best
    lists = Lists(ids, best, np.zeros(q_total, np.int64))
    if not _fill_certified(ask, lists, max_bytes):
        floats.fill(ask, lists, max_bytes)
    sort_lists(*lists)
    return ids, best


def _fill_certified(ask: Ask, lists: Lists, max_bytes: int) -> bool:
    from mllmrec_kernels.topk import exact_int8 as certified

    if not supported() or len(ask.queries) * len(ask.items) < FEW_PAIRS:
        return False
    plan = make_plan(ask)
    return plan is not None and certified.fill(ask, lists, plan, max_bytes)

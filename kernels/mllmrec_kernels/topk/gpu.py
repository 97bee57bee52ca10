"""Exact top-k on the GPU: a float16 product proposes, the float64 score decides.

A self graph of few neighbors goes by int8 first (gpu_self.py); what that leaves, and all else, goes by float16.

With P, unit and |P - score / unit| <= error as gpu_score.py proves, for each query q of a block:

1. **A threshold.** Every STRIDE-th item is a sample, and the items fall into SAMPLED groups. Let v be the k-th largest
   group maximum of P. Then k different items score at least v - error, so does the true k-th best, and an item of
   P < v - 2 error is not among the best k. A least score t rules out what has P < t / unit - error.
2. **Lists.** One pass over all items appends those at or above the threshold to a list of the query, by atomics. A
   list is a bounded number of keys (gpu_lists.py), sorted afterwards, so the order of arrival does not show. Q x N
   products live only in registers. About k STRIDE pairs per query come through. For a self graph whose lists all fit
   at once, one product serves both problem of a pair, and the lists raise their thresholds on the way.
3. **Decision.** The list's own k-th largest P raises the threshold. What is left, some dozens, is scored exactly, and
   sorted by (score falling, id rising).

A list that overflowed has raised its threshold from the keys it holds, real items, and is filled again. A threshold
that does not rise so (thousands of equal rows) sends its query to `_scan`, which scores every item exactly. Excluded
items take list slots and are dropped before anything is concluded from the list. In the sample they are counted, and
the rank of the maximum is raised by their number.

Bytes, N items of d columns for Q queries: 2 d (N + Q) encoded, 8 CAPACITY a query in flight, 4 d a scored pair;
FLOPs 2 Q N d (1 + 1 / STRIDE), half of it for a self graph. Bound by the tensor cores. `max_bytes` bounds lists and
encoded rows, by smaller blocks of queries and items. When the device runs out of memory the block is halved.
A zero score is +0 here whatever the sign of the zero that rounding left.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import triton
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.errors import KernelError, KernelInputError
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.topk import gpu_block, gpu_self

CAPACITY, PER_NEIGHBOR = 512, 32  # keys that a list holds: at least, and for each of the k; powers of two
SYMMETRIC = True  # for a self graph whose lists all fit, one product serves both problem of a pair
FEW_LEFT = 16  # one row in so many, or fewer, left by int8: float16 solves those; if more, all


@dataclass(frozen=True, slots=True)
class Plan:
    """Sizes in flight: `rows` queries with lists of `capacity` keys, `chunk` encoded items."""

    rows: int
    chunk: int
    capacity: int


def topk_cosine(
    queries: Tensor, features: Tensor, k: int, *, threshold: float | None, exclude_self: bool, max_bytes: int | None
) -> tuple[Tensor, Tensor]:
    """Return the exact top-k by cosine, ids int32 [Q, k] and scores float32 [Q, k], on the device of the tensors.

    Args:
        queries: float32 [Q, d].
        features: float32 [N, d], on the same device; the same tensor in a self graph.
        k: neighbors per query.
        threshold: least float32 cosine; None for all.
        exclude_self: leave row q out of list q.
        max_bytes: working memory; None for a quarter of what is free.
    """
    b = gpu_score.inverse(gpu_score.norms(features))
    a = b if queries is features else gpu_score.inverse(gpu_score.norms(queries))
    min_score = b.new_tensor([-torch.inf if threshold is None else threshold]).float().double()
    problem = gpu_block.DeviceProblem(queries, features, a, b, a, b, torch.ones_like(a), min_score, None, exclude_self)
    (n, d), memory = features.shape, gpu_score.working_memory(features.device, max_bytes)
    if queries is features and gpu_self.suits(n, d, min(k, n), features.device, memory):
        return _solve_graph(problem, k, threshold, max_bytes)
    return _solve_in_blocks(problem, k, max_bytes)


def _solve_graph(
    problem: gpu_block.DeviceProblem, k: int, threshold: float | None, max_bytes: int | None
) -> tuple[Tensor, Tensor]:
    """Solve a self graph by int8, and what it leaves by float16."""
    x, a, few = problem.items, problem.item_weights, min(k, len(problem.items))
    try:
        ids, scores, left = gpu_self.neighbors(x, a, few, threshold, exclude_self=problem.exclude_self)
    except torch.OutOfMemoryError:
        return _solve_in_blocks(problem, k, max_bytes)
    if len(left) * FEW_LEFT > len(x):
        return _solve_in_blocks(problem, k, max_bytes)
    if len(left):
        own = device_cache.DeviceCSR(torch.arange(len(left) + 1, device=left.device), left.int(), 1)
        rest = replace(
            problem, queries=x[left], query_weights=a[left], query_scale=a[left], score_unit=problem.score_unit[left],
            exclude=own if problem.exclude_self else None, exclude_self=False,
        )  # fmt: skip
        ids[left], scores[left] = _solve_in_blocks(rest, few, max_bytes)
    if few == k:
        return ids, scores
    missing = (0, k - few)
    return torch.nn.functional.pad(ids, missing, value=-1), torch.nn.functional.pad(scores, missing, value=-torch.inf)


def topk_dot(
    queries: Tensor, items: Tensor, k: int, *, exclude: CSR | None, max_bytes: int | None
) -> tuple[Tensor, Tensor]:
    """Return the exact top-k by inner product, ids int32 [Q, k] and scores float32 [Q, k], on the tensors' device.

    Args:
        queries: float32 [Q, d].
        items: float32 [I, d], on the same device.
        k: items per query.
        exclude: [Q, I], items that each query must not list.
        max_bytes: working memory; None for a quarter of what is free.
    """
    excluded = None if exclude is None else device_cache.on_device(exclude, queries.device)
    return solve_dot(queries, items, k, excluded, max_bytes)


def solve_dot(
    queries: Tensor, items: Tensor, k: int, excluded: device_cache.DeviceCSR | None, max_bytes: int | None
) -> tuple[Tensor, Tensor]:
    """Return the exact top-k by inner product, as topk_dot does.

    Args:
        queries: float32 [Q, d].
        items: float32 [N, d].
        k: items per query.
        excluded: [Q, N], on the device already; None: none.
        max_bytes: limit of working memory; None: a share of what is free.
    """
    lengths, others = gpu_score.norms(queries), gpu_score.norms(items)
    largest = gpu_score.largest_of(others)
    item_scale = gpu_score.inverse(largest).expand(len(items)).contiguous()
    min_score = lengths.new_full((1,), -torch.inf)
    problem = gpu_block.DeviceProblem(
        queries, items, torch.ones_like(lengths), torch.ones_like(others), gpu_score.inverse(lengths), item_scale,
        lengths * largest, min_score, excluded, exclude_self=False,
    )  # fmt: skip
    return _solve_in_blocks(problem, k, max_bytes)


def _plan(n_queries: int, n_items: int, d: int, k: int, max_bytes: int) -> Plan:
    capacity = max(CAPACITY, triton.next_power_of_2(PER_NEIGHBOR * k))
    row, item = 8 * capacity + 2 * gpu_score.padded(d) + 64, 2 * gpu_score.padded(d) + 8
    rows, chunk = max_bytes // 2 // row, max_bytes // 2 // item
    if not (rows and chunk):
        raise KernelInputError(
            f"max_bytes={max_bytes} holds no list at d={d}, k={k}; give at least {2 * max(row, item)}"
        )
    return Plan(min(rows, n_queries), min(chunk, n_items), capacity)


def _solve_in_blocks(problem: gpu_block.DeviceProblem, k: int, max_bytes: int | None) -> tuple[Tensor, Tensor]:
    """Solve in blocks, halved whenever the device runs out of memory."""
    (q, d), n = problem.queries.shape, len(problem.items)
    ids = torch.full((q, k), -1, dtype=torch.int32, device=problem.queries.device)
    scores = torch.full((q, k), -torch.inf, device=problem.queries.device)
    if not (q and n):
        return ids, scores
    plan = _plan(q, n, d, min(k, n), gpu_score.working_memory(problem.queries.device, max_bytes))
    while True:
        try:
            _run(problem, min(k, n), plan, ids, scores)
        except torch.OutOfMemoryError:
            if plan.rows == 1 and plan.chunk == 1:
                raise KernelError(f"top-k of {q} x {n} rows of {d}: the device is out of memory") from None
            plan = replace(plan, rows=max(1, plan.rows // 2), chunk=max(1, plan.chunk // 2))
        else:
            return ids, scores


def _run(problem: gpu_block.DeviceProblem, k: int, plan: Plan, ids: Tensor, scores: Tensor) -> None:
    whole = plan.chunk >= len(problem.items)
    items = gpu_block.Items(problem, plan.chunk)
    symmetric = SYMMETRIC and whole and plan.rows >= len(problem.queries) and problem.queries is problem.items
    lists = torch.empty((plan.rows, plan.capacity), dtype=torch.int64, device=ids.device)
    for first in range(0, len(problem.queries), plan.rows):
        block = gpu_block.Block(problem, items, first, min(first + plan.rows, len(problem.queries)), k)
        keys = block.solve(lists, symmetric=symmetric)
        _unpack(keys, ids[first : first + plan.rows, :k], scores[first : first + plan.rows, :k])


def _unpack(keys: Tensor, ids: Tensor, scores: Tensor) -> None:
    empty = keys == gpu_block.EMPTY
    ids.copy_(torch.where(empty, -1, (2**31 - 1) - (keys & 0xFFFFFFFF)))
    scores.copy_(torch.where(empty, -torch.inf, gpu_block.key_scores(keys)))

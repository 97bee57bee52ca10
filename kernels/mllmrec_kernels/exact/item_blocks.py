"""Blocks of items that users are counted against, one after another."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from mllmrec_kernels.exact.plan import RotationPlan
from mllmrec_kernels.exact.problem import TopKProblem
from mllmrec_kernels.exact.quantized import PANEL, QuantizedRows, padded, quantize
from mllmrec_kernels.exact.score import unit_rows

_GROWTH = 2  # of a block over the one before it, if there is a limit; the first one is a panel
_SAMPLED = 512  # users whose mean orders the items


class ItemBlocks:
    """The items in blocks; with a limit, those first that users like on average, in blocks that grow.

    Args:
        problem: the users and the items.
        plan: of the product.
        memory: for quantized items; if it holds all, they are quantized once.
        limit: ranks from here on need not be told apart.
    """

    def __init__(self, problem: TopKProblem, plan: RotationPlan, memory: QuantizedRows, limit: int) -> None:
        n_items, largest = len(problem.items), len(memory.ids)
        nobody = np.zeros((0, problem.queries.shape[1]), np.float32)
        self._problem, self._plan, self._memory = problem._replace(queries=nobody), plan, memory
        self._order, size, ends = np.arange(n_items, dtype=np.int32), largest, [0]
        if limit < n_items:
            at = np.linspace(0, len(problem.queries) - 1, _SAMPLED).astype(np.int64)
            mean = unit_rows(problem.queries[at], problem.query_scale[at]).mean(axis=0)
            self._order, size = np.argsort(-(problem.items @ mean), kind="stable").astype(np.int32), PANEL
        while ends[-1] < n_items:
            ends.append(min(ends[-1] + min(size, largest), n_items))
            size *= _GROWTH
        self.spans = list(pairwise(ends))
        self._all = self._quantized(0, n_items) if n_items <= largest else None

    @property
    def is_whole(self) -> bool:
        """Return whether all items are in memory, quantized."""
        return self._all is not None

    def block(self, n: int) -> tuple[QuantizedRows, int]:
        """Return the n-th block, and how many of its rows are items."""
        start, stop = self.spans[n]
        rows = self._all.panels(start, padded(stop)) if self._all else self._quantized(start, stop)
        return rows, stop - start

    def _quantized(self, start: int, stop: int) -> QuantizedRows:
        problem, plan, rows = self._problem, self._plan, self._order[start:stop]
        return quantize(
            self._memory, problem.items, problem.item_scale, problem.item_weights, rows, plan, plan.right_scale
        )

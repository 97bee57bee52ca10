"""An order of rows in which similar ones stand together, so that they share panels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.exact.plan import RotationPlan
from mllmrec_kernels.exact.problem import TopKProblem
from mllmrec_kernels.exact.quantized import PANEL
from mllmrec_kernels.exact.score import unit_rows

_MAX_CENTERS = 512
_CHUNK = 1_024  # rows


def order_by_similarity(problem: TopKProblem, plan: RotationPlan) -> NDArray[np.int32]:
    """Return row numbers grouped by the nearest of some sampled rows; int32 [N]."""
    n = len(problem.items)
    n_centers = min(n // PANEL, _MAX_CENTERS)
    if plan.axes is None or n_centers < 2:
        return np.arange(n, dtype=np.int32)
    axes = plan.axes[: plan.prefix]
    sampled = np.random.default_rng(1).permutation(n)[:n_centers]
    centers = unit_rows(problem.items[sampled], problem.item_scale[sampled]) @ axes.T
    nearest = np.empty(n, np.int16)

    def _assign(start: int, stop: int) -> None:
        unit = unit_rows(problem.items[start:stop], problem.item_scale[start:stop])
        nearest[start:stop] = ((unit @ axes.T) @ centers.T).argmax(axis=1)

    parallel_for(_assign, chunks(n, _CHUNK))
    return np.argsort(nearest, kind="stable").astype(np.int32)

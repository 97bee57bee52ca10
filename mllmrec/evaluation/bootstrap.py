"""Bootstrap intervals of means over users.

One set of draws serves every column of a table. Two models' sums over the same draws give the interval of their
difference, so the bootstrap is paired. The seed is fixed: the same results give the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.foundation.progress import Progress, silent

Floats = NDArray[np.float64]
RESAMPLES = 1000
_BLOCK = 32  # draws that are summed at once
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % bootstrap interval; all NaN where there is no user."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def resampled_sums(values: Floats, *, resamples: int = RESAMPLES, progress: Progress = silent) -> Floats:
    """Return column sums over users drawn with replacement, always with the same seed.

    Args:
        values: float64 [users, m].
        resamples: number of draws B, at least 1.
        progress: called after each block of draws.

    Returns:
        float64 [B, m].
    """
    generator, n = np.random.default_rng(0), len(values)
    sums = np.zeros((resamples, values.shape[1]))
    for start in range(0, resamples if n else 0, _BLOCK):
        progress("bootstrap", start, resamples)
        block = sums[start : start + _BLOCK]
        counts = [np.bincount(generator.integers(n, size=n, dtype=np.int32), minlength=n) for _ in block]
        block[:] = np.array(counts, dtype=np.float64) @ values
    progress("bootstrap", resamples, resamples)
    return sums


def mean_intervals(values: Floats, *, progress: Progress = silent) -> list[Interval]:
    """Return the mean over users of each column of float64 [users, m], with its 95 % percentile interval."""
    n = len(values)
    if n == 0:
        return [Interval(np.nan, np.nan, np.nan) for _ in range(values.shape[1])]
    return intervals(values.sum(axis=0) / n, resampled_sums(values, progress=progress) / n)


def mean_interval(values: Floats) -> Interval:
    """Return the mean of values [users] with its interval; for a paired interval, pass differences."""
    return mean_intervals(values[:, None])[0]


def intervals(estimates: Floats, draws: Floats) -> list[Interval]:
    """Return one Interval per estimate, from the 2.5 and 97.5 percentiles of its B draws; NaN draws are ignored."""
    table = []
    for estimate, column in zip(estimates, draws.T, strict=True):
        finite = column[np.isfinite(column)]
        low, high = np.percentile(finite, _PERCENTILES) if len(finite) else (np.nan, np.nan)
        table.append(Interval(float(estimate), float(low), float(high)))
    return table

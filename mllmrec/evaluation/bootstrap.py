"""Intervals from users drawn with replacement.

One set of draws serves every column of a table, so two models' sums over the same draws give the interval of their
difference: the bootstrap is paired. The draws are always the same, so the same results give the same table.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RESAMPLES = 1000
_BLOCK = 32  # draws that are summed at once
_PERCENTILES = (2.5, 97.5)


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % bootstrap interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def resampled_sums(values: Floats, *, resamples: int = RESAMPLES) -> Floats:
    """Column sums over users drawn with replacement, always with the same seed.

    Args:
        values: float64 [users, m].
        resamples: B.

    Returns:
        float64 [B, m].
    """
    generator, n = np.random.default_rng(0), len(values)
    sums = np.zeros((resamples, values.shape[1]))
    for start in range(0, resamples if n else 0, _BLOCK):
        block = sums[start : start + _BLOCK]
        drawn = [np.bincount(generator.integers(n, size=n, dtype=np.int32), minlength=n) for _ in block]
        block[:] = np.array(drawn, dtype=np.float64) @ values
    return sums


def mean_intervals(values: Floats) -> list[Interval]:
    """Each column's mean over the users, with its 95 % percentile interval."""
    n = max(1, len(values))
    return intervals(values.sum(axis=0) / n, resampled_sums(values) / n)


def mean_interval(values: Floats) -> Interval:
    """The mean of float64 [users], such as differences of two models user by user, with its interval."""
    return mean_intervals(values[:, None])[0]


def intervals(estimates: Floats, draws: Floats) -> list[Interval]:
    """[m] estimates with the 95 % percentile intervals of their [B, m] draws; draws that are NaN do not count."""
    found = []
    for estimate, drawn in zip(estimates, draws.T, strict=True):
        finite = drawn[np.isfinite(drawn)]
        low, high = np.percentile(finite, _PERCENTILES) if len(finite) else (np.nan, np.nan)
        found.append(Interval(float(estimate), float(low), float(high)))
    return found

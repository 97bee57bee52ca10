"""Bootstrap intervals of means over users.

One set of draws serves every column of a table. Two models' sums over the same draws give the interval of their
difference, so the bootstrap is paired. The seed is fixed: the same results give the same table.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """An estimate with its 95 % bootstrap interval; all NaN if there is no user."""

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


def crossed_intervals(draws: Sequence[tuple[NDArray[np.int64], Floats]]) -> list[Interval]:
    """Return means over draws of means over users, with 95 % intervals that resample users and draws independently.

    A draw is one of several splits of the same data, so a user stands in more than one. Owen, The pigeonhole
    bootstrap, Annals of Applied Statistics 2007. With one draw this is `mean_intervals`.

    Args:
        draws: for each draw the users, int64 [n], and their values, float64 [n, m]; draws without users are left out.

    Returns:
        m intervals; NaN if no draw has users.
    """
    width = draws[0][1].shape[1] if draws else 0
    judged = [(users, values) for users, values in draws if len(users)]
    if not judged:
        return [Interval(np.nan, np.nan, np.nan) for _ in range(width)]
    everybody, count = np.unique(np.concatenate([users for users, _ in judged])), len(judged)
    table = np.zeros((len(everybody), count, width + 1))  # the last column counts
    for n, (users, values) in enumerate(judged):
        rows = np.searchsorted(everybody, users)
        table[rows, n, :width], table[rows, n, width] = values, 1
    sums = resampled_sums(table.reshape(len(everybody), -1)).reshape(-1, count, width + 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        means = sums[:, :, :width] / sums[:, :, width:]
    weights = np.random.default_rng(1).multinomial(count, np.full(count, 1 / count), size=len(sums)) / count
    estimates = np.mean([values.mean(axis=0) for _, values in judged], axis=0)
    return intervals(estimates, np.einsum("bd,bdm->bm", weights, means))


def intervals(estimates: Floats, draws: Floats) -> list[Interval]:
    """Return one Interval per estimate, from the 2.5 and 97.5 percentiles of its B draws; NaN draws are ignored."""
    table = []
    for estimate, column in zip(estimates, draws.T, strict=True):
        finite = column[np.isfinite(column)]
        low, high = np.percentile(finite, _PERCENTILES) if len(finite) else (np.nan, np.nan)
        table.append(Interval(float(estimate), float(low), float(high)))
    return table

"""Ranking metrics from the ranks of held-out items, user by user, and bootstrap intervals of their means.

For a user with m held-out items of which those at 0-based ranks r < k are hits, in ascending order of rank
r_1 < r_2 < ...:

    Recall@k    = hits / m
    Precision@k = hits / k
    NDCG@k      = sum_j 1 / log2(r_j + 2)  /  sum over the first min(k, m) ranks of the same
    MAP@k       = sum_j j / (r_j + 1)  /  min(k, m)

Only the ranks are needed: no list of recommendations, no U x I array.

One set of bootstrap draws serves every column of a table. Two models' sums over the same draws give the interval of
their difference, so the bootstrap is paired. The seed is fixed: the same results give the same table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.foundation.progress import Progress, silent

ABSENT = "-"  # printed where a metric is NaN: there is nobody to judge
Floats = NDArray[np.float64]
RESAMPLES = 1000
_BLOCK = 32  # draws that are summed at once
_PERCENTILES = (2.5, 97.5)


def per_user(ranks: NDArray[np.integer[Any]], indptr: NDArray[np.int64], cutoffs: Sequence[int]) -> dict[str, Floats]:
    """Return the metrics of each user.

    Args:
        ranks: integer [n], 0-based rank of each held-out item, grouped by user.
        indptr: int64 [U + 1]; user u's ranks are ranks[indptr[u]:indptr[u + 1]].
        cutoffs: list lengths k, each at least 1.

    Returns:
        "recall@20" and the like: float64 [U], NaN for users without held-out items, who are not evaluated.
    """
    held_out = np.diff(indptr)
    users = np.repeat(np.arange(len(held_out)), held_out)
    span = int(ranks.max(initial=0)) + 1
    ordered = np.sort(users * span + ranks) - users * span  # ascending for each user; users keep their places
    place = np.arange(len(ordered)) - np.repeat(indptr[:-1], held_out) + 1  # j of the formulas
    gain = 1 / np.log2(ordered + 2)
    precision = place / (ordered + 1)
    result: dict[str, Floats] = {}
    for k in cutoffs:
        hit = ordered < k
        reachable = np.minimum(held_out, k)

        def total(values: Floats, hit: NDArray[np.bool_] = hit) -> Floats:
            return np.bincount(users, weights=values * hit, minlength=len(held_out)).astype(np.float64)

        hits = total(np.ones(len(ordered)))
        result[f"recall@{k}"] = _ratio(hits, held_out)
        result[f"ndcg@{k}"] = _ratio(total(gain), _ideal_gain(int(reachable.max(initial=0)))[reachable])
        result[f"precision@{k}"] = _ratio(hits, np.where(held_out > 0, k, 0))
        result[f"map@{k}"] = _ratio(total(precision), reachable)
    return result


def mean(values: dict[str, Floats]) -> dict[str, float]:
    """Return the means over the evaluated users; NaN if there is none."""
    return {name: float(np.nanmean(v)) if np.isfinite(v).any() else math.nan for name, v in values.items()}


def standard_error(values: Floats) -> float:
    """Return the standard error of the mean of some numbers; 0 for fewer than two."""
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def users_with_heldout(train: CSR, heldout: CSR) -> NDArray[np.int64]:
    """Return the users with both training and held-out items, int64, ascending.

    Early stopping, model selection and evaluation use only these.
    """
    return np.flatnonzero((np.diff(train.indptr) > 0) & (np.diff(heldout.indptr) > 0))


def short(value: float, *, signed: bool = False) -> str:
    """Return a metric with four decimals and no leading zero: .0583, +.0012 if signed, or - for NaN."""
    if math.isnan(value):
        return ABSENT
    return (f"{value:+.4f}" if signed else f"{value:.4f}").replace("0.", ".", 1)


def decimals(value: float, digits: int = 4, *, signed: bool = False) -> str:
    """Return a metric with its leading zero: 0.0583, +0.0012 if signed, or - for NaN.

    Args:
        value: the metric.
        digits: decimals.
        signed: write the + of a positive value.
    """
    if math.isnan(value):
        return ABSENT
    return f"{value:{'+' if signed else ''}.{digits}f}"


def written(metric: str) -> str:
    """Return a metric's name as tables print it: "ndcg@20" -> "NDCG@20"."""
    measure, _, cutoff = metric.partition("@")
    return f"{measure.upper() if measure in ('ndcg', 'map') else measure.capitalize()}@{cutoff}"


def _ideal_gain(most: int) -> Floats:
    """Return [most + 1]: the highest gain that n hits can have."""
    return np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(most) + 2))])


def _ratio(above: Floats, below: NDArray[Any]) -> Floats:
    ratio: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return ratio


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % bootstrap interval; all NaN if there is no user."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    @property
    def signed(self) -> str:
        """Return a difference of metrics as tables print it: +.0123 [-.0012, +.0258]."""
        value, low, high = (short(number, signed=True) for number in (self.value, self.low, self.high))
        return f"{value} [{low}, {high}]"


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

"""Ranking metrics from the ranks of held-out items, user by user.

For a user with m held-out items of which those at 0-based ranks r < k are hits, in ascending order of rank
r_1 < r_2 < ...:

    Recall@k    = hits / m
    Precision@k = hits / k
    NDCG@k      = sum_j 1 / log2(r_j + 2)  /  sum over the first min(k, m) ranks of the same
    MAP@k       = sum_j j / (r_j + 1)  /  min(k, m)

Only the ranks are needed: no list of recommendations, no U x I array.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

METRICS = ("recall", "ndcg", "precision", "map")
ABSENT = "-"  # printed where a metric is NaN: there is nobody to judge
Floats = NDArray[np.float64]


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

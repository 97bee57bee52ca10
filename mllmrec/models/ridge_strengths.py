"""Fit a ridge on each table of vectors, at the strength that validation chooses.

Up to SAMPLED_ITEMS items, all regressions are solved at all strengths. Of more items, the strengths are compared on a
sample of them, every n-th block of BLOCK: its held-out items are ranked among the sampled items alone, for users with
training items among them. The standard errors of these comparisons stand with all others. Then the regressions of the
other items are solved at the chosen strength alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.evaluation.groups import take_columns
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress
from mllmrec.models.ridge import OwnedItems, Strengths
from mllmrec.models.validation import Validation
from mllmrec.models.weight_scorers import WeightsScorer

SAMPLED_ITEMS = 20_000
BLOCK = 64
Solve: TypeAlias = Callable[[Sequence[Vectors], CSR, Strengths], NDArray[np.float32]]  # of tables, on a support


def fit_ridges(
    validation: Validation,
    tables: Sequence[Vectors],
    support: CSR,
    strengths: Strengths,
    solve: Solve,
    progress: Progress,
) -> list[tuple[int, CSR]]:
    """Return the chosen strength and W of each table.

    Args:
        validation: chooses the strengths.
        tables: float32 [I, d] each.
        support: binary [I, I]; row j is S_j.
        strengths: w and lambda, to choose from.
        solve: returns the weights of tables at strengths, float32 [tables, strengths, entries of the support].
        progress: called while users are ranked.
    """
    by_owned_item = OwnedItems(support)
    is_sampled = _sample(support.n_rows)
    if is_sampled.all():
        best = []
        for n, of_table in enumerate(solve(tables, support, strengths)):
            scorers = (WeightsScorer(validation.train, by_owned_item(values)) for values in of_table)
            chosen, scorer = validation.best(f"ridges {n + 1} of {len(tables)}", scorers, progress)
            assert isinstance(scorer.weights, CSR)
            best.append((chosen, scorer.weights))
        return best
    sample, others = (_only_rows(support, rows) for rows in (is_sampled, ~is_sampled))
    values = solve(tables, sample, strengths)
    chosen_of = _choose(validation, sample, np.flatnonzero(is_sampled), values, progress)
    of_sample, whole = np.repeat(is_sampled, np.diff(support.indptr)), np.empty((len(tables), support.nnz), np.float32)
    for chosen in sorted(set(chosen_of)):
        members = [n for n, own in enumerate(chosen_of) if own == chosen]
        rest = solve([tables[n] for n in members], others, strengths[chosen : chosen + 1])
        for n, of_table in zip(members, rest, strict=True):
            whole[n, of_sample], whole[n, ~of_sample] = values[n, chosen], of_table[0]
    return [(chosen, by_owned_item(whole[n])) for n, chosen in enumerate(chosen_of)]


def _sample(n_items: int) -> NDArray[np.bool_]:
    """Return which items are sampled, bool [I]; all of few."""
    every = max(1, n_items // SAMPLED_ITEMS)
    return np.asarray(np.arange(n_items) // BLOCK % every == 0)


def _only_rows(support: CSR, chosen: NDArray[np.bool_]) -> CSR:
    """Return a support of the same shape whose other rows are empty."""
    lengths = np.diff(support.indptr)
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.where(chosen, lengths, 0))])
    return CSR(indptr, support.indices[np.repeat(chosen, lengths)], None, support.n_columns)


def _choose(
    validation: Validation, sample: CSR, items: NDArray[np.int64], values: NDArray[np.float32], progress: Progress
) -> list[int]:
    """Return the strength that is best for the sampled items, for each table.

    Args:
        validation: whose users judge, and that keeps the judgments.
        sample: the support of the sampled items.
        items: int64 [m], ascending, the sampled items.
        values: float32 [tables, strengths, entries].
        progress: called while users are ranked.
    """
    train, valid = (take_columns(matrix, items) for matrix in (validation.train, validation.valid))
    among, by_owned_item = validation.of(train, valid), OwnedItems(sample)
    place, chosen_of = np.full(sample.n_rows, -1, np.int32), []
    place[items] = np.arange(len(items))
    for n, of_table in enumerate(values):
        scorers = (WeightsScorer(validation.train, _narrow(by_owned_item(row), place, len(items))) for row in of_table)
        name = f"ridges {n + 1} of {len(values)} on {len(items):,} of {sample.n_rows:,} items"
        chosen_of.append(among.best(name, scorers, progress)[0])
    validation.judgments += among.judgments
    return chosen_of


def _narrow(W: CSR, place: NDArray[np.int32], width: int) -> CSR:
    """Return W with its columns renumbered by their places, which ascend."""
    return CSR(W.indptr, place[W.indices], W.data, width)

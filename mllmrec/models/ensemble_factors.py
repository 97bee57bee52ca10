"""The ensemble's factors: alternating least squares (ials.py), at the strength and the width that validation chooses.

Each of FACTOR_STRENGTHS is fitted with NARROW columns and, where `model.factors` gives no width, with WIDE ones too.
The factors with the best validation NDCG@20 stay. Wide factors are not tried on large data, for their tables and fits
grow. Neither are they on small data: R has rank min(U, I) at most.
"""

from __future__ import annotations

from mllmrec.models.base import FitContext
from mllmrec.models.content import LeaveOneOutRegression
from mllmrec.models.gpu_parts import gpu_of
from mllmrec.models.ials import alternate
from mllmrec.models.scoring import VectorScorer
from mllmrec.models.validation import Validation

FACTOR_STRENGTHS = ((1.0, 0.02), (3.0, 0.05))  # unobserved weight and regularization
FACTOR_ITERATIONS = 10
NARROW, WIDE = 64, 256  # columns
_LEAST_RANK = 20 * WIDE  # of min(U, I), which bounds the rank of R; with less, wide factors gained nothing
_MOST_ROWS = 100_000  # users and items; the tables of more are what bounds the memory of a large shop


def tries_wide(users: int, items: int) -> bool:
    """Tell whether a fit of so many users and items tries wide factors, where the settings leave the width open."""
    return min(users, items) >= _LEAST_RANK and users + items <= _MOST_ROWS


def widths_to_try(width: int, users: int, items: int) -> list[int]:
    """Return the widths that a fit of so many users and items tries, rising.

    Args:
        width: of the settings; 0: NARROW, and WIDE where that is tried.
        users: U.
        items: I.
    """
    return [width] if width else [NARROW, WIDE] if tries_wide(users, items) else [NARROW]


def choose_factors(
    content: LeaveOneOutRegression, width: int, validation: Validation, context: FitContext
) -> tuple[tuple[float, float], VectorScorer]:
    """Return the strength and the factors that validation chooses.

    Args:
        content: predicts the items' factors from their vectors.
        width: columns; 0: NARROW, or WIDE where that is tried and better.
        validation: training interactions, the users that judge, and the seed of the first factors.
        context: progress, called after each iteration and while users are ranked; workers and device of the solves.
    """
    R = validation.train
    candidates = [(r, strength) for r in widths_to_try(width, *R.shape) for strength in FACTOR_STRENGTHS]
    fits = (
        alternate(
            R,
            factors=factors,
            unobserved_weight=unobserved_weight,
            regularization=regularization,
            iterations=FACTOR_ITERATIONS,
            seed=validation.seed,
            content=content,
            progress=context.progress,
            label=f"fit {factors} factors {n} of {len(candidates)}",
            blocks=context.blocks,
            device=gpu_of(context.train),
        )
        for n, (factors, (unobserved_weight, regularization)) in enumerate(candidates, start=1)
    )
    chosen, best = validation.best("factors", fits, context.progress)
    return candidates[chosen][1], best

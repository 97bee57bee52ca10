"""A paired difference of two rows of an experiment, with its standard error."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.evaluation.metrics import short

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two rows and its standard error; NaN where nobody is judged."""

    value: float
    error: float

    @property
    def significant(self) -> bool:
        """Return whether it is more than two standard errors."""
        return abs(self.value) > 2 * self.error

    def __str__(self) -> str:
        """Return +.0123 ± .0020."""
        return f"{short(self.value, signed=True)} ± {short(self.error)}"

    @staticmethod
    def between(one: Floats, other: Floats) -> Difference:
        """Return `one` less `other`, each float64 [seeds, users], paired by user, and by seed where both have as many.

        The standard error has two parts, added as variances: that of the mean over users, of differences averaged
        over seeds, and that of the mean over seeds, of differences averaged over users. The second is 0 for one
        seed, which cannot tell of it.
        """
        if one.shape[1] == 0:
            return Difference(np.nan, np.nan)
        by_user = one.mean(axis=0) - other.mean(axis=0)
        if len(one) == len(other):
            of_seeds = _error((one - other).mean(axis=1))
        else:
            of_seeds = np.hypot(_error(one.mean(axis=1)), _error(other.mean(axis=1)))
        return Difference(float(by_user.mean()), float(np.hypot(_error(by_user), of_seeds)))


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0

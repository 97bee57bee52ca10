"""Judge an experiment by metrics of each user, of all and by group, and by paired differences of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import TrainingError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.evaluate import HeldOut, Ranker, nobody_to_judge
from mllmrec.evaluation.groups import SplitTask
from mllmrec.evaluation.metrics import short, standard_error
from mllmrec.evaluation.new_users import AsShown
from mllmrec.foundation.progress import Progress, silent, under

_CUTOFFS = (10, 20)
SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
JUDGED_BY = "ndcg@20"
Floats = NDArray[np.float64]
Values = dict[str, Floats]


def evaluate_groups(
    model: Ranker, dataset: Dataset, split: HeldOut, config: EvaluateConfig, progress: Progress = silent
) -> dict[str, Values]:
    """Return the shown metrics of ALL users of one split and of each group; see evaluation.groups.

    Args:
        model: a fitted model.
        dataset: the split.
        split: whose held-out items are ranked.
        config: the protocol.
        progress: called after each block of users.

    Returns:
        group -> metric -> float64 [its users].
    """
    task = SplitTask.of(dataset, split, config)
    shown, label = AsShown(model, dataset.train), f"rank {split}"
    _, judged = task.judge(shown, _CUTOFFS, limit=max(_CUTOFFS), progress=under(progress, label))
    return {group: {name: own.values[name] for name in SHOWN} for group, own in judged.items()}


def check_validation(dataset: Dataset) -> None:
    """Refuse a dataset whose validation split tells nothing.

    Raises:
        TrainingError: no user has both a training and a validation interaction.
    """
    if len(metrics.users_with_heldout(dataset.train, dataset.matrix("valid"))) == 0:
        raise TrainingError(f"{nobody_to_judge('valid')}, and models are tuned on it; prepare with another split")


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference of two rows and its standard error; NaN if nobody is judged."""

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
        """Return `one` less `other`, each float64 [seeds, users], paired by user, and by seed if both have as many.

        The standard error has two parts, added as variances: that of the mean over users, of differences averaged
        over seeds, and that of the mean over seeds, of differences averaged over users. The second is 0 for one
        seed, which cannot tell of it.
        """
        if one.shape[1] == 0:
            return Difference(np.nan, np.nan)
        by_user = one.mean(axis=0) - other.mean(axis=0)
        if len(one) == len(other):
            of_seeds = standard_error((one - other).mean(axis=1))
        else:
            of_seeds = np.hypot(standard_error(one.mean(axis=1)), standard_error(other.mean(axis=1)))
        return Difference(float(by_user.mean()), float(np.hypot(standard_error(by_user), of_seeds)))

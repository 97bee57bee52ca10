"""The values that an experiment judges by: metrics of each user, of all and by group."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import TrainingError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.evaluate import HeldOut, Ranker, nobody_to_judge, protocol
from mllmrec.evaluation.groups import ItemRanker, SplitTask
from mllmrec.foundation.progress import Progress, silent, under

_CUTOFFS = (10, 20)
SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
JUDGED_BY = "ndcg@20"
Values = dict[str, NDArray[np.float64]]


def evaluate_users(
    model: ItemRanker, dataset: Dataset, split: HeldOut, config: EvaluateConfig, progress: Progress = silent
) -> Values:
    """Return the shown metrics of the evaluated users of one split, by full ranking.

    Args:
        model: a fitted model.
        dataset: the split.
        split: whose held-out items are ranked.
        config: the protocol.
        progress: called after each block of users.

    Returns:
        metric -> float64 [evaluated users].
    """
    heldout, exclude = protocol(dataset, split, config)
    users = np.flatnonzero(np.diff(heldout.indptr) > 0)
    ranks = model.ranks(exclude, heldout, limit=max(_CUTOFFS), progress=under(progress, f"rank {split}"))
    values = metrics.per_user(ranks, heldout.indptr, _CUTOFFS)
    return {name: values[name][users] for name in SHOWN}


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
    _, judged = task.judge(model, _CUTOFFS, limit=max(_CUTOFFS), progress=under(progress, f"rank {split}"))
    return {group: {name: own.values[name] for name in SHOWN} for group, own in judged.items()}


def check_validation(dataset: Dataset) -> None:
    """Refuse a dataset whose validation split tells nothing.

    Raises:
        TrainingError: no user has both a training and a validation interaction.
    """
    if len(metrics.users_with_heldout(dataset.train, dataset.matrix("valid"))) == 0:
        raise TrainingError(f"{nobody_to_judge('valid')}, and models are tuned on it; prepare with another split")

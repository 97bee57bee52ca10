"""The finished run that another one goes on from, and what of it can be taken over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.dataset.growth import Growth, compare
from mllmrec.errors import InputError, MismatchError
from mllmrec.foundation import digests
from mllmrec.models import registry
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.run_record import Stage, read_seal
from mllmrec.runs import Run

REUSED: tuple[Stage, ...] = ("describe", "profile", "encode", "graph", "train")
_SAME = ("config", "engine", "encoder", "model", "seed")  # inputs of a stage that must be equal


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """A run of the dataset that this one's grew from.

    Attributes:
        run: finished up to its train stage.
        growth: what is new since.
    """

    run: Run
    growth: Growth

    def can_give(self, stage: Stage, inputs: Mapping[str, Any]) -> bool:
        """Tell whether a stage was made with these settings, engine and seed, and its model can go on.

        Args:
            stage: its name.
            inputs: of the same stage of the run that goes on.
        """
        if stage not in REUSED or (stage == "train" and not registry.find(inputs["model"]["kind"]).goes_on):
            return False
        before = read_seal(self.run.folder, stage).inputs
        return all(digests.hash_value([before.get(key)]) == digests.hash_value([inputs.get(key)]) for key in _SAME)

    def text_growth(self, descriptions: Descriptions, profiles: Profiles) -> Growth:
        """Return the items and users whose texts are not those that the earlier run encoded."""
        items = self.growth.items | _differ(self.run.descriptions.texts, descriptions.texts)
        return replace(self.growth, items=items, users=_differ(self.run.profiles.texts, profiles.texts))


def _differ(before: Sequence[str], now: Sequence[str]) -> NDArray[np.bool_]:
    """Return bool [len(now)]: texts that are new, or others than before."""
    known = len(before)
    return np.array([n >= known or text != before[n] for n, text in enumerate(now)], bool)


def open_earlier(folder: Path, dataset: Dataset, config: Config) -> EarlierRun:
    """Open the run that another one goes on from.

    Args:
        folder: of the earlier run.
        dataset: of the run that goes on.
        config: of the run that goes on.

    Raises:
        InputError: the earlier run is not finished up to its train stage, or is no run.
        MismatchError: its dataset is not the one that `dataset` grew from, or one run is LEAKY and the other is not.
    """
    run = Run(folder)
    if run.leaky != config.leaky:
        raise MismatchError(
            f"{folder} is {'a LEAKY run' if run.leaky else 'leak-free'}, and this run is not; start anew"
        )
    for stage in REUSED:
        if not run.has(stage):
            raise InputError(f"{folder} has not finished {stage!r}; go on with {run.go_on}, or leave --from out")
    return EarlierRun(run, compare(run.dataset, dataset, config.profile.history))

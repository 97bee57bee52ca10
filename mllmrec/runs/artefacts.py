"""The artefacts of a run while it is made."""

from __future__ import annotations

from collections.abc import Mapping

from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.features.encode import Features
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.models.base import Recommender
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.recommend import Recommendations
from mllmrec.runs import Run
from mllmrec.runs.record import StageRecord


class Artefacts:
    """The artefacts of a run so far, one attribute per stage; a stage that is not done has none."""

    describe: Descriptions
    profile: Profiles
    encode: Features
    graph: ItemGraph
    train: Recommender
    evaluate: Evaluation
    recommend: Recommendations

    def __init__(self, run: Run) -> None:
        self._run = run
        self.notes: tuple[str, ...] = ()  # what a run that goes on took over

    @property
    def leaky(self) -> bool:
        """Tell whether the profiles saw held-out interactions."""
        return self._run.leaky

    @property
    def stages(self) -> Mapping[str, StageRecord]:
        """Return the record of each stage in run.json."""
        return self._run.stages

    @property
    def evaluated(self) -> Evaluation | None:
        """Return the evaluation, or None if the run has none yet."""
        return self.__dict__.get("evaluate")

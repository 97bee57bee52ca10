"""The eight studies: what each varies, how it is judged, what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mllmrec.config import Config
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError, near_miss
from mllmrec.experiments import grids, verdicts
from mllmrec.experiments.grids import Points
from mllmrec.experiments.study_result import Result, Row


@dataclass(frozen=True, slots=True)
class Study:
    """A grid and how to read it.

    Attributes:
        name: what the command line takes.
        points: the grid, from the config and the dataset.
        verdict: the sentence, from the numbers.
        axes: names of the axes, for the picture; none where the points are just named.
        of_graph: whether the points differ in their item graphs, which are measured then.
        against_best: rows are set against the best; otherwise against the first.
        seeds: each point's, where nothing else is asked for.
        by_seed: each seed is a row of its own.
    """

    name: str
    points: Callable[[Config, Dataset], Points]
    verdict: Callable[[Result], str]
    axes: tuple[str, ...] = ()
    of_graph: bool = False
    against_best: bool = False
    seeds: int = 3
    by_seed: bool = False

    def conclude(self, dataset: str, rows: Sequence[Row]) -> Result:
        """The result, its sentence included."""
        reference = max(rows, key=lambda row: row.score) if self.against_best else rows[0]
        result = Result(self.name, dataset, tuple(rows), reference, "")
        one = "" if self.by_seed or rows[0].seeds > 1 else " One seed each: what the seed does is not in the errors."
        return replace(result, sentence=self.verdict(result) + one)


STUDIES = (
    Study("alpha", grids.alphas, verdicts.alpha, ("threshold alpha (cosine)",), of_graph=True, against_best=True),
    Study(
        "neighbours",
        grids.neighbours,
        verdicts.neighbours,
        ("semantic neighbours K_s", "co-occurrence neighbours K_c"),
        of_graph=True,
        against_best=True,
        seeds=1,
    ),
    Study("window", grids.windows, verdicts.window, ("co-occurrence window",), of_graph=True, against_best=True),
    Study("ablation", grids.ablations, verdicts.ablation),
    Study("prompts", grids.wordings, verdicts.prompts, against_best=True),
    Study("leak", grids.leaks, verdicts.leak),
    Study("seeds", grids.as_it_is, verdicts.seeds, seeds=5, by_seed=True),
    Study("architecture", grids.architectures, verdicts.architecture),
)


def find_study(name: str) -> Study:
    """The study of that name.

    Raises:
        InputError: there is none.
    """
    known = {study.name: study for study in STUDIES}
    if name not in known:
        raise InputError(f"there is no study {name!r}{near_miss(name, known)}; there are {', '.join(known)}")
    return known[name]

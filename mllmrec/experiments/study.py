"""mllmrec study: the points of a grid, each fitted with every seed and judged on validation.

1. the features of a point come from the ordinary stages, once for all points with the same reasoning
2. its item graph is built from them, and measured
3. each seed is a trial of its own, named by all that shapes it, the test split not among it

A killed study goes on where it was, and all studies in one folder share what they have in common. No test
interaction is read, except by a leaky point, whose profiles are made of them; that is what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mllmrec.audit.graph import examine_graph
from mllmrec.config import Config, override
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError, near_miss
from mllmrec.experiments import grid, verdict
from mllmrec.experiments.figure import draw_study
from mllmrec.experiments.grid import GridPoint, Points
from mllmrec.experiments.judge import check_validation
from mllmrec.experiments.table import Connectivity, Result, Row, conclude
from mllmrec.experiments.trial import Trials
from mllmrec.foundation.progress import Progress, silent


@dataclass(frozen=True, slots=True)
class Study:
    """A grid and its verdict.

    Attributes:
        name: as the command line takes it.
        points: the grid, from the config and the dataset.
        verdict: the sentence, from the numbers.
        axes: names of the axes, for the picture; none where the points are just named.
        of_graph: whether the points differ in their item graphs, which are measured then.
        against_best: rows are set against the best; otherwise against the first.
        seeds: each point's, where nothing else is chosen.
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
        """Return the result, its sentence included."""
        reference = max(rows, key=lambda row: row.score) if self.against_best else rows[0]
        one = "" if self.by_seed or rows[0].seeds > 1 else " One seed each: what the seed does is not in the errors."
        result = conclude(self.name, dataset, "valid", rows, self.verdict, reference=reference)
        return replace(result, sentence=result.sentence + one)


STUDIES = (
    Study("alpha", grid.alphas, verdict.alpha, ("threshold alpha (cosine)",), of_graph=True, against_best=True),
    Study(
        "neighbors",
        grid.neighbors,
        verdict.neighbors,
        ("semantic neighbors K_s", "co-occurrence neighbors K_c"),
        of_graph=True,
        against_best=True,
        seeds=1,
    ),
    Study("window", grid.windows, verdict.window, ("co-occurrence window",), of_graph=True, against_best=True),
    Study("ablation", grid.ablations, verdict.ablation),
    Study("prompts", grid.wordings, verdict.prompts, against_best=True),
    Study("leak", grid.leaks, verdict.leak),
    Study("seeds", grid.unchanged, verdict.seeds, seeds=5, by_seed=True),
    Study("architecture", grid.architectures, verdict.architecture),
)


def find_study(name: str) -> Study:
    """Return the study of that name.

    Raises:
        InputError: there is none.
    """
    known = {study.name: study for study in STUDIES}
    if name not in known:
        raise InputError(f"there is no study {name!r}{near_miss(name, known)}; there are {', '.join(known)}")
    return known[name]


def run_study(
    study: Study,
    dataset: Dataset,
    out: Path,
    config: Config,
    *,
    seeds: int | None = None,
    generations: Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Run a study, or go on with an interrupted one in the same folder.

    Args:
        study: one of STUDIES.
        dataset: a prepared dataset.
        out: folder of the studies of this dataset: inputs/, cells/, and STUDY.csv, .json, .svg, .png.
        config: the start of all points, but for model.kind, which is MLLMRec; seeds count up from its seed.
        seeds: seeds of each point, at least 1; the study's own number by default.
        generations: cache of the reasoning stages; the user's own by default.
        progress: told after each trial.

    Raises:
        ConfigError: the config itself is leaky, or has nothing to study.
        InputError: the dataset lacks what the study varies.
        TrainingError: no user has both a training and a validation interaction.
    """
    if config.leaky:
        raise ConfigError('the leak is a study of its own, mllmrec study leak; set profile.history back to "train"')
    check_validation(dataset)
    config = override(config, ["model.kind=mllmrec"])
    points, count = study.points(config, dataset), seeds or study.seeds
    trials = Trials(dataset, out, ("valid",), generations, progress)
    trials.expect(f"study {study.name}, trials", len(points) * count)
    rows = [row for point in points for row in _rows(study, point, trials, config, count)]
    result = study.conclude(dataset.name, rows)
    result.save(out)
    draw_study(result, study.axes, out / result.stem)
    return result


def _rows(study: Study, point: GridPoint, trials: Trials, config: Config, count: int) -> list[Row]:
    """Return one row of all seeds, or one a seed where these are what is studied."""
    own = override(config, point.settings)
    inputs, seeds = trials.inputs(own), range(own.seed, own.seed + count)
    fitted = [trials.run(own, inputs, seed, leaky=own.leaky) for seed in seeds]
    if study.by_seed:
        named = (replace(point, name=f"{point.name} {seed}") for seed in seeds)
        return [Row.of(each, [trial], "valid") for each, trial in zip(named, fitted, strict=True)]
    graph = None
    if study.of_graph:
        health = examine_graph(
            inputs.graph(own.graph), inputs.features.items, trials.training, threshold=own.graph.threshold
        )
        graph = Connectivity(health.items, health.edges, len(health.components), health.largest, health.isolated)
    return [Row.of(point, fitted, "valid", graph)]

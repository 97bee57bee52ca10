"""mllmrec study: the points of a grid, each fitted with every seed and judged on validation.

1. the features of a point come from the ordinary stages, once for all points with the same reasoning
2. its item graph is built from them, and measured
3. each seed is a trial of its own, named by all that shapes it, the test split not among it

A killed study goes on where it was, and all studies in one folder share what they have in common. No test
interaction is read, except by a leaky point, whose profiles are made of them; that is what it is there for.

The picture has curves over one axis, a map over two, and intervals where points are just named.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mllmrec.audit.graph import examine_graph
from mllmrec.config import Config, override
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError, near_miss
from mllmrec.evaluation.metrics import short
from mllmrec.experiments import grid, verdict
from mllmrec.experiments.grid import GridPoint, Points
from mllmrec.experiments.judge import check_validation
from mllmrec.experiments.table import Connectivity, Result, Row, conclude
from mllmrec.experiments.trial import Trials
from mllmrec.foundation.progress import Progress, silent
from mllmrec.report.figures import COLORS, plot_style, write_figure

_BLUE, _ORANGE, _GREEN = COLORS[:3]
_SCORE = "validation NDCG@20"


@dataclass(frozen=True, slots=True)
class Study:
    """A grid and its verdict.

    Attributes:
        name: as the command line takes it.
        points: the grid, from the config and the dataset.
        verdict: the sentence, from the numbers.
        axes: names of the axes, for the picture; none if the points are just named.
        of_graph: whether the points differ in their item graphs, which are measured then.
        against_best: rows are set against the best; otherwise against the first.
        seeds: each point's, if nothing else is chosen.
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
        config: the start of all points; model.kind is MLLMRec. Seeds count up from its seed.
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
    """Return one row of all seeds, or one per seed if seeds are studied."""
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


def draw_study(result: Result, axes: tuple[str, ...], stem: Path) -> list[Path]:
    """Draw a study.

    Args:
        result: the results table; its reference is drawn as a line.
        axes: names of the axes that the points lie on: none, one, or two.
        stem: the pictures' path without an ending.

    Returns:
        The files written, SVG and PNG.
    """
    with plot_style():
        match len(axes):
            case 0:
                figure = _intervals(result)
            case 1:
                figure = _curves(result, axes[0])
            case _:
                figure = _map(result, axes[0], axes[1])
        figure.suptitle(f"{result.name}: {result.dataset}{', partly LEAKY' if result.leaky else ''}", x=0.01, ha="left")
        return write_figure(figure, stem)


def _intervals(result: Result) -> Figure:
    """Draw a line per row: its score, with the standard error of its difference to the reference."""
    rows, reference = result.rows, result.require_reference()
    figure = Figure(figsize=(7, 1.5 + 0.34 * len(rows)), layout="constrained")
    axes: Any = figure.add_subplot()
    axes.axvline(reference.score, color="grey", linewidth=1, linestyle=":", label=f"as {reference.point.name}")
    for leaky, color, name in ((False, _BLUE, "leak-free"), (True, _ORANGE, "LEAKY")):
        places = [n for n, row in enumerate(rows) if row.point.leaky == leaky]
        errors = [rows[n].less(reference).error for n in places]
        if places:
            axes.errorbar([rows[n].score for n in places], places, xerr=errors, fmt="o", color=color, capsize=3,
                          label=f"{name}, ± 1 standard error of the difference")  # fmt: skip
    axes.set_yticks(range(len(rows)), [row.point.name for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel(f"{_SCORE} (mean over users{_seeds(rows)})")
    axes.grid(visible=True, axis="x", alpha=0.3)
    figure.legend(loc="outside lower left", ncols=2, fontsize=8)
    return figure


def _curves(result: Result, name: str) -> Figure:
    """Draw the score over the axis, and below it how connected the graph is."""
    rows, reference, places = result.rows, result.require_reference(), range(len(result.rows))
    figure = Figure(figsize=(7, 5.4), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    scores = np.array([row.score for row in rows])
    errors = np.array([row.less(reference).error for row in rows])
    above.errorbar(places, scores, yerr=errors, marker="o", color=_BLUE, capsize=3,
                   label="± 1 standard error of the difference to the best")  # fmt: skip
    above.axhline(reference.score, color="grey", linewidth=1, linestyle=":", label=f"best: {reference.point.name}")
    above.set_ylabel(f"{_SCORE}\n(mean over users{_seeds(rows)})")
    graphs = [row.graph for row in rows if row.graph]
    below.plot(places, [100 * graph.largest for graph in graphs], marker="s", color=_GREEN,
               label="items in the largest component")  # fmt: skip
    below.plot(places, [100 * graph.isolated / graph.items for graph in graphs], marker="^", color=_ORANGE,
               label="isolated items")  # fmt: skip
    below.set(ylim=(-3, 103), ylabel="share of the items (%)", xlabel=f"{name}; below it, edges of the item graph")
    below.set_xticks(places, [f"{row.point.name}\n{g.edges:,}" for row, g in zip(rows, graphs, strict=True)])
    for axes in (above, below):
        axes.grid(visible=True, alpha=0.3)
        axes.legend(fontsize=8)
    return figure


def _map(result: Result, down: str, across: str) -> Figure:
    """Draw the score over two axes; settings within one standard error of the best are framed."""
    rows, columns = (sorted({row.point.at[axis] for row in result.rows}) for axis in (0, 1))
    scores = np.full((len(rows), len(columns)), np.nan)
    figure = Figure(figsize=(6, 4.6), layout="constrained")
    axes: Any = figure.add_subplot()
    for row, as_good in zip(result.rows, result.as_good, strict=True):
        y, x = rows.index(row.point.at[0]), columns.index(row.point.at[1])
        scores[y, x] = row.score
        if as_good:
            axes.add_patch(Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, fill=False, edgecolor=_ORANGE, linewidth=2))
    image = axes.imshow(scores, cmap="Blues", aspect="auto")
    middle = (np.nanmin(scores) + np.nanmax(scores)) / 2
    for (y, x), score in np.ndenumerate(scores):
        axes.text(x, y, short(score), ha="center", va="center", color="white" if score > middle else "black")
    axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns])
    axes.set_yticks(range(len(rows)), [f"{value:g}" for value in rows])
    axes.set(xlabel=f"{across} (items)", ylabel=f"{down} (items)")
    axes.set_title("framed: within one standard error of the best", loc="left", fontsize=9)
    figure.colorbar(image, label=f"{_SCORE} (mean over users{_seeds(result.rows)})")
    return figure


def _seeds(rows: tuple[Row, ...]) -> str:
    return f" and {rows[0].seeds} seeds" if rows[0].seeds > 1 else ""

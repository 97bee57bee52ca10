"""Several runs beside each other: their differences, and results paired by user if they evaluate the same users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import polars as pl

from mllmrec.evaluation.metrics import Interval, mean_intervals, written
from mllmrec.foundation.progress import Progress, silent
from mllmrec.report.figures import Plot, lines, whiskers
from mllmrec.report.sections.cards import Cards, Thumbnails, UserCard
from mllmrec.report.sections.inputs import SettingDifference, setting_differences
from mllmrec.report.sections.lists import ListMeasures, measure_lists
from mllmrec.report.sections.results import ResultsTable, per_user, results_table
from mllmrec.report.sections.stages import Status, Step, stage_status, steps, training
from mllmrec.runs import Run
from mllmrec.runs.record import STAGES, Stage

_USERS = 3  # shown side by side
_LISTED = 5  # recommendations of each run to them


@dataclass(frozen=True, slots=True)
class Side:
    """One run of the comparison.

    Attributes:
        letter: its name in plots and narrow columns.
        run: the run.
        status: of its stages.
        steps: its stages' times and rates.
        results, lists: None if the run has not come so far.
        gaps: by metric the difference from the first run, paired over users; None for the first run, for one with
            other users, and where either has no results.
    """

    letter: str
    run: Run
    status: Mapping[Stage, Status]
    steps: Sequence[Step]
    results: ResultsTable | None
    lists: ListMeasures | None
    gaps: Mapping[str, Interval] | None

    @property
    def done(self) -> list[Stage]:
        """Return the stages that can be shown."""
        return [stage for stage in STAGES if self.status[stage] == "done"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The page.

    Attributes:
        sides: the runs, in the order they were named.
        metrics: the shown ones, which all runs with results have.
        differences: settings, data and machine, if not all agree.
        plots: caption and plot.
        users: users of the first run whom all of the same dataset serve: by user, each run's card of them.
    """

    sides: tuple[Side, ...]
    metrics: tuple[str, ...]
    differences: Sequence[SettingDifference]
    plots: Sequence[Plot]
    users: Sequence[Sequence[tuple[Side, UserCard]]]


def compare_runs(runs: Sequence[Run], *, progress: Progress = silent) -> Comparison:
    """Set runs beside each other; the others are set against the first."""
    sides: list[Side] = []
    for n, run in enumerate(runs):
        progress("compare runs", n, len(runs))
        sides.append(_side(n, run, sides[0] if sides else None))
    progress("compare runs", len(runs), len(runs))
    tables = [side.results.metrics for side in sides if side.results]
    metrics = tuple(metric for metric in (tables[0] if tables else ()) if all(metric in table for table in tables))
    differences = setting_differences([run.record for run in runs])
    return Comparison(tuple(sides), metrics, differences, _plots(sides, metrics), _users(sides))


def _side(n: int, run: Run, first: Side | None) -> Side:
    status = stage_status(run)
    evaluated, listed = (status[stage] == "done" for stage in ("evaluate", "recommend"))
    return Side(
        letter=ascii_uppercase[n] if n < len(ascii_uppercase) else str(n + 1),
        run=run,
        status=status,
        steps=steps(run, status),
        results=results_table(run.evaluation) if evaluated else None,
        lists=measure_lists(run.dataset, run.recommendations) if listed else None,
        gaps=_gaps(run, first) if evaluated and first else None,
    )


def _gaps(run: Run, first: Side) -> dict[str, Interval] | None:
    """Return differences from the first run over the same users' same held-out items; None if they are others."""
    if first.results is None or not first.results.users:
        return None
    if any(run.record[key] != first.run.record[key] for key in ("train_digest", "dataset_digest")):
        return None
    if not _evaluated(run).equals(_evaluated(first.run)):
        return None
    own, other = run.evaluation, first.run.evaluation
    shared = [metric for metric in first.results.metrics if metric in own.per_user.columns]
    values = [per_user(table, table.own_model, shared) for table in (own, other)]
    return dict(zip(shared, mean_intervals(values[0] - values[1]), strict=True))


def _evaluated(run: Run) -> pl.Series:
    """Return the ids of the test users."""
    return run.evaluation.rows_of(run.evaluation.own_model)["id"]


def _plots(sides: Sequence[Side], metrics: Sequence[str]) -> list[Plot]:
    plots: list[Plot] = []
    tables = [(side.letter, side.results) for side in sides if side.results and side.results.users]
    for metric in (metrics[len(metrics) // 2 - 1], metrics[-1]) if metrics and tables else ():
        rows = [(letter, table.column(metric)[-1][1]) for letter, table in tables]
        caption = f"Each run's own model on its test split: {written(metric)}, with 95 % bootstrap intervals."
        plots.append((caption, whiskers(rows, xlabel=written(metric), name=f"{written(metric)} of the runs")))
    gaps = [(side.letter, side.gaps[metrics[-1]]) for side in sides if side.gaps and metrics]
    if gaps:
        caption = f"Less run {sides[0].letter}, paired over users: an interval without 0 is a significant difference."
        rows = [(letter, (gap.value, gap.low, gap.high)) for letter, gap in gaps]
        name = f"difference in {written(metrics[-1])}"
        plots.append((caption, whiskers(rows, xlabel=name, name="paired differences", zero=True)))
    curves = {
        side.letter: (trained.curve["epoch"].to_numpy(), trained.curve["recall"].to_numpy())
        for side in sides
        if "train" in side.done and (trained := training(side.run))
    }
    if curves:
        drawing = lines(curves, xlabel="epoch", ylabel="validation Recall@20", name="learning curves")
        plots.append(("Learning curves on the validation split.", drawing))
    return plots


def _users(sides: Sequence[Side]) -> list[list[tuple[Side, UserCard]]]:
    """Return users spread over the first run, with each run's card if it is of the same dataset."""
    pictures, first = Thumbnails(), sides[0]
    digest = first.run.record["dataset_digest"]
    alike = [side for side in sides if side.run.record["dataset_digest"] == digest]
    users = Cards(first.run, pictures, ()).spread_users(_USERS)
    shown = [Cards(side.run, pictures, side.done).users(users, listed=_LISTED) for side in alike]
    return [[(side, cards[n]) for side, cards in zip(alike, shown, strict=True)] for n in range(len(users))]

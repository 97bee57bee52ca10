"""Several runs beside each other: paired where they judge the same users, and what sets them apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import polars as pl
from markupsafe import Markup

from mllmrec.evaluation.bootstrap import Interval, mean_intervals
from mllmrec.report.figures import lines, whiskers
from mllmrec.report.flow import Step, flow
from mllmrec.report.headline import Headline, headline, named, per_user
from mllmrec.report.lists import ListMeasures, measure_lists
from mllmrec.report.people import People, Person, Shelf
from mllmrec.report.settings import Difference, differences
from mllmrec.report.standing import Standing, standings
from mllmrec.report.training import training
from mllmrec.runs import STAGES, Stage
from mllmrec.views import RunView

_USERS = 3  # shown side by side
_LISTED = 5  # recommendations of each run to them


@dataclass(frozen=True, slots=True)
class Side:
    """One run of the comparison.

    Attributes:
        letter: what plots and narrow columns call it.
        view: the run.
        standing: of its stages.
        steps: what they took.
        headline, lists: None where the run has not come so far.
        gaps: by metric the difference from the first run, paired over users; None for the first run, for one that
            judges other users, and where either has no results.
    """

    letter: str
    view: RunView
    standing: Mapping[Stage, Standing]
    steps: Sequence[Step]
    headline: Headline | None
    lists: ListMeasures | None
    gaps: Mapping[str, Interval] | None

    @property
    def done(self) -> list[Stage]:
        """The stages that can be shown."""
        return [stage for stage in STAGES if self.standing[stage] == "done"]


@dataclass(frozen=True, slots=True)
class Comparison:
    """The page.

    Attributes:
        sides: the runs, in the order they were named.
        metrics: the shown ones: those that all runs with results have.
        differences: settings, data and machine, where not all agree.
        plots: caption and plot.
        people: users of the first run that all of the same dataset serve: by user, what each run shows them.
    """

    sides: tuple[Side, ...]
    metrics: tuple[str, ...]
    differences: Sequence[Difference]
    plots: Sequence[tuple[str, Markup]]
    people: Sequence[Sequence[tuple[Side, Person]]]


def compare_runs(views: Sequence[RunView]) -> Comparison:
    """Set runs beside each other; the first is what the others are measured against."""
    first = _side(0, views[0], None)
    sides = (first, *(_side(n, view, first) for n, view in enumerate(views[1:], start=1)))
    judged = [set(side.headline.metrics) for side in sides if side.headline]
    own = next((side.headline.metrics for side in sides if side.headline), ())
    metrics = tuple(metric for metric in own if all(metric in one for one in judged))
    return Comparison(
        sides, metrics, differences([view.record for view in views]), _plots(sides, metrics), _people(sides)
    )


def _side(n: int, view: RunView, first: Side | None) -> Side:
    standing = standings(view)
    judged, listed = (standing[stage] == "done" for stage in ("evaluate", "recommend"))
    return Side(
        letter=ascii_uppercase[n] if n < len(ascii_uppercase) else str(n + 1),
        view=view,
        standing=standing,
        steps=flow(view, standing),
        headline=headline(view.evaluation) if judged else None,
        lists=measure_lists(view.dataset, view.recommendations) if listed else None,
        gaps=_gaps(view, first) if judged and first and first.headline else None,
    )


def _gaps(view: RunView, first: Side) -> dict[str, Interval] | None:
    """Differences from the first run over the same users' same held-out items; None where they are others."""
    same = ("train_digest", "dataset_digest")
    if any(view.record[key] != first.view.record[key] for key in same):
        return None
    mine, theirs = view.evaluation, first.view.evaluation
    if not _judged(view).equals(_judged(first.view)):
        return None
    shared = [metric for metric in headline_metrics(first) if metric in mine.per_user.columns]
    values = [per_user(made, list(made.means["test"])[-1], shared) for made in (mine, theirs)]
    return dict(zip(shared, mean_intervals(values[0] - values[1]), strict=True))


def headline_metrics(side: Side) -> tuple[str, ...]:
    """The metrics a side's headline shows."""
    return side.headline.metrics if side.headline else ()


def _judged(view: RunView) -> pl.Series:
    made = view.evaluation
    return made.per_user.filter((pl.col("split") == "test") & (pl.col("model") == list(made.means["test"])[-1]))["id"]


def _plots(sides: Sequence[Side], metrics: Sequence[str]) -> list[tuple[str, Markup]]:
    found: list[tuple[str, Markup]] = []
    for metric in metrics[-1:] and (metrics[len(metrics) // 2 - 1], metrics[-1]):
        rows = [(side.letter, side.headline.column(metric)[-1][1]) for side in sides if side.headline]
        found.append(
            (
                f"Each run's own model on its test split: {named(metric)}, with 95 % bootstrap intervals.",
                whiskers(rows, xlabel=named(metric), name=f"{named(metric)} of the runs"),
            )
        )
    gaps = [(side.letter, side.gaps[metrics[-1]]) for side in sides if side.gaps and metrics[-1:]]
    if gaps:
        found.append(
            (
                f"Less run {sides[0].letter}, paired over users: an interval that leaves 0 out is a difference.",
                whiskers(
                    [(letter, (gap.value, gap.low, gap.high)) for letter, gap in gaps],
                    xlabel=f"difference in {named(metrics[-1])}",
                    name="paired differences",
                    zero=True,
                ),
            )
        )
    curves = {side.letter: made.curve for side in sides if "train" in side.done and (made := training(side.view))}
    if curves:
        found.append(
            (
                "Learning curves on the validation split.",
                lines(
                    {
                        letter: (curve["epoch"].to_numpy(), curve["recall"].to_numpy())
                        for letter, curve in curves.items()
                    },
                    xlabel="epoch",
                    ylabel="validation Recall@20",
                    name="learning curves",
                ),
            )
        )
    return found


def _people(sides: Sequence[Side]) -> list[list[tuple[Side, Person]]]:
    """Users spread over the first run, with each run's list where it is of the same dataset."""
    shelf, first = Shelf(), sides[0]
    alike = [side for side in sides if side.view.record["dataset_digest"] == first.view.record["dataset_digest"]]
    users = People(first.view, shelf, ()).spread(_USERS)
    shown = [People(side.view, shelf, side.done).show(users, listed=_LISTED) for side in alike]
    return [[(side, people[n]) for side, people in zip(alike, shown, strict=True)] for n in range(len(users))]

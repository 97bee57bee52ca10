"""mllmrec report: one self-contained page of a run, or of several beside each other.

Looks at finished artefacts and changes none. Test interactions are read to judge by and are marked where they are
shown; nothing that is computed here goes back into a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mllmrec import __version__
from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.report.comparison import compare_runs
from mllmrec.report.data import data_section
from mllmrec.report.figures import whiskers
from mllmrec.report.flow import flow
from mllmrec.report.headline import Headline, headline, named
from mllmrec.report.lists import measure_lists
from mllmrec.report.neighbourhood import GraphSection, graph_section
from mllmrec.report.page import render
from mllmrec.report.people import People, Shelf
from mllmrec.report.reasoning import Reasoning, reasoning
from mllmrec.report.settings import settings
from mllmrec.report.slices import by_activity, by_popularity
from mllmrec.report.standing import standings
from mllmrec.report.training import training
from mllmrec.runs import marked
from mllmrec.views import RunView

_BROWSED = 12  # users whose lists can be unfolded


def write_report(runs: Sequence[Path], *, page: Path | None = None, seed: int = 0) -> Path:
    """Write the page of one run, or of several compared.

    Args:
        runs: run folders; of several the first is what the others are measured against.
        page: where it goes; by default report.html, or comparison.html, in the first run's folder.
        seed: of every sample.

    Returns:
        Where the page lies.

    Raises:
        InputError: a folder is no run, or is named twice.
        MismatchError: a run or its dataset was written by another version, or changed afterwards.
        StorageError: the page cannot be written.
    """
    if len({run.resolve() for run in runs}) < len(runs):
        raise InputError("a run is named twice; name each run once")
    views = [RunView(run) for run in runs]
    leaky = any(view.leaky for view in views)
    name = "report" if len(views) == 1 else "comparison"
    path = page or runs[0] / marked(f"{name}.html", leaky=leaky)
    storage.write_text(path, run_page(views[0], seed=seed) if len(views) == 1 else comparison_page(views))
    return path


def run_page(view: RunView, *, seed: int = 0) -> str:
    """The page of one run as HTML; a section whose stage is not done says so."""
    standing = standings(view)
    done = {stage for stage, how in standing.items() if how == "done"}
    shelf = Shelf()
    people = People(view, shelf, done)
    made = headline(view.evaluation) if "evaluate" in done else None
    told = reasoning(view, people, encoded="encode" in done, seed=seed) if {"describe", "profile"} <= done else None
    graph = graph_section(view, shelf, seed=seed) if {"encode", "graph"} <= done else None
    return render(
        "run.html.j2",
        **_frame(view),
        heading="Run",
        standing=standing,
        go_on=view.go_on,
        headline=made,
        headline_plots=_headline_plots(made),
        steps=flow(view, standing),
        data=data_section(view.dataset),
        reasoning=told,
        graph=graph,
        training=training(view) if "train" in done else None,
        lists=measure_lists(view.dataset, view.recommendations) if "recommend" in done else None,
        browsed=people.show(people.spread(_BROWSED)) if "recommend" in done else (),
        slices=[cut(view.evaluation, view.dataset) for cut in (by_activity, by_popularity)] if made else (),
        settings=settings(view.record["config"]),
        concerns=_concerns(told, graph, list(standing.values())),
    )


def comparison_page(views: Sequence[RunView]) -> str:
    """The page of several runs as HTML."""
    made = compare_runs(views)
    frame = _frame(views[0]) | {"leaky": False, "run": ", ".join(view.folder.name for view in views)}
    return render("comparison.html.j2", **frame, heading="Comparison of runs", made=made)


def _frame(view: RunView) -> dict[str, Any]:
    """What every page says above its first section."""
    return {
        "dataset": view.dataset.name,
        "run": view.folder.name,
        "version": __version__,
        "named": named,
        "leaky": view.leaky,
        "record": view.record,
    }


def _headline_plots(made: Headline | None) -> list[tuple[str, object]]:
    if made is None:
        return []
    shown = (made.metrics[len(made.metrics) // 2 - 1], made.metrics[-1])
    return [
        (
            f"{named(metric)} on the test split, mean over {made.users:,} users, with the 95 % bootstrap interval.",
            whiskers(made.column(metric), xlabel=named(metric), name=f"{named(metric)} beside the yardsticks"),
        )
        for metric in shown
    ]


def _concerns(told: Reasoning | None, graph: GraphSection | None, standing: Sequence[str]) -> list[str]:
    """What a reader should look at before they trust the run, a line each."""
    found = []
    if told and told.warning:
        found.append(f"Profiles: {told.warning}.")
    if graph:
        found += [f"Graph: {warning}." for warning in graph.health.warnings]
    if "damaged" in standing:
        found.append("A stage's files were changed after they were written; run mllmrec run again to mend it.")
    if "outdated" in standing:
        found.append("Some stages were made under other settings than the run's; their sections are left out.")
    return found

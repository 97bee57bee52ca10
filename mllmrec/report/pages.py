"""Write the pages of one run, of several runs (`mllmrec report`), and of an audit (`mllmrec inspect`).

Finished artefacts are read, none is changed. Test interactions are read to judge by and are marked where they are
shown; nothing that is computed here goes back into a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from mllmrec.audit.graph import Neighbor
from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.report.comparison import compare_runs
from mllmrec.report.page import render
from mllmrec.report.sections.cards import Cards, Thumbnails
from mllmrec.report.sections.graph import GraphSection, graph_section
from mllmrec.report.sections.groups import groups_table
from mllmrec.report.sections.inputs import data_section, settings
from mllmrec.report.sections.lists import measure_lists
from mllmrec.report.sections.profiles import ProfileSample, ProfilesSection, profiles_section
from mllmrec.report.sections.results import by_activity, by_popularity, results_table
from mllmrec.report.sections.stages import stage_status, steps, training
from mllmrec.runs import Run
from mllmrec.runs.record import marked

_BROWSED = 12  # users whose lists can be unfolded
_EDGES = 12  # of an item on the page of a graph
_SECTIONS = 6


def write_report(runs: Sequence[Path], *, page: Path | None = None, seed: int = 0, progress: Progress = silent) -> Path:
    """Write the page of one run, or of several compared.

    Args:
        runs: run folders; of several the first is the one that the others are set against.
        page: the page's path; by default report.html, or comparison.html, in the first run's folder.
        seed: of every sample.
        progress: called after each section, or each run.

    Returns:
        The page's path.

    Raises:
        InputError: a folder is no run, or is named twice.
        MismatchError: a run or its dataset was written by another version, or changed afterwards.
        StorageError: the page cannot be written.
    """
    if len({folder.resolve() for folder in runs}) < len(runs):
        raise InputError("a run is named twice; name each run once")
    opened = [Run(folder) for folder in runs]
    leaky = any(run.leaky for run in opened)
    name = "report" if len(opened) == 1 else "comparison"
    path = page or runs[0] / marked(f"{name}.html", leaky=leaky)
    one = len(opened) == 1
    html = run_page(opened[0], seed=seed, progress=progress) if one else comparison_page(opened, progress=progress)
    storage.write_text(path, html)
    return path


def run_page(run: Run, *, seed: int = 0, progress: Progress = silent) -> str:
    """Return the page of one run as HTML; a section whose stage is not done says so.

    Args:
        run: the run.
        seed: of every sample.
        progress: told after each section.
    """
    sections = iter(range(1, _SECTIONS + 1))

    def drawn() -> None:
        progress("report, sections", next(sections), _SECTIONS)

    progress("report, sections", 0, _SECTIONS)
    status = stage_status(run)
    done = {stage for stage, state in status.items() if state == "done"}
    cards = Cards(run, Thumbnails(), done)
    results = results_table(run.evaluation, progress=progress) if "evaluate" in done else None
    drawn()
    profiles = graph = None
    if {"describe", "profile"} <= done:
        sample = ProfileSample(seed=seed)
        profiles = profiles_section(run, cards, sample, encoded="encode" in done, progress=progress)
    drawn()
    if {"encode", "graph"} <= done:
        graph = graph_section(run, cards, seed=seed)
    drawn()
    lists = measure_lists(run.dataset, run.recommendations) if "recommend" in done else None
    browsed = cards.users(cards.spread_users(_BROWSED)) if lists else ()
    drawn()
    slices = [cut(run.evaluation, run.dataset) for cut in (by_activity, by_popularity)] if results else ()
    drawn()
    html = _render(
        "run.html.j2",
        run,
        heading="Run",
        record=run.record,
        status=status,
        go_on=run.go_on,
        results=results,
        groups=groups_table(run.evaluation) if results else None,
        steps=steps(run, status),
        data=data_section(run.dataset),
        profiles=profiles,
        graph=graph,
        training=training(run) if "train" in done else None,
        lists=lists,
        browsed=browsed,
        slices=slices,
        settings=settings(run.record["config"]),
        concerns=_concerns(profiles, graph, list(status.values())),
    )
    drawn()
    return html


def _concerns(profiles: ProfilesSection | None, graph: GraphSection | None, status: Sequence[str]) -> list[str]:
    """Return one line for each thing to look at before the run is trusted."""
    concerns = []
    if profiles and profiles.warning:
        concerns.append(f"Profiles: {profiles.warning}.")
    if graph:
        concerns += [f"Graph: {warning}." for warning in graph.health.warnings]
    if "damaged" in status:
        concerns.append("A stage's files were changed after they were written; mllmrec run makes them again.")
    if "outdated" in status:
        concerns.append("Some stages were made under other settings than the run's; their sections are left out.")
    return concerns


def comparison_page(runs: Sequence[Run], *, progress: Progress = silent) -> str:
    """Return the page of several runs as HTML."""
    compared = compare_runs(runs, progress=progress)
    return render(
        "comparison.html.j2",
        heading="Comparison of runs",
        dataset=runs[0].dataset.name,
        run=", ".join(run.folder.name for run in runs),
        leaky=False,  # each leaky run has a banner of its own
        made=compared,
    )


def profiles_page(run: Run, profiles: ProfilesSection) -> str:
    """Return the page of `inspect profiles` as HTML."""
    return _render("profiles.html.j2", run, heading="Profiles", profiles=profiles)


def graph_page(
    run: Run, graph: GraphSection, cards: Cards, items: Iterable[tuple[int, Sequence[Neighbor]]], *, named: bool
) -> str:
    """Return the page of `inspect graph` as HTML.

    Args:
        run: the run.
        graph: the measures.
        cards: shows its items.
        items: index and edges of the items to show.
        named: whether a user named these items.
    """
    shown = [
        (
            cards.item(item),
            [(cards.item(edge.item), edge) for edge in edges[:_EDGES]],
            max(0, len(edges) - _EDGES),
        )
        for item, edges in items
    ]
    return _render("graph.html.j2", run, heading="Item graph", graph=graph, items=shown, named=named)


def _render(template: str, run: Run, **values: object) -> str:
    """Return a page of one run."""
    return render(template, dataset=run.dataset.name, run=run.folder.name, leaky=run.leaky, **values)

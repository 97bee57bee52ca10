"""Audit a finished run from its folder: one function per verb, which returns numbers and writes a page."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from mllmrec.audit.graph import GraphHealth, Neighbor
from mllmrec.audit.leak import LeakAudit, audit_leak
from mllmrec.audit.profiles import measure_words, reasoning_warning
from mllmrec.audit.quality import ProfileQuality
from mllmrec.dataset import load
from mllmrec.dataset.dataset import Scope
from mllmrec.dataset.store_checks import MANIFEST, find_dataset_problems
from mllmrec.errors import InputError, MllmrecError
from mllmrec.foundation import storage
from mllmrec.foundation.folders import find_problems
from mllmrec.foundation.progress import Progress, silent
from mllmrec.report.page import Measure
from mllmrec.report.pages import graph_page, profiles_page
from mllmrec.report.sections.cards import Cards, ItemCard, Thumbnails, UserCard
from mllmrec.report.sections.graph import GraphSection, graph_measures, graph_plots, measure_graph, neighbors_of
from mllmrec.report.sections.profiles import ProfileSample, measure_profiles, show_profiles
from mllmrec.runs import Run
from mllmrec.runs.record import READERS, STAGES, find_run_problems

_WORST = 20  # generic profiles that are shown in full
_UNLIMITED = 1 << 40  # characters of pictures on a page of an audit


@dataclass(frozen=True, slots=True)
class ProfileInspection:
    """The result of `inspect profiles`.

    Attributes:
        quality: the measures.
        measures: (measure, value, reading).
        warning: one line if the profiles are not worth their time.
        worst: the worst generic profiles.
        sampled: users drawn at random, worst first.
        page: the page's path.
    """

    quality: ProfileQuality
    measures: Sequence[Measure]
    warning: str | None
    worst: Sequence[UserCard]
    sampled: Sequence[UserCard]
    page: Path


@dataclass(frozen=True, slots=True)
class ItemNeighbors:
    """An item and its edges: (item, edge), heaviest first."""

    item: ItemCard
    edges: Sequence[tuple[ItemCard, Neighbor]]


@dataclass(frozen=True, slots=True)
class GraphInspection:
    """The result of `inspect graph`: measures, (measure, value, reading), items, and the page's path."""

    health: GraphHealth
    measures: Sequence[Measure]
    items: Sequence[ItemNeighbors]
    page: Path


def run_warning(folder: Path) -> str | None:
    """Return the warning of `mllmrec run` about its profiles; None if nothing stands out, or without texts."""
    run = Run(folder)
    words = measure_words(run.dataset, run.descriptions, run.profiles, newest=run.newest)
    return reasoning_warning(words, run.descriptions, run.profiles)


def inspect_profiles(
    folder: Path, *, users: int = 20, seed: int = 0, page: Path | None = None, progress: Progress = silent
) -> ProfileInspection:
    """Measure a run's profiles and write the page.

    Args:
        folder: a run folder whose encode stage is done.
        users: users drawn for the page and the terminal.
        seed: of every sample.
        page: the page's path; by default inspect/profiles.html in the run folder.
        progress: told by the measures.

    Raises:
        InputError: `folder` is no run, has not come so far, or has no profile texts.
        StorageError: the page cannot be written.
    """
    run, sample = Run(folder), ProfileSample(measured=None, worst=_WORST, drawn=users, seed=seed)
    quality = measure_profiles(run, sample, progress=progress)
    cards = Cards(run, Thumbnails(_UNLIMITED), ("describe", "profile"))
    section = show_profiles(run, cards, quality, sample)
    path = page or run.file("inspect", "profiles.html")
    storage.write_text(path, profiles_page(run, section))
    return ProfileInspection(quality, section.measures, section.warning, section.worst, section.sampled, path)


def inspect_graph(
    folder: Path,
    *,
    items: Sequence[str] = (),
    sample: int = 6,
    seed: int = 0,
    page: Path | None = None,
    progress: Progress = silent,
) -> GraphInspection:
    """Measure a run's item graph and write the page.

    Args:
        folder: a run folder whose graph stage is done.
        items: ids of the items whose neighbors are shown.
        sample: items drawn if none is named.
        seed: of that draw.
        page: the page's path; by default inspect/graph.html in the run folder.
        progress: told before and after the measures.

    Raises:
        InputError: `folder` is no run or has not come so far, or there is no such item.
        StorageError: the page cannot be written.
    """
    run = Run(folder)
    indices = [run.dataset.item_index(item) for item in items]
    if not items:
        indices = np.random.default_rng(seed).permutation(run.dataset.n_items)[:sample].tolist()
    progress("measure the graph, steps", 0, 2)
    health = measure_graph(run)
    progress("measure the graph, steps", 1, 2)
    cards = Cards(run, Thumbnails(_UNLIMITED), ("describe",))
    edges = [(item, neighbors_of(run, item)) for item in indices]
    section = GraphSection(health, graph_measures(health), graph_plots(health))
    path = page or run.file("inspect", "graph.html")
    storage.write_text(path, graph_page(run, section, cards, edges, named=bool(items)))
    plain = Cards(run, stages=("describe",))
    named = [ItemNeighbors(plain.item(item), [(plain.item(edge.item), edge) for edge in own]) for item, own in edges]
    progress("measure the graph, steps", 2, 2)
    return GraphInspection(health, section.measures, named, path)


def audit_run(folder: Path, *, seed: int = 0, progress: Progress = silent) -> LeakAudit:
    """Measure whether a run's profiles know held-out items.

    Args:
        folder: a run folder whose encode stage is done.
        seed: of the samples.
        progress: told after each user.

    Raises:
        InputError: `folder` is no run, has not come so far, or nobody in it can be audited.
        MismatchError: its vectors do not belong to its dataset.
    """
    run = Run(folder)
    scope: Scope = "all" if run.leaky else "train"
    return audit_leak(run.features, run.dataset, scope=scope, seed=seed, progress=progress)


def examine_folder(folder: Path) -> list[str]:
    """Return one line for each reason to refuse a run or a dataset, and for what other users can read of a run.

    Raises:
        InputError: `folder` is neither.
    """
    if (folder / MANIFEST).is_file():
        return list(find_problems(folder, find_dataset_problems)) or _refusals(lambda: load(folder))
    if not (folder / "run.json").is_file():
        raise InputError(f"{folder} is neither a run nor a dataset; it has no run.json and no {MANIFEST}")
    problems = list(find_problems(folder, find_run_problems)) or _refusals(lambda: Run(folder))
    if problems:
        return problems
    run = Run(folder)
    problems = _refusals(lambda: run.dataset)
    if not problems:
        readers = (READERS[stage] for stage in STAGES if run.has(stage))
        problems = [line for name in readers for line in _refusals(partial(getattr, run, name))]
    if folder.stat().st_mode & 0o077:
        fix = f"chmod -R go-rwx {shlex.quote(str(folder))}"
        problems.append(f"other users can read it, with its profiles; close it with {fix}")
    return problems


def _refusals(read: Callable[[], object]) -> list[str]:
    try:
        read()
    except MllmrecError as error:
        return [str(error)]
    return []

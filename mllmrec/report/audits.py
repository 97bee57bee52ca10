"""The diagnoses of a finished run, read from its folder: what the command line calls, one function a verb."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mllmrec.audit.graph import GraphHealth, Neighbour, examine_graph, neighbours
from mllmrec.audit.leak import LeakAudit, audit_leak
from mllmrec.audit.profiles import measure_words, reasoning_warning
from mllmrec.audit.quality import ProfileQuality, measure_quality
from mllmrec.foundation import storage
from mllmrec.report.graph_page import graph_page
from mllmrec.report.profile_page import WORST, UserShown, profile_page, sample_findings, show_users
from mllmrec.runs import stage_file
from mllmrec.views import RunView


@dataclass(frozen=True, slots=True)
class ProfileInspection:
    """What `inspect profiles` shows.

    Attributes:
        quality: what is measured.
        warning: one line where the profiles are not worth their time.
        worst: the worst generic profiles.
        sampled: users drawn at random, worst first.
        page: where the page lies.
    """

    quality: ProfileQuality
    warning: str | None
    worst: tuple[UserShown, ...]
    sampled: tuple[UserShown, ...]
    page: Path


@dataclass(frozen=True, slots=True)
class ItemNeighbours:
    """An item's edges, in the shop's own ids and titles: (id, title, edge), heaviest first."""

    id: str
    title: str
    edges: tuple[tuple[str, str, Neighbour], ...]


@dataclass(frozen=True, slots=True)
class GraphInspection:
    """What `inspect graph` shows; the page lies at `page`."""

    health: GraphHealth
    items: tuple[ItemNeighbours, ...]
    page: Path


def run_warning(run: Path) -> str | None:
    """What `mllmrec run` says of its profiles at its end; None where nothing stands out, or there are no texts."""
    view = RunView(run)
    words = measure_words(view.dataset, view.descriptions, view.profiles, newest=view.newest)
    return reasoning_warning(words, view.descriptions, view.profiles)


def inspect_profiles(run: Path, *, users: int = 20, seed: int = 0, page: Path | None = None) -> ProfileInspection:
    """Measure a run's profiles and write the page.

    Args:
        run: a run folder whose encode stage is done.
        users: how many users are drawn for the page and the terminal.
        seed: of every sample.
        page: where the page goes; by default inspect/profiles.html in the run folder.

    Raises:
        InputError: `run` is no run, has not come so far, or has no profile texts.
        StorageError: the page cannot be written.
    """
    view = RunView(run)
    quality = measure_quality(
        view.dataset, view.descriptions, view.profiles, view.features, newest=view.newest, seed=seed
    )
    findings = sample_findings(quality, users, seed=seed)
    path = page or stage_file(run, "inspect", "profiles.html", leaky=view.leaky)
    storage.write_text(path, profile_page(view, quality, findings))
    worst, sampled = (
        tuple(show_users(view, shown, pictures=False)) for shown in (quality.words.generic[:WORST], findings)
    )
    warning = reasoning_warning(quality.words, view.descriptions, view.profiles)
    return ProfileInspection(quality, warning, worst, sampled, path)


def inspect_graph(
    run: Path, *, items: Sequence[str] = (), sample: int = 6, seed: int = 0, page: Path | None = None
) -> GraphInspection:
    """Measure a run's item graph and write the page.

    Args:
        run: a run folder whose graph stage is done.
        items: ids of the items whose neighbours are shown.
        sample: how many are drawn where none is named.
        seed: of that draw.
        page: where the page goes; by default inspect/graph.html in the run folder.

    Raises:
        InputError: `run` is no run or has not come so far, or there is no such item.
        StorageError: the page cannot be written.
    """
    view = RunView(run)
    graph, histories, vectors = view.graph, view.dataset.histories("train"), view.features.items
    threshold = float(view.record["config"]["graph"]["threshold"])
    indices = [view.item_index(item) for item in items]
    if not items:
        indices = np.random.default_rng(seed).permutation(view.dataset.n_items)[:sample].tolist()
    health = examine_graph(graph, vectors, histories, threshold=threshold)
    found = [(item, neighbours(graph, vectors, histories, item, threshold=threshold)) for item in indices]
    path = page or stage_file(run, "inspect", "graph.html", leaky=view.leaky)
    storage.write_text(path, graph_page(view, health, found, named=bool(items)))
    ids, titles = view.dataset.item_ids, view.dataset.items["title"].fill_null("")
    named = tuple(
        ItemNeighbours(ids[item], titles[item], tuple((ids[e.item], titles[e.item], e) for e in edges))
        for item, edges in found
    )
    return GraphInspection(health, named, path)


def audit_run(run: Path, *, seed: int = 0) -> LeakAudit:
    """Measure whether a run's profiles know held-out items.

    Raises:
        InputError: `run` is no run, has not come so far, or nobody in it can be audited.
        MismatchError: its vectors do not belong to its dataset.
    """
    view = RunView(run)
    return audit_leak(view.features, view.dataset, scope="all" if view.leaky else "train", seed=seed)

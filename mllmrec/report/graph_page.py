"""The page of `mllmrec inspect graph`: what is measured, and the neighbours of some items with their pictures."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mllmrec import __version__
from mllmrec.audit.graph import GraphHealth, Neighbour
from mllmrec.report.figures import histogram
from mllmrec.report.page import render
from mllmrec.report.profile_page import show_item
from mllmrec.views import RunView

_SHOWN = 12  # edges of an item


def graph_page(view: RunView, health: GraphHealth, items: Sequence[tuple[int, list[Neighbour]]], *, named: bool) -> str:
    """The whole page as HTML.

    Args:
        view: the run.
        health: what is measured.
        items: index and edges of the items to show.
        named: whether somebody asked for these items.
    """
    shown = [
        (
            show_item(view, item, pictures=True),
            [(show_item(view, edge.item, pictures=True), edge) for edge in edges[:_SHOWN]],
            max(0, len(edges) - _SHOWN),
        )
        for item, edges in items
    ]
    return render(
        "graph.html.j2",
        heading="Item graph",
        dataset=view.dataset.name,
        run=view.folder.name,
        version=__version__,
        leaky=view.leaky,
        health=health,
        plots=graph_plots(health),
        items=shown,
        named=named,
    )


def graph_plots(health: GraphHealth) -> list[tuple[str, object]]:
    """Captions and plots of what is measured over the graph."""
    degrees = {"edges out": health.degrees, "edges in": health.in_degrees}
    if np.array_equal(health.degrees, health.in_degrees):
        degrees = {"": health.degrees}
    most = int(max(degree.max() for degree in degrees.values()))
    step = max(1, most // 40)
    cosines = {str(source): found for source, found in health.cosines.items() if len(found)}
    return [
        (
            "Degrees: how many neighbours an item has.",
            histogram(
                degrees,
                xlabel="degree, edges",
                ylabel="items",
                name="degrees",
                bins=list(np.arange(0, most + step + 1, step) - 0.5),
            ),
        ),
        (
            "Similarity of the items that edges join, by what named the edge.",
            histogram(cosines, xlabel="cosine of the two items' vectors", ylabel="edges", name="similarity", bins=40),
        ),
        (
            "Component sizes: one large one is what propagation wants.",
            histogram(
                {"": health.components},
                xlabel="size of a component, items",
                ylabel="components",
                name="components",
                bins=[0.7 * 2**n for n in range(int(np.log2(health.items)) + 3)],
                log=True,
            ),
        ),
    ]

"""Plots as inline SVG: text stays text, and colours are the page's own, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

# Colours that matplotlib writes out, and what the page puts in their place.
_INK = "#010203"
_SERIES = ("#0a0b01", "#0a0b02", "#0a0b03")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mllmrec",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_IDS = re.compile(r'(id="|url\(#|href="#)')


def histogram(
    series: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    name: str,
    bins: int | Sequence[float] = 30,
    log: bool = False,
) -> Markup:
    """A histogram of one to three series over the same bins, as an <svg> element.

    Args:
        series: values by legend entry; a single series has no legend.
        xlabel, ylabel: with units.
        name: unique on the page; read to those who cannot see the plot, too.
        bins: how many, or their edges.
        log: both axes logarithmic; the bins must then be edges above 0.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    values = {label: np.asarray(given, dtype=np.float64) for label, given in series.items()}
    edges = _edges(list(values.values()), bins)
    with rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 2.6), layout="constrained")
        axes = figure.subplots()
        for (label, given), colour in zip(values.items(), _SERIES, strict=False):
            counts, _ = np.histogram(given, edges)
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.55 if len(values) > 1 else 1, label=label)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            axes.set(xscale="log", yscale="log", ylim=(0.5, None))
        if len(values) > 1:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.2), ncols=len(values))
        return _inline(figure, name)


def _edges(values: Sequence[NDArray[np.float64]], bins: int | Sequence[float]) -> NDArray[np.float64]:
    everything = np.concatenate([*values, np.zeros(0)])
    finite = everything[np.isfinite(everything)]
    if len(finite) == 0:
        finite = np.array([0.0, 1.0])
    edges: NDArray[np.float64] = np.histogram_bin_edges(finite, bins=bins)
    return edges


def _inline(figure: Any, name: str) -> Markup:
    """The figure as an <svg> element whose ids are its own on the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(_INK, "currentColor")
    for n, colour in enumerate(_SERIES, start=1):
        svg = svg.replace(colour, f"var(--series-{n})")
    own = re.sub(r"\W+", "-", name)
    svg = _IDS.sub(lambda match: f"{match.group()}{own}-", svg)
    # Fixed sizes would not shrink on a phone; the view box keeps the proportions.
    tag = re.sub(r' (?:width|height)="[^"]*"', "", svg[: svg.index(">")])
    labelled = tag.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
    return Markup(labelled + svg[svg.index(">") :])  # noqa: S704 - matplotlib has escaped every label in it

"""All plots in one style: inline SVG for pages, SVG and PNG files for studies, training and benches.

Inline plots take the page's own colors, so that they follow light and dark; text stays text. The same figure gives
the same bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import ArrayLike, NDArray

from mllmrec.foundation import storage

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's palette: distinct without telling red from green. The page's CSS has the first four, light and dark.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_SERIES = COLORS[:4]
_DASHES = ("-", "--", ":", "-.")
_INK = "#010203"  # an inline plot's lines and text, which become the page's own
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mllmrec",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,
    "legend.frameon": False,
}
_ON_PAGE = dict.fromkeys(("axes.edgecolor", "axes.labelcolor", "text.color", "xtick.color", "ytick.color"), _INK)
_IDS = re.compile(r'(id="|url\(#|href="#)')
Plot = tuple[str, Markup]  # caption and drawing


@contextmanager
def plot_style(*, page: bool = False) -> Iterator[None]:
    """Draw in the package's style inside the block; `page` leaves colors to the page."""
    from matplotlib import rc_context

    with rc_context(_STYLE | (_ON_PAGE if page else {})):
        yield


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.svg and STEM.png."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    written = []
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        path = stem.with_name(f"{stem.name}.{kind}")
        with storage.atomic(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=160, metadata=metadata)
        written.append(path)
    return written


def training_curve(epochs: Sequence[int], loss: ArrayLike, recall: ArrayLike, best_epoch: int) -> str:
    """Return training loss and validation Recall@20 by epoch, as SVG text.

    Args:
        epochs: counted from 1.
        loss: float [epochs], mean training loss.
        recall: float [epochs], validation Recall@20.
        best_epoch: the chosen epoch, drawn as a line.
    """
    from matplotlib.figure import Figure

    with plot_style():
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        left = figure.subplots()
        right = left.twinx()
        left.plot(epochs, loss, color="tab:gray", label="training loss")
        right.plot(epochs, recall, color=COLORS[0], label="validation Recall@20")
        right.axvline(best_epoch, color=COLORS[0], linestyle=":", linewidth=1)
        left.set(xlabel="epoch", ylabel="training loss (gray)")
        right.set_ylabel("validation Recall@20 (blue)")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def histogram(
    series: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    name: str,
    bins: int | Sequence[float] = 30,
    log: bool = False,
) -> Markup:
    """Return a histogram of one to four series over the same bins, as an <svg> element.

    Args:
        series: values by legend entry; a single series has no legend.
        xlabel, ylabel: with units.
        name: unique on the page; also read to those who cannot see the plot.
        bins: their number, or their edges.
        log: both axes logarithmic; the bins must then be edges above 0.
    """
    from matplotlib.ticker import FuncFormatter, NullFormatter

    values = {label: np.asarray(given, dtype=np.float64) for label, given in series.items()}
    edges = _edges(list(values.values()), bins)
    with _drawing() as (figure, axes):
        for (label, given), color in zip(values.items(), _SERIES, strict=False):
            counts, _ = np.histogram(given, edges)
            axes.stairs(counts, edges, fill=True, color=color, alpha=0.55 if len(values) > 1 else 1, label=label)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if log:
            axes.set(xscale="log", yscale="log", ylim=(0.5, None))
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
                axis.set_minor_formatter(NullFormatter())
        if len(values) > 1:
            figure.legend(loc="outside upper center", ncols=len(values))
        return _inline(figure, name)


def lines(
    series: Mapping[str, tuple[ArrayLike, ArrayLike]],
    *,
    xlabel: str,
    ylabel: str,
    name: str,
    mark: tuple[float, str] | None = None,
) -> Markup:
    """Return lines over one pair of axes, told apart by color and dash.

    Args:
        series: (x, y) by legend entry; a single series without a mark has no legend.
        xlabel, ylabel, name: as of a histogram.
        mark: place of a vertical line, and its legend entry.
    """
    with _drawing() as (figure, axes):
        for n, (label, (x, y)) in enumerate(series.items()):
            look = {"color": _SERIES[n % len(_SERIES)], "linestyle": _DASHES[n // len(_SERIES) % len(_DASHES)]}
            axes.plot(x, y, **look, marker="o" if np.size(x) == 1 else None, label=label)
        if mark:
            axes.axvline(mark[0], color=_INK, linestyle=":", linewidth=1, label=mark[1])
        axes.set(xlabel=xlabel, ylabel=ylabel)
        if len(series) > 1 or mark:
            figure.legend(loc="outside upper center", ncols=3)
        return _inline(figure, name)


def whiskers(rows: Sequence[tuple[str, Sequence[float]]], *, xlabel: str, name: str, zero: bool = False) -> Markup:
    """Return estimates with their intervals, one above the other, the first on top.

    Args:
        rows: label, and (estimate, low, high).
        xlabel, name: as of a histogram.
        zero: draw the line at 0, for differences.
    """
    with _drawing(height=1.0 + 0.3 * len(rows)) as (figure, axes):
        for place, (_, (value, low, high)) in enumerate(rows):
            axes.plot([low, high], [place, place], color=_SERIES[0], linewidth=2, solid_capstyle="butt")
            axes.plot([value], [place], color=_SERIES[0], marker="o", markersize=6)
        if zero:
            axes.axvline(0, color=_INK, linestyle=":", linewidth=1)
        axes.set(xlabel=xlabel, ylim=(len(rows) - 0.5, -0.5))
        axes.set_yticks(range(len(rows)), [label for label, _ in rows])
        axes.tick_params(axis="y", length=0)
        return _inline(figure, name)


def bar_chart(
    groups: Sequence[str],
    series: Mapping[str, Sequence[Sequence[float] | None]],
    *,
    xlabel: str,
    ylabel: str,
    name: str,
) -> Markup:
    """Return bars side by side, one cluster per group.

    Args:
        groups: labels along the axis.
        series: by legend entry, of each group (height,) or (height, low, high), or None if there is none.
        xlabel, ylabel, name: as of a histogram.
    """
    width = 0.8 / max(1, len(series))
    with _drawing() as (figure, axes):
        for n, (label, given) in enumerate(series.items()):
            at = np.arange(len(groups)) + (n - (len(series) - 1) / 2) * width
            heights = [bar[0] if bar else 0.0 for bar in given]
            axes.bar(at, heights, width, color=_SERIES[n % len(_SERIES)], label=label)
            for x, bar in zip(at, given, strict=True):
                if bar and len(bar) == 3:
                    axes.plot([x, x], bar[1:], color=_INK, linewidth=1)
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.set_xticks(range(len(groups)), groups)
        axes.tick_params(axis="x", length=0)
        if len(series) > 1:
            figure.legend(loc="outside upper center", ncols=2 if len(series) > 3 else 3)
        return _inline(figure, name)


@contextmanager
def _drawing(height: float = 2.6) -> Iterator[tuple[Any, Any]]:
    """Give a figure of the page's width (inches) and its axes, in the page's style."""
    from matplotlib.figure import Figure

    with plot_style(page=True):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        yield figure, figure.subplots()


def _edges(values: Sequence[NDArray[np.float64]], bins: int | Sequence[float]) -> NDArray[np.float64]:
    everything = np.concatenate([*values, np.zeros(0)])
    finite = everything[np.isfinite(everything)]
    if len(finite) == 0:
        finite = np.array([0.0, 1.0])
    edges: NDArray[np.float64] = np.histogram_bin_edges(finite, bins=bins)
    return edges


def _inline(figure: Any, name: str) -> Markup:
    """Return the figure as an <svg> element whose ids are its own on the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = svg.replace(_INK, "currentColor")
    for n, color in enumerate(_SERIES, start=1):
        svg = svg.replace(color, f"var(--series-{n})")
    own = re.sub(r"\W+", "-", name)
    svg = _IDS.sub(lambda match: f"{match.group()}{own}-", svg)
    # Fixed sizes would not shrink on a phone; the view box keeps the proportions.
    tag = re.sub(r' (?:width|height)="[^"]*"', "", svg[: svg.index(">")])
    labelled = tag.replace("<svg", f'<svg role="img" aria-label="{escape(name)}"', 1)
    return Markup(labelled + svg[svg.index(">") :])  # noqa: S704 - matplotlib has escaped every label in it

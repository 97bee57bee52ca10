"""The picture of a study, SVG and PNG: curves over one axis, a map over two, intervals where points are just named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mllmrec.evaluation.metrics import short
from mllmrec.experiments.table import Result, Row
from mllmrec.report.figures import COLORS, plot_style, write_figure

_BLUE, _ORANGE, _GREEN = COLORS[:3]
_SCORE = "validation NDCG@20"


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
    """Draw a line a row: its score, with the standard error of its difference to the reference."""
    rows, reference = result.rows, _reference(result)
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
    rows, reference, places = result.rows, _reference(result), range(len(result.rows))
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


def _reference(result: Result) -> Row:
    if result.reference is None:
        raise ValueError(f"{result.name} has no reference row")
    return result.reference


def _seeds(rows: tuple[Row, ...]) -> str:
    return f" and {rows[0].seeds} seeds" if rows[0].seeds > 1 else ""

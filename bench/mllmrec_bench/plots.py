"""Draw a CSV of results: times of peers beside mllmrec's, and the scaling of graph construction.

Each is written as SVG and as PNG. Of lines with the same op, backend, case and metric the last counts; machine
and commit stand below the picture, or how many of them there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mllmrec.report.figures import COLORS, plot_style, write_figure
from mllmrec_bench.results import Result
from mllmrec_bench.scale import OPS as SCALED
from mllmrec_bench.scale import Curve, Fit, Point, curves, fits

_MARKS = "os^Dv<>"


def draw(lines: Sequence[Result], folder: Path) -> list[Path]:
    """Draw a picture of each op with peers, and one of the scaling curves.

    Returns:
        The files written, SVG and PNG of each picture.
    """
    last = list({(line.op, line.backend, line.case, line.metric): line for line in lines}.values())
    written = []
    with plot_style():
        for op in sorted({line.op for line in last if line.metric == "times mllmrec"}):
            written += write_figure(_ratios([line for line in last if line.op == op]), folder / op)
        scaling = [line for line in lines if line.op in SCALED]
        if any(len(points) > 1 for points in curves(scaling, "seconds").values()):
            written += write_figure(_curves(scaling), folder / "scale")
    return written


def _ratios(lines: Sequence[Result]) -> Figure:
    """Draw each peer's time over mllmrec's, case by case."""
    ratios = [line for line in lines if line.metric == "times mllmrec"]
    cases = list(dict.fromkeys(line.case for line in ratios))
    backends = list(dict.fromkeys(line.backend for line in ratios))
    heights = {case: sum(line.case == case for line in ratios) + 1 for case in cases}
    figure = Figure(figsize=(8, 1.2 + 0.28 * sum(heights.values())), layout="constrained")
    axes: Any = figure.add_subplot()
    top, ticks = 0.0, []
    for case in cases:
        own = [line for line in ratios if line.case == case]
        ticks.append(top + (len(own) - 1) / 2)
        for place, line in enumerate(own):
            _bar(axes, top + place, line, COLORS[backends.index(line.backend) % len(COLORS)])
        top += heights[case]
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(ticks, [_wrapped(case) for case in cases])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.15 * max(1.0, *(line.p80 for line in ratios)))
    axes.set_xlabel("time, as a multiple of mllmrec's (median; whiskers: 20th to 80th percentile)")
    axes.set_title(f"{ratios[0].op}: right of the line, mllmrec is faster", loc="left")
    handles = [Patch(color=COLORS[n % len(COLORS)]) for n in range(len(backends))]
    figure.legend(handles, backends, loc="outside lower left", ncols=2, title=_origin(lines))
    return figure


def _bar(axes: Any, place: float, line: Result, color: str) -> None:
    whiskers = [[line.median - line.p20], [line.p80 - line.median]]
    axes.barh(place, line.median, color=color, xerr=whiskers, error_kw={"linewidth": 0.8, "capsize": 2})
    axes.annotate(f"{line.median:.2f}", (max(line.p80, line.median), place), xytext=(4, 0),
                  textcoords="offset points", va="center", fontsize=8)  # fmt: skip


def _wrapped(case: str) -> str:
    words, rows = case.split(" "), [""]
    for word in words:
        if rows[-1] and len(rows[-1]) + len(word) > 26:
            rows.append("")
        rows[-1] = f"{rows[-1]} {word}".strip()
    return "\n".join(rows)


def _curves(lines: Sequence[Result]) -> Figure:
    """Draw time and extra memory over N, with the fitted exponents; a color a method, a mark a width and data."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    extra, fitted = curves(lines, "extra MiB"), fits(lines)
    timed = {curve: points for curve, points in curves(lines, "seconds").items() if len(points) > 1}
    methods = list(dict.fromkeys(curve.method for curve in timed))
    variants = list(dict.fromkeys((curve.d, curve.data, curve.settings) for curve in timed))
    handles, labels = [], []
    for curve, points in timed.items():
        color = COLORS[methods.index(curve.method) % len(COLORS)]
        mark = _MARKS[variants.index((curve.d, curve.data, curve.settings)) % len(_MARKS)]
        handles.append(_curve(panels[0], points, color, mark))
        _line(panels[0], fitted[curve], points, color)
        _curve(panels[1], extra.get(curve, []), color, mark, joined=True)
        labels.append(f"{_short(curve, variants)}: N^{fitted[curve].exponent:.2f}")
    _label(panels)
    figure.suptitle(_shared(variants), x=0.01, ha="left")
    figure.legend(handles, labels, loc="outside lower left", ncols=2, title=_origin(lines), fontsize=8)
    return figure


def _label(panels: Any) -> None:
    for axes, title in zip(panels, ("time of one call (s)", "peak memory beyond input and result (MiB)"), strict=True):
        axes.set(xscale="log", xlabel="items N", ylabel=title)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.tick_params(axis="x", labelrotation=30)
        axes.grid(visible=True, which="major", alpha=0.3)
    panels[0].set(yscale="log", title="Time, with the fitted power of N")
    panels[1].set(ylim=(0, None), title="Memory")


def _short(curve: Curve, variants: Sequence[tuple[int, str, str]]) -> str:
    """Return a curve's name without the parts that all curves share."""
    parts = [f"d={curve.d}", curve.data, curve.settings]
    kept = [part for n, part in enumerate(parts) if len({variant[n] for variant in variants}) > 1]
    return ", ".join([curve.method, *kept])


def _shared(variants: Sequence[tuple[int, str, str]]) -> str:
    """Return the parts that all curves share."""
    first = f"d={variants[0][0]}", variants[0][1], variants[0][2]
    kept = [part for n, part in enumerate(first) if len({variant[n] for variant in variants}) == 1]
    return "Graph construction: " + ", ".join(kept)


def _curve(axes: Any, points: Sequence[Point], color: str, mark: str, *, joined: bool = False) -> Any:
    medians = np.array([point.result.median for point in points], dtype=float)
    below = medians - [point.result.p20 for point in points]
    above = [point.result.p80 for point in points] - medians
    return axes.errorbar(
        [point.n for point in points], medians, yerr=[below, above], color=color, marker=mark, markersize=5,
        linestyle="-" if joined else "none", linewidth=1, capsize=2,
    )  # fmt: skip


def _line(axes: Any, law: Fit, points: Sequence[Point], color: str) -> None:
    ends = np.array([points[0].n, points[-1].n], dtype=float)
    axes.plot(ends, law.seconds_at_one * ends**law.exponent, color=color, linewidth=1)


def _origin(lines: Sequence[Result]) -> str:
    """Return machine and commit of the lines, or their number."""
    machines, commits = (sorted({getattr(line, name) for line in lines}) for name in ("machine", "commit"))
    machine = machines[0] if len(machines) == 1 else f"{len(machines)} machines"
    return f"{machine}; {commits[0] if len(commits) == 1 else f'{len(commits)} commits'}"

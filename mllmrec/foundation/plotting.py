"""What all plots share: one style, one palette, and how a figure becomes files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mllmrec.foundation import storage

# Okabe and Ito's palette: told apart by those who do not see red and green alike.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLE: Any = {
    "svg.hashsalt": "mllmrec",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def write_figure(figure: Figure, stem: Path) -> list[Path]:
    """Write STEM.svg and STEM.png; the same figure gives the same bytes."""
    FigureCanvasAgg(figure)
    written = []
    for kind, metadata in (("svg", {"Date": None}), ("png", {})):
        path = stem.with_name(f"{stem.name}.{kind}")
        with storage.atomic(path) as temporary:
            figure.savefig(temporary, format=kind, dpi=160, metadata=metadata)
        written.append(path)
    return written

"""The learning curve as a picture; the same curve gives the same bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Protocol


class Point(Protocol):
    """What is drawn of an epoch."""

    @property
    def epoch(self) -> int:
        """Counted from 1."""
        ...

    @property
    def loss(self) -> float:
        """Mean training loss."""
        ...

    @property
    def recall(self) -> float:
        """Validation Recall@20."""
        ...


def draw_curve(curve: Sequence[Point], best_epoch: int) -> str:
    """Training loss and validation Recall@20 by epoch, as SVG text."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "mllmrec", "svg.fonttype": "none"}):
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        left = figure.subplots()
        right = left.twinx()
        epochs = [point.epoch for point in curve]
        left.plot(epochs, [point.loss for point in curve], color="tab:gray", label="training loss")
        right.plot(epochs, [point.recall for point in curve], color="tab:blue", label="validation Recall@20")
        right.axvline(best_epoch, color="tab:blue", linestyle=":", linewidth=1)
        left.set(xlabel="epoch", ylabel="training loss (grey)")
        right.set_ylabel("validation Recall@20 (blue)")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()

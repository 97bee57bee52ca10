"""How training went: the curves, the epoch that was chosen, the time an epoch took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from mllmrec.foundation import storage
from mllmrec.report.figures import lines
from mllmrec.runs import stage_file
from mllmrec.views import RunView


@dataclass(frozen=True, slots=True)
class Training:
    """The section, of a model that is trained in epochs.

    Attributes:
        curve: epoch, loss, recall, ndcg: a row an epoch.
        best_epoch: the one that was chosen, counted from 1.
        seconds: mean of an epoch with its validation, None where it is not known.
        plots: caption and plot.
    """

    curve: pl.DataFrame
    best_epoch: int
    seconds: float | None
    plots: Sequence[tuple[str, object]]

    @property
    def best(self) -> dict[str, float]:
        """The chosen epoch's row."""
        return self.curve.row(self.best_epoch - 1, named=True)


def training(view: RunView) -> Training | None:
    """The curves of a run whose train stage is done; None for a model that is solved in closed form."""
    path = stage_file(view.folder, "train", "curve.csv", leaky=view.leaky)
    if not path.is_file():
        return None
    curve = pl.read_csv(path)
    best = int(storage.read_json(stage_file(view.folder, "train", "train.json", leaky=view.leaky))["best_epoch"])
    told = view.record["stages"].get("train", {})
    epochs, seconds = told.get("counts", {}).get("epochs", 0), told.get("seconds", 0.0)
    return Training(curve, best, seconds / epochs if epochs and seconds else None, _plots(curve, best))


def _plots(curve: pl.DataFrame, best: int) -> list[tuple[str, object]]:
    epochs, mark = curve["epoch"].to_numpy(), (float(best), f"chosen: epoch {best}")
    found = {"Recall@20": (epochs, curve["recall"].to_numpy()), "NDCG@20": (epochs, curve["ndcg"].to_numpy())}
    return [
        (
            "On the validation split: training stops where Recall@20 no longer rises.",
            lines(found, xlabel="epoch", ylabel="validation metric", name="validation curves", mark=mark),
        ),
        (
            "The loss on the training pairs.",
            lines(
                {"training loss": (epochs, curve["loss"].to_numpy())},
                xlabel="epoch",
                ylabel="BPR loss, mean of a pair",
                name="training loss",
                mark=mark,
            ),
        ),
    ]

"""One cell: one candidate of one model with one seed, fitted, judged, and kept in one file.

A cell's name is the hash of all that shapes it, so an interrupted comparison, or a larger one in the same
folder, finds what is done. A comparison judges both splits when a cell is made, and the test values lie in the
file; they are read for the chosen candidate alone. A study judges validation, and its cells hold no test value.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray

from mllmrec.config import EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.evaluate import HeldOut, protocol
from mllmrec.foundation import storage
from mllmrec.foundation.memory import PeakMemory
from mllmrec.models.scorer import Scorer

_CUTOFFS = (10, 20)
SHOWN = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")
Values = dict[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a candidate reached.

    Attributes:
        valid, test: metric -> float64 [evaluated users of the split]; `test` is empty in a study's cell.
        seconds: to fit; evaluation is not counted.
        mib: highest resident memory above that at the start, or None where the system does not tell.
        summary: one line of the fitted model.
    """

    valid: Values
    test: Values
    seconds: float
    mib: float | None
    summary: str

    def mean(self, split: str, metric: str) -> float:
        """A metric's mean over the evaluated users; 0 where there is none."""
        values = (self.valid if split == "valid" else self.test)[metric]
        return float(values.mean()) if len(values) else 0.0

    def save(self, file: Path) -> None:
        """Write the one file."""
        frames = [
            pl.DataFrame({"split": np.full(len(values[SHOWN[0]]), split), **values})
            for split, values in (("valid", self.valid), ("test", self.test))
        ]
        notes = {"seconds": self.seconds, "mib": self.mib, "summary": self.summary}
        storage.write_table(file, pl.concat(frames), notes={"cell": json.dumps(notes)})

    @staticmethod
    def load(file: Path) -> Cell:
        """Read it.

        Raises:
            InputError: the file is damaged.
        """
        try:
            table = pl.read_parquet(file)
            notes = json.loads((pq.read_schema(file).metadata or {})[b"cell"])
            valid, test = (
                {name: table.filter(pl.col("split") == split)[name].to_numpy() for name in SHOWN}
                for split in ("valid", "test")
            )
        except (pl.exceptions.PolarsError, OSError, KeyError, ValueError) as error:
            raise InputError(f"the cell {file} is damaged ({error}); remove it to have it computed again") from error
        return Cell(valid, test, notes["seconds"], notes["mib"], notes["summary"])


def keep_cell(
    file: Path, fit: Callable[[Path], tuple[Scorer, str]], judged: Callable[[Scorer], tuple[Values, Values]]
) -> Cell:
    """The cell of that file, fitted and judged where it is not there yet.

    Args:
        file: named by everything that shapes the cell.
        fit: makes the model and its one line, given the file of a checkpoint to go on from.
        judged: the values on validation and on test.
    """
    if file.exists():
        return Cell.load(file)
    memory, started = PeakMemory(), time.perf_counter()
    scorer, summary = fit(file.with_suffix(".unfinished"))
    seconds, mib = time.perf_counter() - started, memory.added_mib()
    cell = Cell(*judged(scorer), round(seconds, 3), mib, summary)
    cell.save(file)
    return cell


def judge(scorer: Scorer, dataset: Dataset, split: HeldOut, config: EvaluateConfig) -> Values:
    """The shown metrics of the evaluated users of one split, by full ranking."""
    heldout, exclude = protocol(dataset, split, config)
    judged = np.flatnonzero(np.diff(heldout.indptr) > 0)
    values = metrics.per_user(scorer.ranks(exclude, heldout), heldout.indptr, _CUTOFFS)
    return {name: values[name][judged] for name in SHOWN}

"""The table that a comparison ends in: means and spread over seeds, and a paired bootstrap of the users."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.evaluation.bootstrap import Interval, mean_interval
from mllmrec.experiments.entries import Candidate, Entry
from mllmrec.experiments.trial import SHOWN, Cell
from mllmrec.foundation import storage

_JUDGED_BY = "ndcg@20"
_NOBODY = Interval(0.0, 0.0, 0.0)  # to compare with


@dataclass(frozen=True, slots=True)
class Row:
    """One model's line.

    Attributes:
        name, title, leaky: of the entry.
        settings: the candidate that validation chose.
        seeds: fitted seeds; 1 where nothing is random.
        valid, means: metric -> mean over users and seeds, on validation and on test.
        spread: metric -> standard deviation over seeds of the test mean; 0 for one seed.
        rival: the row it is compared with: the best honest one by validation NDCG@20; for that one, the second.
        difference, low, high: test NDCG@20 less the rival's, and its 95 % interval over resampled users.
        seconds, mib: median time to fit, and memory that fitting took on top; None where it was not told.
    """

    name: str
    title: str
    leaky: bool
    settings: Candidate
    seeds: int
    valid: Mapping[str, float]
    means: Mapping[str, float]
    spread: Mapping[str, float]
    rival: str
    difference: float
    low: float
    high: float
    seconds: float
    mib: float | None


@dataclass(frozen=True, slots=True)
class Comparison:
    """The whole table.

    Attributes:
        dataset: its name.
        seeds: seeds of each trained model.
        rows: in the order of the entries.
    """

    dataset: str
    seeds: int
    rows: tuple[Row, ...]

    @property
    def best(self) -> Row | None:
        """The honest model that validation puts first."""
        honest = [row for row in self.rows if not row.leaky]
        return max(honest, key=lambda row: row.valid[_JUDGED_BY], default=None)

    def as_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return {"dataset": self.dataset, "seeds": self.seeds, "rows": [asdict(row) for row in self.rows]}

    def save(self, out: Path) -> None:
        """Write comparison.json and comparison.csv."""
        storage.write_json(out / "comparison.json", self.as_dict())
        flat = pl.DataFrame([_flat(row) for row in self.rows])
        text = io.StringIO()
        flat.write_csv(text)
        storage.write_text(out / "comparison.csv", text.getvalue())


def _flat(row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {"name": row.name, "leaky": row.leaky, "settings": " ".join(row.settings)}
    line |= {"seeds": row.seeds}
    line |= {f"valid {name}": value for name, value in row.valid.items()}
    line |= {f"test {name}": value for name, value in row.means.items()}
    line |= {f"spread {name}": value for name, value in row.spread.items()}
    line |= {"rival": row.rival, "difference": row.difference, "low": row.low, "high": row.high}
    return line | {"seconds": row.seconds, "mib": row.mib}


def make_rows(chosen: Mapping[Entry, tuple[Candidate, Sequence[Cell]]]) -> tuple[Row, ...]:
    """A row an entry."""
    by_validation = sorted(
        (entry for entry in chosen if not entry.leaky),
        key=lambda entry: -_mean(chosen[entry][1], "valid", _JUDGED_BY),
    )
    users = {entry: _by_user(cells) for entry, (_, cells) in chosen.items()}
    rows = []
    for entry, (settings, cells) in chosen.items():
        rival = next((other for other in by_validation if other is not entry), None)
        gap = mean_interval(users[entry] - users[rival]) if rival else _NOBODY
        test = {name: [cell.mean("test", name) for cell in cells] for name in SHOWN}
        told = [cell.mib for cell in cells if cell.mib is not None]
        rows.append(
            Row(
                entry.name,
                entry.title.strip(),
                entry.leaky,
                settings,
                len(cells),
                valid={name: _mean(cells, "valid", name) for name in SHOWN},
                means={name: float(np.mean(values)) for name, values in test.items()},
                spread={name: float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for name, v in test.items()},
                rival=rival.name if rival else "",
                difference=gap.value,
                low=gap.low,
                high=gap.high,
                seconds=float(np.median([cell.seconds for cell in cells])),
                mib=float(np.median(told)) if told else None,
            )
        )
    return tuple(rows)


def _mean(cells: Sequence[Cell], split: str, metric: str) -> float:
    return float(np.mean([cell.mean(split, metric) for cell in cells]))


def _by_user(cells: Sequence[Cell]) -> NDArray[np.float64]:
    """A user's test NDCG@20, averaged over seeds; float64 [users]."""
    return np.asarray(np.mean([cell.test[_JUDGED_BY] for cell in cells], axis=0), np.float64)

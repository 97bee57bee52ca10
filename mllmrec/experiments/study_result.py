"""What a study found: a row a point, differences with their standard errors, as CSV and JSON."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.evaluation.metrics import short
from mllmrec.experiments.grids import Point
from mllmrec.experiments.trial import SHOWN, Cell
from mllmrec.foundation import storage
from mllmrec.runs import LEAKY

JUDGED_BY = "ndcg@20"
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Contrast:
    """A difference of two settings and its standard error."""

    difference: float
    error: float

    @property
    def clear(self) -> bool:
        """Whether it is more than two standard errors."""
        return abs(self.difference) > 2 * self.error

    def __str__(self) -> str:
        """+.0123 ± .0020."""
        return f"{short(self.difference, signed=True)} ± {short(self.error)}"

    @staticmethod
    def between(one: Floats, other: Floats) -> Contrast:
        """`one` less `other`, each float64 [seeds, users], paired by seed and user.

        The standard error has two parts, added as variances: that of the mean over users, of differences averaged
        over seeds, and that of the mean over seeds, of differences averaged over users. The second is 0 for one
        seed, which cannot tell of it.
        """
        differences = one - other
        error = np.hypot(_error(differences.mean(axis=0)), _error(differences.mean(axis=1)))
        return Contrast(float(differences.mean()), float(error))


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Connectivity:
    """How an item graph hangs together.

    Attributes:
        items: I.
        edges: entries of A off its diagonal.
        components: weakly connected ones, isolated items among them.
        largest: share of the items in the largest.
        isolated: items without any edge.
    """

    items: int
    edges: int
    components: int
    largest: float
    isolated: int


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One point's line.

    Attributes:
        point: what was set.
        means: metric -> mean over users and seeds, on validation.
        spread: metric -> standard deviation of the mean over seeds; 0 for one seed.
        values: validation NDCG@20, float64 [seeds, users].
        graph: of the item graph, where the study is about it.
        seconds: median time to fit one seed.
    """

    point: Point
    means: Mapping[str, float]
    spread: Mapping[str, float]
    values: Floats
    graph: Connectivity | None
    seconds: float

    @property
    def score(self) -> float:
        """Mean validation NDCG@20."""
        return self.means[JUDGED_BY]

    @property
    def seeds(self) -> int:
        """How many were fitted."""
        return len(self.values)

    def less(self, other: Row) -> Contrast:
        """The difference to another row in validation NDCG@20."""
        return Contrast.between(self.values, other.values)

    @staticmethod
    def of(point: Point, cells: Sequence[Cell], graph: Connectivity | None) -> Row:
        """From the cells of a point, one a seed."""
        by_seed = {name: np.array([cell.mean("valid", name) for cell in cells]) for name in SHOWN}
        return Row(
            point,
            means={name: float(values.mean()) for name, values in by_seed.items()},
            spread={name: float(values.std(ddof=1)) if len(cells) > 1 else 0.0 for name, values in by_seed.items()},
            values=np.array([cell.valid[JUDGED_BY] for cell in cells]),
            graph=graph,
            seconds=float(np.median([cell.seconds for cell in cells])),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The whole of a study.

    Attributes:
        study, dataset: their names.
        rows: in the order of the grid.
        reference: the row that the others are set against.
        sentence: what it means.
    """

    study: str
    dataset: str
    rows: tuple[Row, ...]
    reference: Row
    sentence: str

    @property
    def as_good(self) -> list[bool]:
        """Of each row, whether it lies within one standard error of the reference, or above it."""
        contrasts = [row.less(self.reference) for row in self.rows]
        return [contrast.difference + contrast.error >= 0 for contrast in contrasts]

    @property
    def leaky(self) -> bool:
        """Whether a row of it is."""
        return any(row.point.leaky for row in self.rows)

    @property
    def stem(self) -> str:
        """How its files are called, without their endings."""
        return f"{self.study}.{LEAKY}" if self.leaky else self.study

    def as_dict(self) -> dict[str, Any]:
        """JSON-like."""
        return {
            "study": self.study,
            "dataset": self.dataset,
            "split": "valid",
            "leaky": self.leaky,
            "sentence": self.sentence,
            "reference": self.reference.point.label,
            "rows": [self._as_dict(row) for row in self.rows],
        }

    def _as_dict(self, row: Row) -> dict[str, Any]:
        return {
            "label": row.point.label,
            "settings": list(row.point.settings),
            "leaky": row.point.leaky,
            "seeds": row.seeds,
            "means": dict(row.means),
            "spread": dict(row.spread),
            "to reference": asdict(row.less(self.reference)),
            "graph": asdict(row.graph) if row.graph else None,
            "seconds": row.seconds,
        }

    def save(self, out: Path) -> None:
        """Write STUDY.json and STUDY.csv; a leaky study has LEAKY in their names."""
        storage.write_json(out / f"{self.stem}.json", self.as_dict())
        text = io.StringIO()
        pl.DataFrame([self._flat(row) for row in self.rows]).write_csv(text)
        storage.write_text(out / f"{self.stem}.csv", text.getvalue())

    def _flat(self, row: Row) -> dict[str, Any]:
        contrast = row.less(self.reference)
        line: dict[str, Any] = {"setting": row.point.label, "settings": " ".join(row.point.settings)}
        line |= {"leaky": row.point.leaky, "seeds": row.seeds}
        line |= {f"valid {name}": value for name, value in row.means.items()}
        line |= {f"sd {name}": value for name, value in row.spread.items()}
        line |= {"reference": self.reference.point.label}
        line |= {"difference": contrast.difference, "error": contrast.error}
        return line | (asdict(row.graph) if row.graph else {}) | {"seconds": row.seconds}

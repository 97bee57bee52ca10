"""The results table of an experiment: a row per grid point, paired differences with errors, as CSV and JSON."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.config import LEAKY
from mllmrec.evaluation.evaluate import HeldOut
from mllmrec.evaluation.metrics import Interval, mean_intervals
from mllmrec.experiments.grid import GridPoint
from mllmrec.experiments.judge import JUDGED_BY, SHOWN, Difference
from mllmrec.experiments.trial import Trial
from mllmrec.foundation import storage

Floats = NDArray[np.float64]
_UNKNOWN = Interval(np.nan, np.nan, np.nan)


@dataclass(frozen=True, slots=True)
class Connectivity:
    """The connectivity of an item graph.

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
    """One line: a model of a comparison, or a setting of a study.

    Attributes:
        point: the grid point.
        valid, test: metric -> mean over users and seeds; NaN for a split without values.
        spread: metric -> standard deviation over seeds of the judged split's mean; 0 for one seed.
        values: NDCG@20 of the judged split, float64 [seeds, users].
        seconds, mib: median time to fit, and memory that fitting took on top; None if it is unknown.
        groups: group -> metric -> mean of the test over users and seeds, of the groups that are judged.
        group_values: group -> NDCG@20, float64 [seeds, users of the group].
        trials: fits that led to the row: its grid points and further seeds.
        graph: of the item graph, if the experiment is about it.
        against: name of the row that it is set against; empty if there is none.
        interval: the difference to that row with its 95 % interval over resampled users.
    """

    point: GridPoint
    valid: Mapping[str, float]
    test: Mapping[str, float]
    spread: Mapping[str, float]
    values: Floats
    seconds: float
    mib: float | None
    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    group_values: Mapping[str, Floats] = field(default_factory=dict)
    trials: int = 0
    graph: Connectivity | None = None
    against: str = ""
    interval: Interval = _UNKNOWN

    @property
    def seeds(self) -> int:
        """Return the number of fitted seeds."""
        return len(self.values)

    @property
    def score(self) -> float:
        """Return the mean NDCG@20 of the judged split."""
        return float(self.values.mean()) if self.values.size else float("nan")

    def less(self, other: Row) -> Difference:
        """Return the difference to another row in NDCG@20 of the judged split."""
        return Difference.between(self.values, other.values)

    @staticmethod
    def of(
        point: GridPoint, trials: Sequence[Trial], split: HeldOut, graph: Connectivity | None = None, tried: int = 1
    ) -> Row:
        """Return the row of a grid point.

        Args:
            point: the grid point.
            trials: its trials, one a seed.
            split: the judged split.
            graph: of its item graph.
            tried: grid points that it was chosen from.
        """
        means = {
            part: {name: float(np.mean([trial.mean(part, name) for trial in trials])) for name in SHOWN}
            for part in ("valid", "test")
        }  # fmt: skip
        by_seed = {name: np.array([trial.mean(split, name) for trial in trials]) for name in SHOWN}
        memory = [trial.mib for trial in trials if trial.mib is not None]
        return Row(
            point,
            valid=means["valid"],
            test=means["test"],
            spread={name: float(v.std(ddof=1)) if len(trials) > 1 else 0.0 for name, v in by_seed.items()},
            values=np.array([trial.values(split)[JUDGED_BY] for trial in trials]),
            seconds=float(np.median([trial.seconds for trial in trials])),
            mib=float(np.median(memory)) if memory else None,
            groups={group: _group_means(group, trials) for group in trials[0].groups},
            group_values={g: np.array([trial.groups[g][JUDGED_BY] for trial in trials]) for g in trials[0].groups},
            trials=tried + len(trials) - 1,
            graph=graph,
        )


def _group_means(group: str, trials: Sequence[Trial]) -> dict[str, float]:
    return {name: float(np.mean([trial.groups[group][name].mean() for trial in trials])) for name in SHOWN}


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """The results table of an experiment.

    Attributes:
        name: "comparison", or the study's.
        dataset: its name.
        split: the judged split.
        rows: in the order of the grid.
        reference: the best row of a comparison, or the row that a study's others are set against; None if nobody
            can be judged.
        sentence: the verdict.
    """

    name: str
    dataset: str
    split: HeldOut
    rows: tuple[Row, ...]
    reference: Row | None
    sentence: str

    def require_reference(self) -> Row:
        """Return the row that the others are set against.

        Raises:
            ValueError: there is none.
        """
        if self.reference is None:
            raise ValueError(f"{self.name} has no reference row")
        return self.reference

    @property
    def judged(self) -> bool:
        """Return whether there is a user to judge by."""
        return all(row.values.shape[1] > 0 for row in self.rows)

    @property
    def leaky(self) -> bool:
        """Return whether a row is leaky."""
        return any(row.point.leaky for row in self.rows)

    @property
    def stem(self) -> str:
        """Return the file name without suffix; it contains LEAKY if a row of a study is leaky."""
        return f"{self.name}.{LEAKY}" if self.leaky and self.split == "valid" else self.name

    @property
    def as_good(self) -> list[bool]:
        """Return for each row whether it lies within one standard error of the reference, or above it."""
        if self.reference is None:
            return [False] * len(self.rows)
        differences = [row.less(self.reference) for row in self.rows]
        return [difference.value + difference.error >= 0 for difference in differences]

    def row(self, name: str) -> Row | None:
        """Return the row of that name, or None."""
        return next((row for row in self.rows if row.point.name == name), None)

    def as_dict(self) -> dict[str, Any]:
        """Return the table JSON-like; NaN if nobody is judged."""
        return {
            "name": self.name,
            "dataset": self.dataset,
            "split": self.split,
            "leaky": self.leaky,
            "sentence": self.sentence,
            "reference": self.reference.point.name if self.reference else None,
            "rows": [self._as_dict(row) for row in self.rows],
        }

    def _as_dict(self, row: Row) -> dict[str, Any]:
        other = self.row(row.against)
        difference = row.less(other) if other else Difference(np.nan, np.nan)
        return {
            "name": row.point.name,
            "title": row.point.title or row.point.name,
            "settings": list(row.point.settings),
            "leaky": row.point.leaky,
            "seeds": row.seeds,
            "valid": dict(row.valid),
            "test": dict(row.test) if self.split == "test" else {},
            "spread": dict(row.spread),
            "against": row.against,
            "difference": difference.value,
            "error": difference.error,
            "low": row.interval.low,
            "high": row.interval.high,
            "significant": difference.significant,
            "groups": {group: dict(means) for group, means in row.groups.items()},
            "trials": row.trials,
            "graph": asdict(row.graph) if row.graph else {},
            "seconds": row.seconds,
            "mib": row.mib,
        }

    def save(self, out: Path) -> None:
        """Write NAME.json (null for NaN) and NAME.csv."""
        storage.write_json(out / f"{self.stem}.json", storage.nulled(self.as_dict()))
        text = io.StringIO()
        pl.DataFrame([_flat(self._as_dict(row)) for row in self.rows]).write_csv(text)
        storage.write_text(out / f"{self.stem}.csv", text.getvalue())


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row as cells of a table: "valid ndcg@20" for a nested value."""
    line: dict[str, Any] = {}
    for key, value in row.items():
        if key == "groups":
            line |= {f"{group} {name}": inner for group, means in value.items() for name, inner in means.items()}
        elif isinstance(value, Mapping):
            line |= value if key == "graph" else {f"{key} {name}": inner for name, inner in value.items()}
        else:
            line[key] = " ".join(value) if isinstance(value, list) else value
    return line


def conclude(
    name: str,
    dataset: str,
    split: HeldOut,
    rows: Sequence[Row],
    verdict: Callable[[Result], str],
    *,
    reference: Row | None = None,
    against: str = "",
) -> Result:
    """Return the results table with its differences and its verdict.

    Args:
        name: of the experiment.
        dataset: its name.
        split: the judged split.
        rows: without differences.
        verdict: writes the sentence.
        reference: the row that the others are set against; without it each row's rival is the leak-free row that
            validation puts first, and that row's rival is the second.
        against: the name of a row that takes the first one's place as rival; empty: none does.
    """
    judged = all(row.values.shape[1] for row in rows)
    ranked = sorted((row for row in rows if not row.point.leaky), key=lambda row: -row.valid[JUDGED_BY])
    fixed = [row for row in rows if row.point.name == against]
    rivals = [reference or next((other for other in [*fixed, *ranked] if other is not row), None) for row in rows]
    by_user = np.column_stack([row.values.mean(axis=0) for row in rows])
    of_rivals = np.column_stack([(rival or row).values.mean(axis=0) for row, rival in zip(rows, rivals, strict=True)])
    intervals = mean_intervals(by_user - of_rivals)
    paired = [
        replace(row, against=rival.point.name, interval=interval) if rival and rival is not row else row
        for row, rival, interval in zip(rows, rivals, intervals, strict=True)
    ]
    first = reference or (ranked[0] if ranked else None)
    best = next((new for new, row in zip(paired, rows, strict=True) if row is first), None)
    result = Result(name, dataset, split, tuple(paired), best if judged else None, "")
    return replace(result, sentence=verdict(result))

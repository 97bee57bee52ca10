"""mllmrec compare over splits: one table for each rule, each over several draws of the split.

Each draw is a comparison of its own (compare.py): the same interactions, split anew with the next seed, every model
tuned on that draw's validation. A table has means over draws, their standard deviation, and differences in NDCG@20 with
intervals over users and draws. It has these for all users and for each group. Rules that draw nothing have one draw.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from mllmrec.config import Config, EvaluateConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.splits import COLD_SHARE, RULES, SEEDED, resplit
from mllmrec.errors import InputError, near_miss
from mllmrec.evaluation.evaluate import nobody_to_judge
from mllmrec.evaluation.groups import ALL, GROUPS, SplitTask
from mllmrec.evaluation.metrics import Interval, crossed_intervals, short
from mllmrec.experiments.compare import check_against, compare_models
from mllmrec.experiments.entries import Entry
from mllmrec.experiments.judge import JUDGED_BY, SHOWN
from mllmrec.experiments.table import Result, Row
from mllmrec.features.encode import Features
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent

GIVEN = "given"  # the split that the dataset has


@dataclass(frozen=True, slots=True)
class PooledRow:
    """One model over the draws of a split.

    Attributes:
        name, title: of the model.
        leaky: whether its profiles see held-out interactions.
        settings: chosen on the validation of each draw.
        valid: NDCG@20 on validation, mean over draws.
        test: metric -> mean over draws; NaN if nobody is judged.
        spread: metric -> standard deviation over draws; 0 for one.
        groups: group -> metric -> mean over the draws that judge it.
        trials: fits in all draws.
        seconds: median time to fit.
        mib: highest memory that a fit took on top; None if it is unknown.
        against: the row that it is set against; empty if there is none.
        intervals: group, and ALL -> its NDCG@20 less that row's, over users and draws.
    """

    name: str
    title: str
    leaky: bool
    settings: tuple[tuple[str, ...], ...]
    valid: float
    test: Mapping[str, float]
    spread: Mapping[str, float]
    groups: Mapping[str, Mapping[str, float]]
    trials: int
    seconds: float
    mib: float | None
    against: str
    intervals: Mapping[str, Interval]


@dataclass(frozen=True, slots=True)
class SplitTable:
    """The comparison by one rule of splitting.

    Attributes:
        rule: random, user-time, ..., or "given".
        dataset: its name.
        seeds: the seed of each draw; None if nothing is drawn.
        users: users of the test split, by draw.
        rows: in the order of the grid.
        sentence: the verdict.
    """

    rule: str
    dataset: str
    seeds: tuple[int | None, ...]
    users: tuple[int, ...]
    rows: tuple[PooledRow, ...]
    sentence: str

    @property
    def groups(self) -> list[str]:
        """Return the groups with at least one judged user."""
        return [group for group in GROUPS if any(group in row.groups for row in self.rows)]

    def as_dict(self) -> dict[str, Any]:
        """Return the table JSON-like; NaN if nobody is judged."""
        return asdict(self)

    def save(self, out: Path) -> None:
        """Write RULE.json (null for NaN) and RULE.csv."""
        storage.write_json(out / f"{self.rule}.json", storage.nulled(self.as_dict()))
        text = io.StringIO()
        pl.DataFrame([_flat(row) for row in self.rows]).write_csv(text)
        storage.write_text(out / f"{self.rule}.csv", text.getvalue())


def check_rules(rules: Sequence[str]) -> None:
    """Refuse a rule that does not exist, and a rule that is named twice.

    Raises:
        InputError: there is one.
    """
    known = (*RULES, GIVEN)
    for rule in rules:
        if rule not in known:
            raise InputError(f"there is no split {rule!r}{near_miss(rule, known)}; there are {', '.join(known)}")
    if len(set(rules)) < len(rules):
        raise InputError(f"--split names a split twice: {', '.join(rules)}")


def compare_splits(
    dataset: Dataset,
    out: Path,
    config: Config,
    entries: Sequence[Entry],
    rules: Sequence[str],
    *,
    draws: int = 1,
    cold_share: float = COLD_SHARE,
    seeds: int = 3,
    generations: Path | None = None,
    progress: Progress = silent,
    against: str = "",
) -> list[SplitTable]:
    """Compare models on several splits of a dataset, or go on with an interrupted comparison in the same folder.

    Args:
        dataset: a prepared dataset; its own split is "given".
        out: folder: RULE.json, RULE.csv, and RULE/draw-SEED/ as `compare_models` has it.
        config: the start of all grid points; the seeds of draws and of models count up from its seed.
        entries: the models to compare.
        rules: of splits.RULES, or "given".
        draws: splits of each rule that draws, at least 1.
        cold_share: of the items that `cold-items` hides for the test, and as many for validation.
        seeds: seeds of each trained model in each draw, at least 1.
        generations: cache of the reasoning stages; the user's own by default.
        progress: called after each trial.
        against: the model that the others are set against; empty: the one that validation puts first.

    Raises:
        InputError: there is no such rule, the dataset has no times for it, or `against` is not compared.
        ConfigError: the config itself is leaky.
        TrainingError: no user has both a training and a validation interaction.
    """
    check_rules(rules)
    check_against(against, entries)
    tables, encoded = [], dict[str, Features]()
    for rule in rules:
        drawn = range(config.seed, config.seed + draws) if rule in SEEDED else (config.seed,)
        parts = [dataset if rule == GIVEN else resplit(dataset, rule, seed, cold_share) for seed in drawn]
        results = [
            compare_models(
                part,
                out / rule / f"draw-{seed}",
                config,
                entries,
                seeds=seeds,
                generations=generations,
                progress=progress,
                encoded=encoded,
                against=against,
            )
            for seed, part in zip(drawn, parts, strict=True)
        ]
        table = pool(rule, list(drawn) if rule in SEEDED else [None], parts, results, against)
        table.save(storage.make_folder(out))
        tables.append(table)
    return tables


def pool(
    rule: str,
    seeds: Sequence[int | None],
    datasets: Sequence[Dataset],
    results: Sequence[Result],
    against: str = "",
) -> SplitTable:
    """Return the table over the draws of one rule.

    Args:
        rule: its name.
        seeds: of each draw.
        datasets: the split of each draw.
        results: the comparison of each draw, with the same rows.
        against: the model that the others are set against; empty: the one that validation puts first.
    """
    users = [_judged_users(dataset) for dataset in datasets]
    by_model = [[result.rows[n] for result in results] for n in range(len(results[0].rows))]
    valid = [float(np.mean([row.valid[JUDGED_BY] for row in rows])) for rows in by_model]
    free = [n for n, rows in enumerate(by_model) if not rows[0].point.leaky]
    ranked = sorted(free, key=lambda n: -valid[n])
    fixed = [n for n, rows in enumerate(by_model) if rows[0].point.name == against]
    rivals = [next((other for other in [*fixed, *ranked] if other != n), None) for n in range(len(by_model))]
    differences = _differences(users, by_model, rivals)
    names = ["" if rival is None else by_model[rival][0].point.name for rival in rivals]
    rows = tuple(_pooled(own, valid[n], names[n], differences[n]) for n, own in enumerate(by_model))
    counts = tuple(len(draw[ALL]) for draw in users)
    best = rows[ranked[0]] if ranked and any(counts) else None
    return SplitTable(rule, results[0].dataset, tuple(seeds), counts, rows, _sentence(best, rows, len(results)))


def _judged_users(dataset: Dataset) -> dict[str, NDArray[np.int64]]:
    """Return the users of each group of the test split, ascending, as trials hold their values."""
    task = SplitTask.of(dataset, "test", EvaluateConfig())
    return {group: task.judged_users(group) for group in (ALL, *GROUPS)}


def _values(row: Row, group: str) -> NDArray[np.float64]:
    """Return NDCG@20 of the users of a group, averaged over seeds."""
    values = row.values if group == ALL else row.group_values.get(group, np.empty((1, 0)))
    return np.asarray(values.mean(axis=0))


def _differences(
    users: Sequence[Mapping[str, NDArray[np.int64]]], by_model: Sequence[Sequence[Row]], rivals: Sequence[int | None]
) -> list[dict[str, Interval]]:
    """Return for each model the intervals of its difference to its rival, by group; empty without a rival."""
    pairs = [(n, rival) for n, rival in enumerate(rivals) if rival is not None]
    found: list[dict[str, Interval]] = [{} for _ in rivals]
    for group in (ALL, *GROUPS) if pairs else ():
        draws = []
        for d, judged in enumerate(users):
            gaps = [_values(by_model[n][d], group) - _values(by_model[rival][d], group) for n, rival in pairs]
            draws.append((judged[group], np.column_stack(gaps)))
        for (n, _), interval in zip(pairs, crossed_intervals(draws), strict=True):
            found[n][group] = interval
    return found


def _pooled(rows: Sequence[Row], valid: float, against: str, intervals: Mapping[str, Interval]) -> PooledRow:
    tests = {name: np.array([row.test[name] for row in rows]) for name in SHOWN}
    memory = [row.mib for row in rows if row.mib is not None]
    groups = {}
    for group in GROUPS:
        judged = [row.groups[group] for row in rows if group in row.groups]
        if judged:
            groups[group] = {name: float(np.mean([means[name] for means in judged])) for name in SHOWN}
    return PooledRow(
        name=rows[0].point.name,
        title=rows[0].point.title or rows[0].point.name,
        leaky=rows[0].point.leaky,
        settings=tuple(row.point.settings for row in rows),
        valid=valid,
        test={name: float(values.mean()) for name, values in tests.items()},
        spread={name: float(values.std(ddof=1)) if len(values) > 1 else 0.0 for name, values in tests.items()},
        groups=groups,
        trials=sum(row.trials for row in rows),
        seconds=float(np.median([row.seconds for row in rows])),
        mib=max(memory) if memory else None,
        against=against,
        intervals=intervals,
    )


def _sentence(best: PooledRow | None, rows: Sequence[PooledRow], draws: int) -> str:
    if best is None:
        return f"No model is best: {nobody_to_judge('test')}, or every model is LEAKY."
    over = f" over {draws} draws" if draws > 1 else ""
    head = f"Best on validation{over}: {best.title}, test NDCG@20 {short(best.test[JUDGED_BY])}."
    rival = next((row for row in rows if row.name == best.against), None)
    if rival is None:
        return f"{head} It is the only leak-free model that was compared."
    gap = best.intervals[ALL]
    doubt = "" if gap.low > 0 or gap.high < 0 else ", which is not significant"
    return f"{head} Less {rival.title} ({short(rival.test[JUDGED_BY])}): {gap.signed}{doubt}."


def _flat(row: PooledRow) -> dict[str, Any]:
    """Return a row as cells of a table."""
    cells: dict[str, Any] = {
        "name": row.name, "title": row.title, "leaky": row.leaky,
        "settings": " | ".join(" ".join(settings) for settings in row.settings), "valid ndcg@20": row.valid,
    }  # fmt: skip
    cells |= {f"test {name}": value for name, value in row.test.items()}
    cells |= {f"sd {name}": value for name, value in row.spread.items()}
    for group in GROUPS:
        means = row.groups.get(group, dict.fromkeys(SHOWN, float("nan")))
        cells |= {f"{group} {name}": value for name, value in means.items()}
    for group in (ALL, *GROUPS):
        gap = row.intervals.get(group, Interval(np.nan, np.nan, np.nan))
        cells |= {f"{group} difference": gap.value, f"{group} low": gap.low, f"{group} high": gap.high}
    return cells | {"against": row.against, "trials": row.trials, "seconds": row.seconds, "mib": row.mib}

"""mllmrec compare: every model fitted, tuned and evaluated the same way.

1. the inputs (features, graph) come from the ordinary stages, once, into OUT/inputs
2. each point of each model's grid is fitted with the first seed
3. the best by validation NDCG@20 is chosen; its other seeds are fitted
4. test values are read for the chosen point, averaged over seeds user by user
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mllmrec.config import Config, override
from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, InputError, near_miss
from mllmrec.experiments import verdict
from mllmrec.experiments.entries import Entry
from mllmrec.experiments.grid import GridPoint
from mllmrec.experiments.judge import JUDGED_BY, check_validation
from mllmrec.experiments.table import Result, Row, conclude
from mllmrec.experiments.trial import Inputs, Trial, Trials
from mllmrec.features.encode import Features
from mllmrec.foundation.progress import Progress, silent


def compare_models(
    dataset: Dataset,
    out: Path,
    config: Config,
    entries: Sequence[Entry],
    *,
    seeds: int = 3,
    generations: Path | None = None,
    progress: Progress = silent,
    encoded: dict[str, Features] | None = None,
    against: str = "",
) -> Result:
    """Compare models on a dataset, or go on with an interrupted comparison in the same folder.

    Args:
        dataset: a prepared dataset.
        out: folder of the comparison: inputs/, cells/, comparison.csv, comparison.json.
        config: the start of all grid points; seeds count up from its seed.
        entries: the models to compare.
        seeds: seeds of each trained model, at least 1.
        generations: cache of the reasoning stages; the user's own by default.
        progress: told after each trial.
        encoded: features that comparisons on other splits share; see Trials.
        against: the model that the others are set against; empty: the one that validation puts first.

    Raises:
        ConfigError: the config itself is leaky.
        InputError: `against` is not compared.
        TrainingError: no user has both a training and a validation interaction.
    """
    if config.leaky:
        raise ConfigError('compare has a leaky entry of its own; set profile.history back to "train"')
    check_against(against, entries)
    check_validation(dataset)
    trials = Trials(dataset, out, ("valid", "test"), generations, progress, encoded)
    inputs = _inputs(trials, entries, config, progress)
    more = sum(seeds - 1 for entry in entries if entry.fitting == "trained")
    trials.expect("compare, trials", sum(len(entry.grid) for entry in entries) + more)
    rows = [_tune(entry, trials, inputs, config, seeds) for entry in entries]
    result = conclude("comparison", dataset.name, "test", rows, verdict.comparison, against=against)
    result.save(out)
    return result


def check_against(against: str, entries: Sequence[Entry]) -> None:
    """Refuse to set models against one that is not compared.

    Raises:
        InputError: it is not among them.
    """
    names = [entry.name for entry in entries]
    if against and against not in names:
        raise InputError(
            f"--against {against}{near_miss(against, names)}: it is not compared; there are {', '.join(names)}"
        )


def _inputs(trials: Trials, entries: Sequence[Entry], config: Config, progress: Progress) -> Inputs:
    """Return the features that some entry reads, and say what is not made."""
    reads: frozenset[str] = frozenset().union(*(entry.reads for entry in entries))
    if not reads & {"items", "users", "graph"}:
        progress("no describe, profile, encode: no chosen model reads item or user vectors", 1, 1)
        return trials.no_inputs()
    if "users" not in reads and config.profile.kind != "mean":
        progress("no profiles: no chosen model reads user vectors", 1, 1)
        config = override(config, ["profile.kind=mean"])
    return trials.inputs(config)


def _tune(entry: Entry, trials: Trials, inputs: Inputs, config: Config, seeds: int) -> Row:
    """Return the row of an entry's best grid point on validation."""
    if entry.leaky:
        inputs = trials.leaky_inputs(inputs)
    baseline = entry.title if entry.fitting == "baseline" else ""

    def run(settings: tuple[str, ...], seed: int) -> Trial:
        return trials.run(override(config, settings), inputs, seed, baseline=baseline, leaky=entry.leaky)

    tried = [run(settings, config.seed) for settings in entry.grid]
    best = int(np.argmax([trial.mean("valid", JUDGED_BY) for trial in tried]))  # of equal ones the first
    more = range(config.seed + 1, config.seed + seeds) if entry.fitting == "trained" else ()
    chosen = [tried[best], *(run(entry.grid[best], seed) for seed in more)]
    point = GridPoint(entry.name, entry.grid[best], title=entry.title.strip(), leaky=entry.leaky)
    return Row.of(point, chosen, "test", tried=len(tried))

"""Our baselines beside those of `implicit`, on one dataset and split, by one ranking.

    make baselines DATA=folder  # a prepared dataset, or a folder that `mllmrec prepare` reads

Item-kNN, iALS and BPR-MF. Each side has nine settings to choose from by validation NDCG@20 with the first seed: ours
are the grids of `mllmrec compare`, theirs (bench/implicit_models.py) hold the best of wider searches on three data
sets. What is chosen is judged on test, averaged over `--seeds` user by user. Exit code 1 where one of ours is weaker:
where the 95 % interval of ours less theirs, users resampled, lies below 0 in Recall@20 or in NDCG@20.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from mllmrec_bench.peers.case import library
from mllmrec_bench.timing import is_installed
from mllmrec_cli import console
from numpy.typing import NDArray

from bench.implicit_models import ALL, GRIDS, Options, fit_theirs
from bench.reproduce import FIRST_SEED, METRICS, of_ids_alone
from mllmrec.config import EvaluateConfig, load_config
from mllmrec.dataset import Dataset, PrepareOptions, load, prepare
from mllmrec.errors import MllmrecError
from mllmrec.evaluation import metrics
from mllmrec.evaluation.evaluate import HeldOut, protocol
from mllmrec.evaluation.groups import ALL as ALL_USERS
from mllmrec.evaluation.groups import ItemRanker
from mllmrec.evaluation.metrics import Interval, mean_interval, short
from mllmrec.experiments import choose_entries
from mllmrec.experiments.judge import SHOWN, Values
from mllmrec.experiments.trial import Trial, keep_trial
from mllmrec.foundation.digests import hash_value
from mllmrec.foundation.storage import make_folder
from mllmrec.models.fitting import fit_model

_CUTOFFS = (10, 20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, fit both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a prepared dataset, or a folder to prepare")
    parser.add_argument("--split-column", help="of a folder to prepare: the column that holds a given split")
    parser.add_argument("--out", type=Path, default=Path("baselines"), help="what is prepared and fitted is kept there")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of what validation chose, from 999 on")
    parser.add_argument("--models", nargs="+", choices=tuple(GRIDS), default=list(GRIDS))
    options = parser.parse_args(arguments)
    if not options.data.is_dir():
        print(f"baselines: there is no folder {options.data}; nothing was fitted. Name it: make baselines DATA=folder")
        return 0
    if not is_installed("implicit"):
        print("baselines: implicit is not installed, so there is nothing to stand beside: pip install implicit")
        return 0
    try:
        sides = Sides(
            _dataset(options.data, options.out, options.split_column),
            make_folder(options.out / "cells"),
            max(1, options.seeds),
        )
        pairs = [sides.pair(name) for name in options.models]
    except MllmrecError as error:
        print(f"baselines: {error}", file=sys.stderr)
        return 1
    _print(sides.dataset.name, pairs)
    return 1 if any(pair.weaker for pair in pairs) else 0


def _dataset(data: Path, out: Path, split_column: str | None) -> Dataset:
    prepared = out / f"dataset-{hash_value([str(data.resolve()), split_column])[:16]}"
    for folder in (data, prepared):
        if (folder / "manifest.json").exists():
            return load(folder)
    return prepare(data, prepared, PrepareOptions(split_column=split_column))


@dataclass(frozen=True, slots=True)
class Side:
    """The setting that validation chose, and what it reached, a trial per seed."""

    settings: str
    trials: Sequence[Trial]

    def by_user(self, metric: str) -> NDArray[np.float64]:
        """A user's test value, averaged over seeds; float64 [users]."""
        return np.asarray(np.mean([trial.test[metric] for trial in self.trials], axis=0), np.float64)


@dataclass(frozen=True, slots=True)
class Pair:
    """A baseline of ours beside theirs.

    Attributes:
        title: as `mllmrec compare` prints it.
        ours, theirs: what validation chose of each.
    """

    title: str
    ours: Side
    theirs: Side

    def gap(self, metric: str) -> Interval:
        """Ours less theirs on test, with its interval."""
        return mean_interval(self.ours.by_user(metric) - self.theirs.by_user(metric))

    @property
    def weaker(self) -> bool:
        """Whether ours is, beyond chance, in one of the metrics."""
        return any(self.gap(metric).high < 0 for metric in METRICS)


class Sides:
    """Both sides on one dataset; what is fitted is kept, so that a stopped run goes on."""

    def __init__(self, dataset: Dataset, folder: Path, seeds: int) -> None:
        self.dataset, self._folder, self._seeds = dataset, folder, range(FIRST_SEED, FIRST_SEED + seeds)
        self._training, self._nothing = dataset.histories(), of_ids_alone(dataset)

    def pair(self, name: str) -> Pair:
        """Fit both sides of the baseline of that name in `mllmrec compare`."""
        (entry,) = choose_entries([name])
        seeds = self._seeds if entry.fitting == "trained" else self._seeds[:1]
        ours = {_short(settings): partial(self._ours, settings) for settings in entry.grid}
        theirs = {_named(kind, options): partial(self._theirs, kind, options) for kind, options in GRIDS[name]}
        return Pair(entry.title, _choose(ours, seeds), _choose(theirs, seeds))

    def _ours(self, settings: Sequence[str], seed: int) -> Trial:
        config = load_config(None, settings)

        def fit(checkpoint: Path) -> tuple[ItemRanker, str]:
            fitted = fit_model(
                *self._nothing, self._training, self.dataset.matrix("valid"), config.model, config.train,
                seed=seed, checkpoint=checkpoint,
            )  # fmt: skip
            return fitted, fitted.summary

        model, train = config.model, config.train
        return self._kept({"model": model.identity(), "train": train.identity(model.kind)}, seed, fit)

    def _theirs(self, kind: str, options: Options, seed: int) -> Trial:
        shape = {"implicit": library("implicit").__version__, "kind": kind, "options": options}
        return self._kept(
            shape, seed, lambda _: (fit_theirs(kind, options, self._training, self._validated, seed), kind)
        )

    def _validated(self, scorer: ItemRanker) -> float:
        return float(self._evaluated(scorer, "valid")["ndcg@20"].mean())

    def _kept(self, shape: Mapping[str, Any], seed: int, fit: Callable[[Path], tuple[ItemRanker, str]]) -> Trial:
        name = hash_value({"seed": seed, "split": self.dataset.split_digest, **shape})
        return keep_trial(
            self._folder / f"{name[:32]}.parquet",
            fit,
            lambda scorer, split: {ALL_USERS: self._evaluated(scorer, split)},
        )

    def _evaluated(self, scorer: ItemRanker, split: HeldOut) -> Values:
        heldout, exclude = protocol(self.dataset, split, EvaluateConfig())
        ranks = scorer.ranks(exclude, heldout, limit=max(_CUTOFFS))
        values = metrics.per_user(ranks, heldout.indptr, _CUTOFFS)
        return {name: values[name][np.diff(heldout.indptr) > 0] for name in SHOWN}


def _choose(grid: Mapping[str, Callable[[int], Trial]], seeds: range) -> Side:
    """The best by validation NDCG@20 with the first seed, of equal ones the first; then with the other seeds."""
    tried = {name: run(seeds[0]) for name, run in grid.items()}
    best = max(tried, key=lambda name: tried[name].mean("valid", "ndcg@20"))
    return Side(best, [tried[best], *(grid[best](seed) for seed in seeds[1:])])


def _short(settings: Sequence[str]) -> str:
    return " ".join(setting.partition(".")[2] for setting in settings if not setting.startswith("model.kind"))


def _named(kind: str, options: Options) -> str:
    kinds = [kind.removesuffix("Recommender")] if kind.endswith("Recommender") else []
    return " ".join([*kinds, *(f"{key}={'all' if value == ALL else value}" for key, value in options.items())])


def _print(dataset: str, pairs: Sequence[Pair]) -> None:
    columns = ("baseline", "of", "chosen on validation", "N@20 valid", "R@20 test", "N@20 test")
    rows = [_row(pair.title, of, side) for pair in pairs for of, side in (("ours", pair.ours), ("", pair.theirs))]
    most = max(len(pair.ours.trials) for pair in pairs)
    title = f"{dataset}: full ranking; validation of the first seed, test as the mean of {most}"
    console.out.print(console.table(title, columns, rows, words=3))
    for pair in pairs:
        gaps = "; ".join(f"{metric} {pair.gap(metric).signed}" for metric in METRICS)
        console.say(f"{pair.title}: ours is {'WEAKER' if pair.weaker else 'not weaker'}: {gaps}")


def _row(title: str, of: str, side: Side) -> tuple[str, ...]:
    reached = side.trials[0].mean("valid", "ndcg@20"), *(float(side.by_user(metric).mean()) for metric in METRICS)
    return title if of else "", of or "implicit", side.settings, *map(short, reached)


if __name__ == "__main__":
    sys.exit(main())

"""Trials: one grid point with one seed, fitted, evaluated, and kept in one file.

A trial's file is named by the hash of all that shapes it. An interrupted experiment, or a larger one in the same
folder, reads what is done. The features of a trial come from the ordinary stages, once for all trials with the same
reasoning, in OUT/inputs. Only the splits that an experiment judges by are read: a study never reads the test split.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import polars as pl
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from mllmrec.config import LEAKY, Config, GraphConfig
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import InputError, first_line
from mllmrec.evaluation.evaluate import SPLITS, HeldOut, Ranker
from mllmrec.evaluation.groups import ALL, GROUPS, ItemRanker
from mllmrec.experiments.judge import SHOWN, Values, evaluate_groups
from mllmrec.features.encode import Cuts, Features, mean_of_items
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import open_foreign
from mllmrec.foundation.memory import PeakMemory
from mllmrec.foundation.progress import Progress
from mllmrec.foundation.tables import read_table
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models import registry
from mllmrec.models.baselines import baselines
from mllmrec.models.fitting import fit_model
from mllmrec.pipeline import run

_VERSION = 3  # of what a trial holds and how it is computed
_FOLDER = "cells"  # on disk; experiments of earlier versions have it, too
_COLUMNS = {"split": pl.String(), **dict.fromkeys(SHOWN, pl.Float64())}
M = TypeVar("M", bound=ItemRanker)


@dataclass(frozen=True, slots=True)
class Trial:
    """The result of one grid point with one seed.

    Attributes:
        valid, test: metric -> float64 [evaluated users of the split]; empty for a split that is not judged by.
        seconds: time to fit; evaluation is not counted.
        mib: highest resident memory above that at the start, or None if the system does not tell.
        summary: one line of the fitted model.
        groups: group -> metric -> float64 [users of the test split who are judged in it]; empty if none is judged.
    """

    valid: Values
    test: Values
    seconds: float
    mib: float | None
    summary: str
    groups: Mapping[str, Values] = field(default_factory=dict)

    def values(self, split: HeldOut) -> Values:
        """Return the values of one split."""
        return self.valid if split == "valid" else self.test

    def mean(self, split: HeldOut, metric: str) -> float:
        """Return a metric's mean over the evaluated users; NaN if there is none."""
        values = self.values(split)[metric]
        return float(values.mean()) if len(values) else float("nan")

    def save(self, file: Path) -> None:
        """Write the one file."""
        parts = {"valid": self.valid, "test": self.test}
        parts |= {f"test {group}": values for group, values in self.groups.items()}
        frames = [
            pl.DataFrame({"split": np.full(len(values[SHOWN[0]]), name, dtype=object), **values}, schema=_COLUMNS)
            for name, values in parts.items()
        ]
        notes = {"seconds": self.seconds, "mib": self.mib, "summary": self.summary}
        storage.write_table(file, pl.concat(frames), notes={"cell": json.dumps(notes)})

    @staticmethod
    def load(file: Path) -> Trial:
        """Read what save wrote.

        Raises:
            InputError: the file is damaged.
        """
        try:
            table = read_table(file, _COLUMNS)
            notes = _Notes.model_validate_json((pq.read_schema(file).metadata or {})[b"cell"])
            valid, test, *others = (
                {name: table.filter(pl.col("split") == split)[name].to_numpy() for name in SHOWN}
                for split in (*SPLITS, *(f"test {group}" for group in GROUPS))
            )
            groups = {group: values for group, values in zip(GROUPS, others, strict=True) if len(values[SHOWN[0]])}
        except (pl.exceptions.PolarsError, OSError, KeyError, ValueError, InputError) as error:
            raise InputError(
                f"the trial {file} is damaged ({first_line(error)}); remove it to have it computed again"
            ) from error
        return Trial(valid, test, notes.seconds, notes.mib, notes.summary, groups)


class _Notes(BaseModel):
    """Hold what a trial's file says beside its table."""

    model_config = ConfigDict(strict=True)
    seconds: float
    mib: float | None
    summary: str


@dataclass(frozen=True)
class Inputs:
    """Features and graphs that trials with the same reasoning share.

    Attributes:
        features: vectors of items and users.
        profiled: the histories that the user vectors were made from.
        digest: of vectors, training interactions and the judged splits.
        graph: builds the item graph of a config, once.
    """

    features: Features
    profiled: Histories
    digest: str
    graph: Callable[[GraphConfig], ItemGraph]


class Trials:
    """The trials of one experiment folder.

    Args:
        dataset: a prepared dataset.
        out: folder of the experiment.
        splits: the splits that are judged by.
        generations: cache of the reasoning stages; the user's own by default.
        progress: told after each trial, and by each stage and fit.
        encoded: features by the settings that made them, of other splits of the dataset: where users are means of
            their items, the items are not encoded again. What is encoded here is added; None: nothing is shared.
    """

    def __init__(
        self, dataset: Dataset, out: Path, splits: Sequence[HeldOut], generations: Path | None, progress: Progress,
        encoded: dict[str, Features] | None = None,
    ) -> None:  # fmt: skip
        storage.make_folder(out)
        open_foreign(out, lambda _: ())  # trials that are there are read, and others written beside them
        storage.make_folder(out / _FOLDER)
        self._dataset, self._out, self._splits = dataset, out, tuple(splits)
        self._generations, self._progress = generations, progress
        self._inputs: dict[str, Inputs] = {}
        self._encoded = {} if encoded is None else encoded
        self._label, self._done, self._total = "trials", 0, 0
        self.training, self._valid = dataset.histories("train"), dataset.matrix("valid")

    def expect(self, label: str, total: int) -> None:
        """Announce how many trials the experiment has, for its progress."""
        self._label, self._total = label, total
        self._progress(label, 0, total)

    def inputs(self, config: Config) -> Inputs:
        """Return the features of a config, by the ordinary stages in a run folder of their own."""
        stages = config.model_dump(mode="json", include={"describe", "profile", "encode", "transformers", "server"})
        name = digests.hash_value(stages)[:16] + (f".{LEAKY}" if config.leaky else "")
        if name not in self._inputs:
            histories = self._dataset.histories(config.profile.history)
            self._inputs[name] = self._inputs_of(self._features(name, config, histories), histories)
        return self._inputs[name]

    def _features(self, name: str, config: Config, histories: Histories) -> Features:
        """Return the features of a config, whose stages have a folder of that name."""
        shared = self._encoded.get(name)
        if shared is not None and config.profile.kind == "mean":
            self._progress("no encode: the items' vectors are those of another draw", 1, 1)
            return replace(shared, users=mean_of_items(shared.items, histories), histories=histories.digest)
        where, cache = self._out / "inputs" / name, self._generations
        stages = run(self._dataset, where, config, until="encode", cache=cache, progress=self._progress)
        self._encoded[name] = stages.encode
        return stages.encode

    def no_inputs(self) -> Inputs:
        """Return features that say nothing, for models that read only interactions."""
        items, users = (np.zeros((n, 1), np.float32) for n in (self._dataset.n_items, self._dataset.n_users))
        return self._inputs_of(Features(items, users, self.training.digest, Cuts(0, 0, 0, 0)), self.training)

    def leaky_inputs(self, inputs: Inputs) -> Inputs:
        """Return the paper's leak: users are the mean of all their items, held-out ones too."""
        everything = self._dataset.histories("all")
        users = mean_of_items(inputs.features.items, everything)
        features = Features(inputs.features.items, users, everything.digest, inputs.features.cuts)
        return self._inputs_of(features, everything)

    def _inputs_of(self, features: Features, profiled: Histories) -> Inputs:
        @cache
        def graph(config: GraphConfig) -> ItemGraph:
            return build_graph(features.items, self.training, config)

        return Inputs(features, profiled, self._digest(features), graph)

    def _digest(self, features: Features) -> str:
        """Return the hash of all data behind a trial: vectors, interactions of the splits that are read, times."""
        times = self.training.times
        heldout = [part for split in self._splits for part in self._matrix_parts(split)]
        arrays = [features.items, features.users, *heldout, *([] if times is None else [times])]
        hashes = [digests.hash_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays]
        return digests.hash_value({"histories": self.training.digest, "arrays": hashes})

    def _matrix_parts(self, split: HeldOut) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        matrix = self._dataset.matrix(split)
        return matrix.indptr, matrix.indices

    def run(self, config: Config, inputs: Inputs, seed: int, *, baseline: str = "", leaky: bool = False) -> Trial:
        """Return one trial; fit and evaluate it if its file is missing.

        Args:
            config: the grid point's.
            inputs: its features and graphs.
            seed: of the fit.
            baseline: the name of an untrained baseline, in place of config.model.
            leaky: mark the file.
        """
        shape = {
            "version": _VERSION,
            "data": inputs.digest,
            "baseline": baseline,
            "model": config.model.identity(),
            "train": config.train.identity(config.model.kind),
            "graph": config.graph.identity(),
            "protocol": config.evaluate.mask_validation,
            "seed": seed,
        }
        mark = f".{LEAKY}" if leaky else ""
        trial = keep_trial(
            self._out / _FOLDER / f"{digests.hash_value(shape)[:32]}{mark}.parquet",
            lambda checkpoint: self._fit(config, inputs, seed, baseline, checkpoint),
            lambda model, split: evaluate_groups(model, self._dataset, split, config.evaluate, self._progress),
            self._splits,
        )
        self._done += 1
        self._progress(self._label, self._done, max(self._total, self._done))
        return trial

    def _fit(self, config: Config, inputs: Inputs, seed: int, baseline: str, checkpoint: Path) -> tuple[Ranker, str]:
        if baseline:
            return baselines(inputs.features.items, self.training.user_items())[baseline], baseline
        graph = inputs.graph(config.graph) if "graph" in registry.reads(config.model.kind) else None
        fitted = fit_model(
            inputs.features, graph, self.training, self._valid, config.model, config.train,
            seed=seed, profiled=inputs.profiled, checkpoint=checkpoint, progress=self._progress,
        )  # fmt: skip
        return fitted, fitted.summary


def keep_trial(
    file: Path,
    fit: Callable[[Path], tuple[M, str]],
    evaluate: Callable[[M, HeldOut], Mapping[str, Values]],
    splits: Sequence[HeldOut] = SPLITS,
) -> Trial:
    """Load the trial of a file, or fit, evaluate and save it.

    Args:
        file: its name is a hash of everything that affects the trial.
        fit: given the path of a checkpoint, returns the model and a summary of one line.
        evaluate: gives the values of one split: those of ALL, and of other groups, which are kept of the test.
        splits: the splits that are judged by.
    """
    if file.exists():
        return Trial.load(file)
    memory, started = PeakMemory(), time.perf_counter()
    model, summary = fit(file.with_suffix(".unfinished"))
    seconds, mib = round(time.perf_counter() - started, 3), memory.added_mib()
    nobody = {ALL: {name: np.empty(0) for name in SHOWN}}
    valid, test = (evaluate(model, split) if split in splits else nobody for split in SPLITS)
    groups = {group: values for group, values in test.items() if group != ALL and len(values[SHOWN[0]])}
    trial = Trial(valid[ALL], test[ALL], seconds, mib, summary, groups)
    trial.save(file)
    return trial

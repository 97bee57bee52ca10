"""mllmrec study: the points of a grid, each fitted with every seed and judged on validation.

1. the features of a point come from the ordinary stages, once for all points that ask the same, into OUT/inputs
2. its item graph is built from them, and measured
3. each seed is a cell of its own in OUT/cells, named by all that shapes it, the test split not among it

A killed study goes on where it was, and all studies in one folder share what they have in common. No test
interaction is read, but by a leaky point, whose profiles are made of them; that is what it is there for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from mllmrec.audit.graph import examine_graph
from mllmrec.config import Config, GraphConfig, override
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import ConfigError, TrainingError
from mllmrec.experiments.grids import Point
from mllmrec.experiments.studies import Study
from mllmrec.experiments.study_plot import draw_study
from mllmrec.experiments.study_result import Connectivity, Result, Row
from mllmrec.experiments.trial import SHOWN, Cell, judge, keep_cell
from mllmrec.features.encode import Features
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models.scorer import Scorer
from mllmrec.pipeline import run
from mllmrec.runs import LEAKY
from mllmrec.training.trainer import fit_model

_VERSION = 1  # of what a cell holds and how it is computed
_NO_TEST = {name: np.empty(0) for name in SHOWN}


def run_study(
    study: Study,
    dataset: Dataset,
    out: Path,
    config: Config,
    *,
    seeds: int | None = None,
    generations: Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Run a study, or go on with an interrupted one in the same folder.

    Args:
        study: which; see STUDIES.
        dataset: a prepared dataset.
        out: folder of the studies of this dataset: inputs/, cells/, and STUDY.csv, .json, .svg, .png.
        config: what all points start from, but for model.kind, which is MLLMRec; seeds count up from its seed.
        seeds: how many each point gets; the study's own number by default.
        generations: cache of the reasoning stages; the user's own by default.
        progress: told after each point.

    Raises:
        ConfigError: the config itself is leaky, or has nothing to study.
        InputError: the dataset lacks what the study varies.
        TrainingError: there are no validation interactions to judge by.
    """
    if config.leaky:
        raise ConfigError('the leak is a study of its own, mllmrec study leak; set profile.history back to "train"')
    if dataset.matrix("valid").nnz == 0:
        raise TrainingError("the validation split is empty, and a study judges by it alone; prepare with another split")
    config = override(config, ["model.kind=mllmrec"])
    points = study.points(config, dataset)
    storage.make_folder(out / "cells")
    work = _Studying(dataset, out, config, generations, progress)
    rows: list[Row] = []
    for n, point in enumerate(points, start=1):
        cells = work.cells(point, seeds or study.seeds)
        rows += _rows(point, cells, config.seed, work.connectivity(point) if study.of_graph else None, study)
        progress(f"study {study.name}", n, len(points))
    result = study.conclude(dataset.name, rows)
    result.save(out)
    draw_study(result, study.axes, out / result.stem)
    return result


def _rows(point: Point, cells: list[Cell], first: int, graph: Connectivity | None, study: Study) -> list[Row]:
    """One row of all seeds, or one a seed where these are what is studied."""
    if not study.by_seed:
        return [Row.of(point, cells, graph)]
    return [Row.of(Point(f"{point.label} {first + n}"), [cell], graph) for n, cell in enumerate(cells)]


@dataclass(frozen=True)
class _Inputs:
    """What the points of one reasoning share."""

    features: Features
    profiled: Histories
    digest: str
    graph: Callable[[GraphConfig], ItemGraph]


class _Studying:
    """What all points share."""

    def __init__(
        self, dataset: Dataset, out: Path, config: Config, generations: Path | None, progress: Progress
    ) -> None:
        self._dataset, self._out, self._config = dataset, out, config
        self._generations, self._progress = generations, progress
        self._training, self._valid = dataset.histories("train"), dataset.matrix("valid")
        self._made: dict[str, _Inputs] = {}

    def connectivity(self, point: Point) -> Connectivity:
        """How the point's item graph hangs together."""
        config = override(self._config, point.settings)
        inputs = self._inputs(config)
        graph, items = inputs.graph(config.graph), inputs.features.items
        health = examine_graph(graph, items, self._training, threshold=config.graph.threshold)
        return Connectivity(health.items, health.edges, len(health.components), health.largest, health.isolated)

    def cells(self, point: Point, seeds: int) -> list[Cell]:
        """One a seed."""
        config = override(self._config, point.settings)
        inputs = self._inputs(config)
        return [self._cell(config, inputs, seed) for seed in range(config.seed, config.seed + seeds)]

    def _cell(self, config: Config, inputs: _Inputs, seed: int) -> Cell:
        shape = {
            "version": _VERSION,
            "data": inputs.digest,
            "model": config.model.identity(),
            "train": config.train.identity(config.model.kind),
            "graph": inputs.graph(config.graph).digest,
            "seed": seed,
        }
        mark = f".{LEAKY}" if config.leaky else ""
        file = self._out / "cells" / f"{storage.hash_value(shape)[:32]}{mark}.parquet"

        def fit(checkpoint: Path) -> tuple[Scorer, str]:
            fitted = fit_model(
                inputs.features, inputs.graph(config.graph), self._training, self._valid, config.model, config.train,
                seed=seed, profiled=inputs.profiled, checkpoint=checkpoint, progress=self._progress,
            )  # fmt: skip
            return fitted.scorer, fitted.summary

        return keep_cell(file, fit, lambda scorer: (judge(scorer, self._dataset, "valid", config.evaluate), _NO_TEST))

    def _inputs(self, config: Config) -> _Inputs:
        """The features of a point, by the ordinary stages in a run folder of their own."""
        stages = config.model_dump(mode="json", include={"describe", "profile", "encode", "transformers", "server"})
        name = storage.hash_value(stages)[:16] + (f".{LEAKY}" if config.leaky else "")
        if name not in self._made:
            folder = self._out / "inputs" / name
            made = run(self._dataset, folder, config, until="encode", cache=self._generations, progress=self._progress)
            profiled = self._dataset.histories(config.profile.history)
            self._made[name] = _Inputs(made.encode, profiled, self._digest(made.encode), self._graphs(made.encode))
        return self._made[name]

    def _digest(self, features: Features) -> str:
        """Of all data behind a cell: vectors, training and validation interactions, times."""
        times, valid = self._training.times, self._valid
        arrays = [features.items, features.users, valid.indptr, valid.indices, *([] if times is None else [times])]
        hashes = [storage.hash_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays]
        return storage.hash_value({"histories": self._training.digest, "arrays": hashes})

    def _graphs(self, features: Features) -> Callable[[GraphConfig], ItemGraph]:
        @cache
        def graph(config: GraphConfig) -> ItemGraph:
            return build_graph(features.items, self._training, config)

        return graph

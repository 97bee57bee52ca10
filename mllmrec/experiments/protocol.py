"""mllmrec compare: every model fitted, tuned and judged the same way.

1. the inputs (features, graph) come from the ordinary stages, once, into OUT/inputs
2. each candidate of each model's grid is fitted with the first seed
3. the best by validation NDCG@20 is chosen; its other seeds are fitted
4. test values are read for the chosen candidate, averaged over seeds user by user
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from mllmrec.config import Config, GraphConfig, override
from mllmrec.dataset import Dataset, Histories
from mllmrec.errors import ConfigError, TrainingError
from mllmrec.experiments.comparison import Comparison, make_rows
from mllmrec.experiments.entries import Candidate, Entry
from mllmrec.experiments.trial import Cell, judge, keep_cell
from mllmrec.features.encode import Features, mean_of_items
from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models.baselines import baselines
from mllmrec.models.scorer import Scorer
from mllmrec.pipeline import run
from mllmrec.training.trainer import fit_model

_CHOSEN_BY = "ndcg@20"
_VERSION = 1  # of what a cell holds and how it is computed
_BASELINES = {"popularity": "popularity", "content": "content, untrained"}


def compare_models(
    dataset: Dataset,
    out: Path,
    config: Config,
    entries: Sequence[Entry],
    *,
    seeds: int = 3,
    generations: Path | None = None,
    progress: Progress = silent,
) -> Comparison:
    """Compare models on a dataset, or go on with an interrupted comparison in the same folder.

    Args:
        dataset: a prepared dataset.
        out: folder of the comparison: inputs/, cells/, comparison.csv, comparison.json.
        config: what all candidates start from; seeds count up from its seed.
        entries: whom to compare.
        seeds: how many seeds a trained model gets.
        generations: cache of the reasoning stages; the user's own by default.
        progress: told after each cell.

    Raises:
        ConfigError: the config itself is leaky.
        TrainingError: there are no validation interactions to tune by.
    """
    if config.leaky:
        raise ConfigError('compare has a leaky entry of its own; set profile.history back to "train"')
    if dataset.matrix("valid").nnz == 0:
        raise TrainingError("the validation split is empty, and models are tuned on it; prepare with another split")
    storage.make_folder(out / "cells")
    work = _Comparing(dataset, out, config, generations, progress)
    chosen = {entry: work.tune(entry, seeds, len(entries), n) for n, entry in enumerate(entries)}
    comparison = Comparison(dataset.name, seeds, make_rows(chosen))
    comparison.save(out)
    return comparison


class _Comparing:
    """What all cells share."""

    def __init__(
        self, dataset: Dataset, out: Path, config: Config, generations: Path | None, progress: Progress
    ) -> None:
        inputs = run(dataset, out / "inputs", config, until="encode", cache=generations, progress=progress)
        self._dataset, self._out, self._config, self._progress = dataset, out, config, progress
        self._features: Features = inputs.encode
        self._training = dataset.histories("train")
        vectors = self._features.items.tobytes() + self._features.users.tobytes()
        self._data = storage.hash_bytes(vectors) + dataset.split_digest
        self.graph = cache(self._graph)

    def _graph(self, config: GraphConfig) -> ItemGraph:
        return build_graph(self._features.items, self._training, config)

    def tune(self, entry: Entry, seeds: int, of: int, done: int) -> tuple[Candidate, list[Cell]]:
        """The best candidate on validation, and its cells, one a seed."""
        first = self._config.seed
        tried = [self._cell(entry, candidate, first) for candidate in entry.grid]
        scores = [cell.mean("valid", _CHOSEN_BY) for cell in tried]
        best = int(np.argmax(scores))  # of equal ones the first
        more = range(first + 1, first + seeds) if entry.fitting == "trained" else ()
        cells = [tried[best], *(self._cell(entry, entry.grid[best], seed) for seed in more)]
        self._progress("models", done + 1, of)
        return entry.grid[best], cells

    def _cell(self, entry: Entry, candidate: Candidate, seed: int) -> Cell:
        config = override(self._config, candidate)
        shape = {
            "version": _VERSION,
            "data": self._data,
            "entry": entry.name if entry.fitting == "baseline" or entry.leaky else "",
            "model": config.model.identity(),
            "train": config.train.identity(config.model.kind),
            "graph": config.graph.identity(),
            "protocol": config.evaluate.mask_validation,
            "seed": seed,
        }
        file = self._out / "cells" / f"{storage.hash_value(shape)[:32]}.parquet"
        return keep_cell(
            file,
            lambda checkpoint: self._fit(entry, config, seed, checkpoint),
            lambda scorer: (
                judge(scorer, self._dataset, "valid", config.evaluate),
                judge(scorer, self._dataset, "test", config.evaluate),
            ),
        )

    def _fit(self, entry: Entry, config: Config, seed: int, checkpoint: Path) -> tuple[Scorer, str]:
        if entry.fitting == "baseline":
            return baselines(self._features.items, self._training)[_BASELINES[entry.name]], entry.title
        features, profiled = self._features, None
        if entry.leaky:
            profiled = self._dataset.histories("all")
            features = _leaky(features, profiled)
        fitted = fit_model(
            features, self.graph(config.graph), self._training, self._dataset.matrix("valid"), config.model,
            config.train, seed=seed, profiled=profiled, checkpoint=checkpoint, progress=self._progress,
        )  # fmt: skip
        return fitted.scorer, fitted.summary


def _leaky(features: Features, everything: Histories) -> Features:
    """The paper's leak: users are the mean of all their items, held-out ones too."""
    users = mean_of_items(features.items, everything)
    return Features(features.items, users, everything.digest, features.cuts)

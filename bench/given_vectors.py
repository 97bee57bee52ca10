"""Fit and judge a model over given vectors of items and users, and write what one row gains over another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mllmrec.config import load_config
from mllmrec.dataset import Dataset, Histories
from mllmrec.dataset.dataset import Scope
from mllmrec.evaluation.groups import ALL, HeldOut, SplitTask
from mllmrec.evaluation.metrics import mean_interval
from mllmrec.features.encode import Cuts, Features, Vectors
from mllmrec.foundation.storage import make_folder, read_array, write_array
from mllmrec.graph.item_graph import ItemGraph, build_graph
from mllmrec.models.fitting import fit_model
from mllmrec.pipeline import run

CUTOFF = 20
METRICS = (f"recall@{CUTOFF}", f"ndcg@{CUTOFF}")
SPLITS: tuple[HeldOut, ...] = ("valid", "test")


@dataclass
class GivenItems:
    """Judge models over one set of items' vectors.

    Attributes:
        dataset: whose split is used.
        items: float32 [I, d].
        folder: keeps judged models, so that a stopped measurement goes on.
    """

    dataset: Dataset
    items: Vectors
    folder: Path

    @cached_property
    def histories(self) -> Histories:
        """Return the training histories."""
        return self.dataset.histories("train")

    @cached_property
    def graph(self) -> ItemGraph:
        """Return the item graph, which no user's vector reaches."""
        return build_graph(self.items, self.histories, load_config().graph)

    def judge(self, name: str, users: Callable[[], Vectors], kind: str, scope: Scope = "train") -> NDArray[np.float64]:
        """Return the metrics of each judged user, float64 [splits, metrics, U]; NaN for users without held-out items.

        Args:
            name: of the file that keeps them.
            users: makes them, float32 [U, d'], where the model is not judged yet.
            kind: of model.
            scope: "all" for users' vectors that saw held-out items: LEAKY.
        """
        file = self.folder / f"{name}.npy"
        if file.exists():
            return np.array(read_array(file), dtype=np.float64)
        config = load_config(None, ["profile.kind=mean", f"model.kind={kind}"])
        profiled = self.dataset.histories(scope)
        model = fit_model(
            Features(self.items, users(), profiled.digest, Cuts(0, 0, 0, 0)),
            self.graph,
            self.histories,
            self.dataset.matrix("valid"),
            config.model,
            config.train,
            seed=config.seed,
            profiled=profiled,
        )
        values = np.full((len(SPLITS), len(METRICS), self.dataset.n_users), np.nan)
        for place, split in enumerate(SPLITS):
            _, found = SplitTask.of(self.dataset, split, config.evaluate).judge(model, (CUTOFF,))
            for column, metric in enumerate(METRICS):
                values[place, column, found[ALL].users] = found[ALL].values[metric]
        make_folder(self.folder)
        write_array(file, values)
        return values


def encoded_items(dataset: Dataset, out: Path) -> Vectors:
    """Return the vectors of a dataset's items, float32 [I, d], encoded in a run folder or found there."""
    return run(dataset, out, load_config(None, ["profile.kind=mean"]), until="encode").encode.items


def mean_of(values: NDArray[np.float64], split: HeldOut, metric: str) -> float:
    """Return the mean over the judged users of one split and metric."""
    return float(np.nanmean(values[SPLITS.index(split), METRICS.index(metric)]))


def gain(values: NDArray[np.float64], base: NDArray[np.float64], metric: str) -> str:
    """Return what the test users gain over a base, with its 95 % interval, as a cell of a table."""
    place = SPLITS.index("test"), METRICS.index(metric)
    gaps = (values - base)[place]
    return mean_interval(gaps[np.isfinite(gaps)]).signed


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)).replace("| --- ", "|---")


def best_of(judged: Mapping[str, NDArray[np.float64]]) -> str:
    """Return the name with the largest NDCG on validation."""
    return max(judged, key=lambda name: mean_of(judged[name], "valid", METRICS[1]))

"""Fit models on training and validation rows together, as papers without training do, beside fits on training alone.

    python -m bench.validation_rows scientific run --kinds mm-gf gf-cf

Settings are chosen on validation, by fits on training rows. The chosen ones are then fitted on both. The default goes
on from its fit on training rows, and its choices and weights stand (models/refit.py). No row ranks validation items
at test time, for some of the fits have read them; figures are therefore above those of the other tables. A row on both
is no result beside one on training rows.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.given_vectors import CUTOFF, encoded_items, table
from mllmrec.config import Config, default_kind, load_config, override
from mllmrec.dataset import Dataset, load
from mllmrec.dataset.dataset import SPLITS
from mllmrec.errors import MllmrecError
from mllmrec.evaluation.evaluate import HeldOut
from mllmrec.evaluation.groups import ALL, SplitTask
from mllmrec.evaluation.metrics import mean_interval, short
from mllmrec.features.encode import Features, Vectors
from mllmrec.models import registry
from mllmrec.models.base import Recommender
from mllmrec.models.fitting import fit_model

NDCG, RECALL = f"ndcg@{CUTOFF}", f"recall@{CUTOFF}"
HEAD = ("model", "fitted on", "R@20", "N@20", "less the default on the same rows")
Values = dict[str, NDArray[np.float64]]  # metric -> [judged users]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, fit and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="run folder of its encoded items")
    parser.add_argument("--kinds", nargs="+", default=["mm-gf", "gf-cf"], choices=registry.kinds(), help="of models")
    options = parser.parse_args(arguments)
    try:
        dataset = load(options.dataset)
        print(table(HEAD, measure(dataset, encoded_items(dataset, options.out), options.kinds)))
    except MllmrecError as error:
        print(f"validation rows: {error}", file=sys.stderr)
        return 1
    return 0


def measure(dataset: Dataset, items: Vectors, kinds: Sequence[str]) -> list[tuple[str, ...]]:
    """Return two rows for each kind and for the default, the default's first.

    Args:
        dataset: with a validation and a test split.
        items: float32 [I, d].
        kinds: of models.
    """
    both, rows, base = with_validation(dataset), list[tuple[str, ...]](), list[Values]()
    for kind in (default_kind(), *kinds):
        config, model = choose(dataset, items, kind)
        again = fit(both, items, config, model if model.goes_on else None)
        found = [judge(dataset, one, "test") for one in (model, again)]
        base = base or found
        for name, values, of_default in zip(("training", "both"), found, base, strict=True):
            means = (short(float(values[metric].mean())) for metric in (RECALL, NDCG))
            gap = "" if found is base else mean_interval(values[NDCG] - of_default[NDCG]).signed
            rows.append((model.title, name, *means, gap))
    return rows


def with_validation(dataset: Dataset) -> Dataset:
    """Return the dataset with its validation rows among the training rows."""
    split = pl.col("split")
    moved = pl.when(split == SPLITS.index("valid")).then(SPLITS.index("train")).otherwise(split)
    dtype = dataset.interactions.schema["split"]
    return replace(dataset, interactions=dataset.interactions.with_columns(moved.cast(dtype).alias("split")))


def choose(dataset: Dataset, items: Vectors, kind: str) -> tuple[Config, Recommender]:
    """Return the settings with the largest NDCG@20 on validation, of equal ones the first, and their fit.

    Args:
        dataset: whose training rows are fitted.
        items: float32 [I, d].
        kind: of model; its candidates are tried.
    """
    best: tuple[float, Config, Recommender] | None = None
    for settings in registry.find(kind).candidates:
        config = override(load_config(None, ["profile.kind=mean"]), [f"model.kind={kind}", *settings])
        model = fit(dataset, items, config)
        reached = float(judge(dataset, model, "valid")[NDCG].mean())
        if best is None or reached > best[0]:
            best = reached, config, model
    assert best is not None  # every kind has a candidate
    return best[1:]


def fit(dataset: Dataset, items: Vectors, config: Config, earlier: Recommender | None = None) -> Recommender:
    """Return a model fitted on a dataset's training rows.

    Args:
        dataset: whose rows they are.
        items: float32 [I, d].
        config: of the model.
        earlier: a fit to go on from; None: from nothing.
    """
    seen = dataset.histories()
    features = Features.of_items(items, seen)
    valid = dataset.matrix("valid")
    return fit_model(
        features, None, seen, valid, config.model, config.train, seed=config.seed, earlier=earlier
    )  # fmt: skip


def judge(dataset: Dataset, model: Recommender, split: HeldOut) -> Values:
    """Return the metrics of each user of a split; at test time validation items are not ranked.

    Args:
        dataset: with its own splits, whatever the model was fitted on.
        model: fitted.
        split: whose items are ranked.
    """
    config = load_config(None, ["evaluate.mask_validation=true"]).evaluate
    return dict(SplitTask.of(dataset, split, config).judge(model, (CUTOFF,), limit=CUTOFF)[1][ALL].values)


if __name__ == "__main__":
    sys.exit(main())

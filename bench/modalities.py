"""Set a model that reads texts, pictures, both or neither against each other, paired over users and draws.

    python -m bench.modalities dataset movielens

Pictures are read by the extractive engine, which writes a description of each; "pictures" leaves out everything else
that the catalogue says. Descriptions and vectors do not depend on the split, so they are made once. Users are the
means of their training items' vectors.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from bench.given_vectors import table
from mllmrec.config import default_kind, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.dataset.splits import resplit
from mllmrec.errors import MllmrecError
from mllmrec.evaluation.groups import ALL, Judged, SplitTask
from mllmrec.evaluation.metrics import crossed_intervals, short
from mllmrec.features.encode import Features, Vectors
from mllmrec.models import registry
from mllmrec.models.fitting import fit_model
from mllmrec.pipeline import run

CUTOFF = 20
NEITHER = "neither"
TEXTS = ("title", "brand", "description")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+", help="prepared datasets with pictures")
    parser.add_argument("--out", type=Path, default=Path("modalities"), help="descriptions and vectors are kept there")
    parser.add_argument("--kind", default=default_kind(), choices=registry.kinds(), help="of model")
    parser.add_argument("--draws", type=int, default=3, help="of the random split")
    options = parser.parse_args(arguments)
    try:
        rows = [
            row
            for folder in options.datasets
            for row in measure(load(folder), options.out / folder.name, options.kind, options.draws)
        ]
    except MllmrecError as error:
        print(f"modalities: {error}", file=sys.stderr)
        return 1
    print(table(("data", "items' vectors", "R@20", "N@20", f"N@20 less {NEITHER}"), rows))
    return 0


def measure(dataset: Dataset, folder: Path, kind: str, draws: int) -> list[tuple[str, ...]]:
    """Return a row for each source of vectors.

    Args:
        dataset: with pictures; its own split is not used.
        folder: for descriptions and vectors.
        kind: of model.
        draws: of the random split.
    """
    seeds = range(load_config().seed, load_config().seed + draws)
    judged = {
        name: [judge(resplit(dataset, "random", seed), items, kind) for seed in seeds]
        for name, items in sources(dataset, folder).items()
    }
    return [row(dataset.name, name, found, judged[NEITHER]) for name, found in judged.items()]


def sources(dataset: Dataset, folder: Path) -> Mapping[str, Vectors | None]:
    """Return items' vectors by what they were made of, float32 [I, d]; None: there are none."""
    silent = replace(dataset, items=without_texts(dataset.items))
    return {
        NEITHER: None,
        "texts": encoded(dataset, folder / "texts", pictures=False),
        "pictures": encoded(silent, folder / "pictures", pictures=True),
        "both": encoded(dataset, folder / "both", pictures=True),
    }


def without_texts(items: pl.DataFrame) -> pl.DataFrame:
    """Return a catalogue that says nothing but its ids and pictures."""
    empty = pl.lit([], dtype=items.schema["categories"]).alias("categories")
    return items.with_columns(*(pl.lit("").alias(name) for name in TEXTS), empty)


def encoded(dataset: Dataset, folder: Path, *, pictures: bool) -> Vectors:
    """Return the vectors of a dataset's items, with descriptions of their pictures or without."""
    config = load_config(None, ["profile.kind=mean", f"describe.images={'true' if pictures else 'false'}"])
    return run(dataset, folder, config, until="encode").encode.items


def judge(dataset: Dataset, items: Vectors | None, kind: str) -> Judged:
    """Return the metrics of the test users of a model with that vectors.

    Args:
        dataset: split.
        items: float32 [I, d]; None: the model gets no vectors.
        kind: of model.
    """
    config = load_config(None, ["profile.kind=mean", f"model.kind={kind}"])
    seen = dataset.histories()
    given = np.zeros((dataset.n_items, 1), np.float32) if items is None else items
    features = Features.of_items(given, seen)
    model = fit_model(features, None, seen, dataset.matrix("valid"), config.model, config.train, seed=config.seed)
    return SplitTask.of(dataset, "test", config.evaluate).judge(model, (CUTOFF,))[1][ALL]


def row(dataset: str, name: str, found: Sequence[Judged], base: Sequence[Judged]) -> tuple[str, ...]:
    """Return a line of the table: means over draws, and the gain over users and draws.

    Args:
        dataset: its name.
        name: of the source of vectors.
        found: of each draw.
        base: of each draw without vectors.
    """
    recall, ndcg = ([one.values[f"{metric}@{CUTOFF}"] for one in found] for metric in ("recall", "ndcg"))
    means = [short(float(np.mean([values.mean() for values in draws]))) for draws in (recall, ndcg)]
    if name == NEITHER:
        return dataset, name, *means, ""
    gaps = [
        (one.users, (a - other.values[f"ndcg@{CUTOFF}"])[:, None])
        for one, a, other in zip(found, ndcg, base, strict=True)
    ]
    return dataset, name, *means, crossed_intervals(gaps)[0].signed


if __name__ == "__main__":
    sys.exit(main())

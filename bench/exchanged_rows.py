"""Show that test rows reach no fitted byte, and what choices that read them would bring.

    python -m bench.exchanged_rows scientific run

The default is fitted three times: on the dataset as it is, with its test rows exchanged, and with the test split in
the place of validation. The first two must write the same bytes, and exchanged rows must be ranked by chance. The
third has every setting and weight chosen by the rows that judge it. It shows about what better choices among the same
parts could reach; the search is no exhaustive one, so it is no strict bound. No other figure here is chosen so.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from bench.given_vectors import encoded_items
from mllmrec.config import default_kind, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.dataset.dataset import SPLITS
from mllmrec.errors import MllmrecError
from mllmrec.evaluation.evaluate import HeldOut
from mllmrec.evaluation.groups import ALL, SplitTask
from mllmrec.features.encode import Features, Vectors
from mllmrec.models import registry
from mllmrec.models.base import Recommender
from mllmrec.models.fitting import fit_model

CUTOFF = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, fit three times and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="run folder of its encoded items")
    parser.add_argument("--kind", default=default_kind(), choices=registry.kinds(), help="of model")
    options = parser.parse_args(arguments)
    try:
        dataset = load(options.dataset)
        same = measure(dataset, encoded_items(dataset, options.out), options.kind)
    except MllmrecError as error:
        print(f"exchanged rows: {error}", file=sys.stderr)
        return 1
    return 0 if same else 1


def measure(dataset: Dataset, items: Vectors, kind: str) -> bool:
    """Print NDCG@20 of the three fits; return whether the first two wrote the same bytes.

    Args:
        dataset: whose test rows are exchanged.
        items: float32 [I, d].
        kind: of model.
    """
    exchanged = exchange_test_rows(dataset)
    model, other = fit(dataset, items, kind), fit(exchanged, items, kind)
    same = digests(model) == digests(other)
    print(f"as it is: {ndcg(model, dataset):.4f}")
    print(f"test rows exchanged: {ndcg(other, exchanged):.4f}, {'the same' if same else 'OTHER'} bytes")
    print(f"chosen by test: {ndcg(fit(dataset, items, kind, 'test'), dataset):.4f}", flush=True)
    return same


def exchange_test_rows(dataset: Dataset) -> Dataset:
    """Return the dataset with items drawn at random in its test rows, new to each user."""
    rows, generator = dataset.interactions, np.random.default_rng(0)
    items, users = rows["item"].to_numpy().copy(), rows["user"].to_numpy()
    owned = {user: set(part["item"]) for (user,), part in rows.group_by("user")}
    for n in np.flatnonzero(rows["split"].to_numpy() == SPLITS.index("test")):
        seen = owned[users[n]]
        items[n] = generator.choice(np.setdiff1d(np.arange(dataset.n_items), list(seen)))
        seen.add(int(items[n]))
    return replace(dataset, interactions=rows.with_columns(pl.Series("item", items, dtype=pl.Int32)))


def fit(dataset: Dataset, items: Vectors, kind: str, chosen_by: HeldOut = "valid") -> Recommender:
    """Return a model fitted as `mllmrec compare` does.

    Args:
        dataset: whose training rows are fitted.
        items: float32 [I, d].
        kind: of model.
        chosen_by: the split that settings and weights are chosen by.
    """
    config = load_config(None, ["profile.kind=mean", f"model.kind={kind}"])
    seen = dataset.histories()
    features = Features.of_items(items, seen)
    return fit_model(
        features, None, seen, dataset.matrix(chosen_by), config.model, config.train, seed=config.seed
    )  # fmt: skip


def digests(model: Recommender) -> dict[str, str]:
    """Return the SHA-256 of every file that the model writes."""
    with tempfile.TemporaryDirectory() as folder:
        names = model.write_files(Path(folder).joinpath)
        return {name: hashlib.sha256((Path(folder) / name).read_bytes()).hexdigest() for name in names}


def ndcg(model: Recommender, dataset: Dataset) -> float:
    """Return NDCG@20 on the test split, mean over its users."""
    config = load_config(None, ["profile.kind=mean"])
    _, found = SplitTask.of(dataset, "test", config.evaluate).judge(model, (CUTOFF,))
    return float(found[ALL].values[f"ndcg@{CUTOFF}"].mean())


if __name__ == "__main__":
    sys.exit(main())

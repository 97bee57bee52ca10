"""Draw a few users of a dataset, with their split and the items that they touched, as a dataset of its own.

python -m bench.user_sample scientific sample --users 600 --least 10
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mllmrec.dataset import Dataset, PrepareOptions, load, prepare
from mllmrec.dataset.dataset import SPLITS
from mllmrec.errors import InputError, MllmrecError


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, draw and write the dataset."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="folder of the drawn one")
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--least", type=int, default=10, help="interactions of a user who may be drawn")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        drawn = draw_users(load(options.dataset), options.out, options.users, options.least, options.seed)
        print(f"{drawn.n_users:,} users, {drawn.n_items:,} items, {len(drawn.interactions):,} interactions")
    except MllmrecError as error:
        print(f"user sample: {error}", file=sys.stderr)
        return 1
    return 0


def draw_users(dataset: Dataset, out: Path, users: int, least: int, seed: int) -> Dataset:
    """Return a dataset of users drawn at random; pictures stay behind.

    Args:
        dataset: a prepared one.
        out: folder of the drawn one.
        users: to draw; all that may be drawn if there are fewer.
        least: interactions of a user who may be drawn, in all splits together.
        seed: of the draw.

    Raises:
        InputError: no user has so many interactions.
    """
    counts = np.bincount(dataset.interactions["user"].to_numpy(), minlength=dataset.n_users)
    known = np.flatnonzero(counts >= least)
    if not len(known):
        raise InputError(f"no user of {dataset.folder} has {least} interactions; lower --least")
    drawn = np.sort(np.random.default_rng(seed).choice(known, min(users, len(known)), replace=False))
    rows = dataset.interactions.filter(pl.col("user").is_in(drawn.tolist()))
    touched = rows["item"].unique().sort()
    tables = pl.DataFrame(
        {
            "user": dataset.users.gather(rows["user"]),
            "item": dataset.item_ids.gather(rows["item"]),
            "timestamp": rows["timestamp"],
            "split": pl.Series([SPLITS[part] for part in rows["split"]]),
        }
    )
    columns = ("id", "title", "brand", "categories", "description")
    items = dataset.items[touched.to_list()].select(columns).rename({"id": "item"})
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"{dataset.name}-{len(drawn)}-users"  # the name of the drawn dataset
        folder.mkdir()
        tables.write_parquet(folder / "interactions.parquet")
        items.write_ndjson(folder / "items.jsonl")
        return prepare(folder, out, PrepareOptions(split_column="split"))


if __name__ == "__main__":
    sys.exit(main())

"""What stages take over from an earlier run: texts that are there, never those that failed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from mllmrec.config import DescribeConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.growth import Growth
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.engine import Answer, Item, Report, no_report
from mllmrec.reason.engines.extractive import ExtractiveDescriber
from mllmrec.reason.generate import GenerationLimits
from mllmrec.reuse import Generation, grow_descriptions


class Counting(ExtractiveDescriber):
    """Describes by the title, and remembers which."""

    fingerprint = "counting"

    def __init__(self) -> None:
        self.titles: list[str] = []

    def describe(self, items: Sequence[Item], report: Report = no_report) -> list[Answer]:
        self.titles += [item.title for item in items]
        return [Answer(f"It is {item.title}.") for item in items]


def test_new_changed_and_failed_items_are_described_and_no_others(dataset: Dataset, tmp_path: Path) -> None:
    engine, config = Counting(), DescribeConfig(engine="openai")
    with open_cache(tmp_path / "a.sqlite") as cache:
        whole = describe_items(dataset, config, cache, engine=engine)
    before = dataset.n_items - 2
    earlier = whole.table.head(before).with_columns(
        status=pl.when(pl.col("id") == dataset.item_ids[4]).then(pl.lit("failed")).otherwise("status"),
        description=pl.lit("as before"),
    )
    items = np.zeros(dataset.n_items, bool)
    items[[7, before, before + 1]] = True
    growth = Growth(items, np.zeros(dataset.n_users, bool), before, dataset.n_users)
    with open_cache(tmp_path / "b.sqlite") as empty:
        again = Counting()
        grown = grow_descriptions(
            Descriptions(earlier),
            growth,
            dataset,
            config,
            again,
            Generation(empty, lambda *_: None, GenerationLimits()),
        )
    rows = [4, 7, before, before + 1]
    assert sorted(again.titles) == sorted(dict.fromkeys(dataset.items["title"][rows]))
    assert grown.table["id"].equals(dataset.item_ids)
    for row, text in enumerate(grown.texts):
        assert text == (f"It is {dataset.items['title'][row]}." if row in rows else "as before")

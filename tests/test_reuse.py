"""What stages take over from an earlier run: texts that are there, never those that failed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.config import DescribeConfig
from mllmrec.dataset import Dataset
from mllmrec.dataset.growth import Growth
from mllmrec.errors import MismatchError
from mllmrec.foundation.tables import write_any
from mllmrec.reason.cache import open_cache
from mllmrec.reason.describe import Descriptions, describe_items
from mllmrec.reason.engine import Answer, Item, Report, no_report
from mllmrec.reason.engines.extractive import ExtractiveDescriber
from mllmrec.reason.generate import GenerationLimits
from mllmrec.recommend import EarlierLists, Recommendations, list_table
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


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_earlier_lists_are_read_as_they_were_made(dataset: Dataset, tmp_path: Path, suffix: str) -> None:
    rng, k = np.random.default_rng(0), 4
    ids = np.stack([rng.choice(dataset.n_items, k, replace=False) for _ in range(dataset.n_users)]).astype(np.int32)
    scores = -np.sort(-rng.random(ids.shape, np.float32), axis=1)
    ids[5, 2:], scores[5, 2:] = -1, -np.inf
    ids[6], scores[6] = -1, -np.inf
    table = list_table("user", dataset.users, ids, scores, "item", dataset.item_ids).with_columns(
        source=pl.lit("model")
    )
    made = Recommendations(table, Recommendations.no_items(), suffix)
    assert made.summary == f"{len(table):,} recommendations to {dataset.n_users - 1} users"
    made.save(lambda name: tmp_path / name)
    before = EarlierLists.load(tmp_path / f"recommendations.{suffix}", dataset)
    read = before.arrays(k)
    assert read[0].tobytes() == ids.tobytes() and read[1].tobytes() == scores.tobytes()
    others = pl.Series([f"x{user}" for user in dataset.users])
    with pytest.raises(MismatchError, match="names users or items that .* has not"):
        EarlierLists.load(tmp_path / f"recommendations.{suffix}", replace(dataset, users=others))
    assert before.arrays(1)[0].tobytes() == ids[:, :1].tobytes()  # a longer list is cut
    for column, wrong in (("rank", 0), ("rank", None), ("score", np.nan), ("score", None)):
        values = made.users[column].to_list()
        values[3] = wrong
        changed = made.users.with_columns(pl.Series(column, values, made.users[column].dtype))
        write_any(tmp_path / f"wrong.{suffix}", changed)
        with pytest.raises(MismatchError, match="or a wrong rank or score"):
            EarlierLists.load(tmp_path / f"wrong.{suffix}", dataset)

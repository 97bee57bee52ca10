"""What of a dataset is new or changed since it grew."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from mllmrec.dataset import Dataset, update
from mllmrec.dataset.growth import compare
from mllmrec.errors import MismatchError


def test_new_and_changed_rows_and_histories_are_told(dataset: Dataset, tmp_path: Path) -> None:
    time = int(dataset.interactions["timestamp"].max() or 0) + 5
    owned = set(dataset.histories("all").of(3).tolist())
    item = next(i for i in range(dataset.n_items) if i not in owned)
    rows = [(dataset.users[3], dataset.item_ids[item], time), ("newcomer", "new-item", time)]
    pl.DataFrame(rows, schema=["user", "item", "timestamp"], orient="row").write_csv(tmp_path / "orders.csv")
    (tmp_path / "items.jsonl").write_text(f'{{"id": "{dataset.item_ids[7]}", "title": "Another title"}}\n')
    new = update(dataset, [tmp_path / "orders.csv", tmp_path / "items.jsonl"], tmp_path / "new")
    growth = compare(dataset, new, "train")
    assert [int(i) for i in growth.items.nonzero()[0]] == [7, dataset.n_items]
    assert [int(u) for u in growth.users.nonzero()[0]] == [3, dataset.n_users]
    assert growth.summary == "1 new and 1 changed items, 1 new users and 1 with another history"
    same = compare(dataset, dataset, "train")
    assert not same.items.any() and not same.users.any()
    with pytest.raises(MismatchError, match="did not grow from .*: its users are others; make it with mllmrec update"):
        compare(new, dataset, "train")

"""New items of a file: described, encoded, placed, and shown; what cannot be used is counted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_cli.main import app
from typer.testing import CliRunner

from mllmrec.dataset import Dataset
from mllmrec.errors import InputError
from mllmrec.runs import Run
from mllmrec.serving import run_config
from mllmrec.serving.new_items import read_new_items, serve_new_items


def write_items(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def twin(dataset: Dataset, row: int, name: str) -> dict[str, object]:
    """A new item with the words of a known one."""
    item = dataset.items.row(row, named=True)
    return {"id": name, **{key: item[key] for key in ("title", "brand", "categories", "description", "price")}}


def test_a_twin_of_a_known_item_stands_where_that_stands(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    run = Run(finished)
    popular = int(np.argmax(np.bincount(dataset.train.indices, minlength=dataset.n_items)))
    file = write_items(tmp_path / "items.jsonl", [twin(dataset, popular, "twin")])
    config = run_config(run, None, ["recommend.top=3", "recommend.similar=5"])
    placed, notes = serve_new_items(run, file, {}, config, tmp_path / "c.sqlite")
    assert placed.users["item"].to_list() == ["twin"] * 3 and placed.users["rank"].to_list() == [1, 2, 3]
    assert (placed.users["place"] >= 1).all() and placed.users["place"].is_sorted()
    vector = run.features.items[popular]  # the same text: the same vector
    wider = run.fitted.add_items(vector[None])
    user = dataset.user_index(placed.users["user"][0])
    owned = dataset.histories("all").user_items().row(user)
    row = wider.scores([user])[0]
    row[owned] = -np.inf
    assert placed.users["place"][0] == 1 + int((row > row[-1]).sum())
    assert notes[0] == "1 new items in items.jsonl" and "1 items placed" in notes[-1]
    assert placed.similar["item"].unique().to_list() == ["twin"]
    assert set(placed.similar["similar"]) <= set(dataset.item_ids)


def test_messy_files_are_counted_or_refused(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    rows = [
        twin(dataset, 0, dataset.item_ids[0]),
        {"id": "new", "title": "\x1b[31mred\x00 <script>", "images": ["../../etc/passwd"]},
        {"id": "new", "title": "again"},
        {"title": "without id"},
        {"id": "bare"},
    ]
    file = write_items(tmp_path / "items.jsonl", rows)
    with pytest.raises(InputError, match=r"1 of 5 rows of items.jsonl cannot be read, the first at items.jsonl:4"):
        read_new_items(file, dataset)
    items = read_new_items(file, dataset, max_rejected=0.5)
    assert items.dataset.item_ids.to_list() == ["new", "bare"]
    assert "\x1b" not in items.dataset.items["title"][0]
    text = "; ".join(items.notes)
    assert "2 new items" in text and "1 item rows repeat an id" in text and "items.jsonl:4" in text
    assert "1 items are left out, for the run knows them" in text
    with pytest.raises(InputError, match="has no item that the run does not know; 1 items are left out"):
        read_new_items(write_items(tmp_path / "old.jsonl", rows[:1]), dataset)
    run = Run(finished)
    placed, notes = serve_new_items(
        run, write_items(tmp_path / "b.jsonl", rows[4:]), {}, run_config(run, None, []), tmp_path / "c.sqlite"
    )
    assert not len(placed.users) and any("neither text nor pictures" in note for note in notes)


def test_the_verb_writes_both_tables(finished: Path, dataset: Dataset, tmp_path: Path) -> None:
    file = write_items(tmp_path / "items.jsonl", [twin(dataset, n, f"twin {n}") for n in range(3)])
    words = ["recommend", str(finished), "--items", str(file), "--out", str(tmp_path / "lists")]
    done = CliRunner().invoke(app, [*words, "--cache", str(tmp_path / "c.sqlite"), "--set", "recommend.top=2"])
    assert done.exit_code == 0, done.output
    table = pl.read_parquet(tmp_path / "lists" / "new_items.parquet")
    assert table.columns == ["item", "rank", "user", "place"] and len(table) == 6
    assert pl.read_parquet(tmp_path / "lists" / "similar_items.parquet")["item"].n_unique() == 3
    assert "3 new items in items.jsonl" in done.output
    both = CliRunner().invoke(app, [*words, "--users", str(file)])
    assert both.exit_code == 2

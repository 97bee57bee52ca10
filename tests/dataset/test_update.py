"""A dataset grows by new files: ids stay, pairs of the splits stay where they are, every loss is counted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from mllmrec_cli.main import app
from PIL import Image
from typer.testing import CliRunner

from mllmrec.dataset import Dataset, PrepareOptions, prepare, update
from mllmrec.errors import InputError, StorageError

DAY = 1_700_500_000


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """Eight users with four of six items each, at one moment a row, one picture."""
    folder = tmp_path / "shop"
    folder.mkdir()
    pairs = [(u, (u + n) % 6) for u in range(8) for n in range(4)]
    rows = [(f"u{u}", f"i{i}", 5.0, 1_700_000_000 + n) for n, (u, i) in enumerate(pairs)]
    pl.DataFrame(rows, schema=["user", "item", "rating", "timestamp"], orient="row").write_csv(
        folder / "interactions.csv"
    )
    items = [{"item": f"i{i}", "title": f"Thing {i}", "brand": "Old"} for i in range(6)]
    items[0]["images"] = ["red.png"]
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    Image.new("RGB", (8, 8), "red").save(folder / "red.png")
    return folder


@pytest.fixture
def old(shop: Path, tmp_path: Path) -> Dataset:
    return prepare(shop, tmp_path / "old", PrepareOptions(k_core=0, min_rating=3))


def monday(folder: Path, rows: list[tuple[object, ...]], items: list[dict[str, object]] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    schema = ["user", "item", "rating", "timestamp"]
    pl.DataFrame(rows, schema=schema, orient="row").write_csv(folder / "orders.csv")
    if items:
        (folder / "new.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def pairs(dataset: Dataset, split: int | None = None) -> set[tuple[str, str]]:
    table = dataset.interactions if split is None else dataset.interactions.filter(pl.col("split") == split)
    return set(zip(dataset.users.gather(table["user"]), dataset.item_ids.gather(table["item"]), strict=True))


def test_ids_stay_and_new_pairs_go_to_training(old: Dataset, tmp_path: Path) -> None:
    rows = [("u1", "i0", 5.0, DAY), ("new", "i7", 4.0, DAY + 1), ("u1", "i9", 4.0, DAY + 2), ("new", "i2", 1.0, DAY)]
    items = [{"id": "i7", "title": "Seventh", "images": ["blue.png"]}, {"id": "i0", "title": "Thing, improved"}]
    folder = monday(tmp_path / "monday", rows, items)
    Image.new("RGB", (8, 8), "blue").save(folder / "blue.png")
    new = update(old, [folder], tmp_path / "new")
    assert new.users.to_list() == [*old.users, "new"]
    assert new.item_ids.to_list() == [*old.item_ids, "i7", "i9"]
    assert pairs(new, 0) == pairs(old, 0) | {("u1", "i0"), ("new", "i7"), ("u1", "i9")}
    for held in (1, 2):
        assert pairs(new, held) == pairs(old, held)
    first = new.items.row(new.item_index("i0"), named=True)
    assert (first["title"], first["brand"]) == ("Thing, improved", "Old")  # what the new row leaves open stays
    assert first["images"] == old.items["images"].to_list()[0] and (new.folder / first["images"][0]).is_file()
    assert (new.folder / new.items.row(new.item_index("i7"), named=True)["images"][0]).is_file()
    assert new.items.row(new.item_index("i9"), named=True)["title"] is None
    history = new.histories("train").of(new.user_index("u1"))
    assert new.item_ids.gather(history[-2:]).to_list() == ["i0", "i9"]  # the newest last
    text = "; ".join(new.manifest["warnings"])
    assert "3 interactions are new, 3 for training and 0 held out" in text
    assert "2 items are new; 1 of them stand in interactions alone" in text
    assert "1 rows are of items that the dataset has" in text
    assert new.manifest["steps"]["dropped by rating"] == old.manifest["steps"]["dropped by rating"] + 1
    assert new.manifest["updates"] == 1


def test_held_out_pairs_never_reach_training(old: Dataset, tmp_path: Path) -> None:
    held = sorted(pairs(old, 1) | pairs(old, 2))
    rows = [(user, item, 5.0, DAY) for user, item in held] + [("u0", "i5", 5.0, DAY), ("u0", "i5", 5.0, DAY + 9)]
    new = update(old, [monday(tmp_path / "monday", rows)], tmp_path / "new")
    assert pairs(new, 0) == pairs(old, 0) | {("u0", "i5")}
    assert pairs(new, 1) == pairs(old, 1) and pairs(new, 2) == pairs(old, 2)
    assert f"{len(held)} interactions are left out: the dataset has these pairs" in "; ".join(new.manifest["warnings"])
    assert new.manifest["steps"]["dropped as repeats"] == len(held) + 1


def test_a_split_column_is_followed(old: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(f"user,item,timestamp,split\nn,i0,{DAY},test\nn,i1,{DAY},\nn,i2,{DAY},valid\n")
    new = update(old, [file], tmp_path / "new")
    assert pairs(new, 0) - pairs(old) == {("n", "i1")}
    assert pairs(new, 1) - pairs(old) == {("n", "i2")} and pairs(new, 2) - pairs(old) == {("n", "i0")}


def test_items_alone_and_two_updates_in_a_row(old: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "spring.jsonl"
    file.write_text('{"sku": "s1", "title": "Spring"}\n')
    once = update(old.folder, [file], tmp_path / "once")
    assert once.n_items == old.n_items + 1 and once.train_digest != old.train_digest  # the catalogue counts
    twice = update(once, [monday(tmp_path / "m", [("u0", "s1", 5.0, DAY)])], tmp_path / "twice")
    assert twice.manifest["updates"] == 2 and pairs(twice) - pairs(old) == {("u0", "s1")}


def test_finer_times_are_cut_to_the_unit_of_the_dataset(old: Dataset, tmp_path: Path) -> None:
    file = tmp_path / "orders.csv"
    file.write_text(f"user,item,timestamp\nu0,i5,{DAY}500\n")
    new = update(old, [file], tmp_path / "new")
    assert DAY in new.interactions["timestamp"].to_list()
    assert "1 times are cut to the dataset's unit of 1/1 s" in new.manifest["warnings"][-1]


def test_features_that_came_with_the_data_get_rows_of_zeros(old: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "f.npy", np.ones((old.n_items, 3), np.float32))
    given = replace(old, features={"f": tmp_path / "f.npy"})
    new = update(given, [monday(tmp_path / "m", [("u0", "other", 5.0, DAY)])], tmp_path / "new")
    np.testing.assert_array_equal(np.load(new.features["f"])[-1], [0, 0, 0])
    assert "1 new items have zeros in the feature f" in new.manifest["warnings"][-1]


def test_vectors_beside_the_new_items_are_read_by_their_ids(old: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "own_feat.npy", np.ones((old.n_items, 2), np.float32))
    given = replace(old, features={"own_feat": tmp_path / "own_feat.npy"})
    items: list[dict[str, object]] = [{"id": "s1", "title": "Spring"}, {"id": "i3", "title": "Thing 3"}]
    folder = monday(tmp_path / "m", [("u0", "other", 5.0, DAY)], items)
    np.save(folder / "own_feat.npy", np.array([[2, 3], [4, 5]], np.float64))
    np.save(folder / "odd_feat.npy", np.ones((2, 9), np.float32))
    new = update(given, [folder], tmp_path / "new")
    vectors = dict(zip(new.item_ids, np.load(new.features["own_feat"]).tolist(), strict=True))
    assert vectors == {"i0": [1, 1], "i1": [1, 1], "i2": [1, 1], "i3": [4, 5], "i4": [1, 1], "i5": [1, 1]} | {
        "s1": [2, 3],
        "other": [0, 0],
    }
    assert [line for line in new.manifest["warnings"] if "_feat" in line] == [
        "2 items have new vectors in the feature own_feat",
        "1 new items have zeros in the feature own_feat",
        "odd_feat is not read: the dataset has no feature of this name",
    ]


def test_vectors_that_do_not_fit_the_new_items_are_refused(old: Dataset, tmp_path: Path) -> None:
    np.save(tmp_path / "own_feat.npy", np.ones((old.n_items, 2), np.float32))
    given = replace(old, features={"own_feat": tmp_path / "own_feat.npy"})
    folder = monday(tmp_path / "m", [("u0", "i5", 5.0, DAY)], [{"id": "s1"}, {"id": "s2"}])
    np.save(folder / "own_feat.npy", np.ones((3, 2), np.float32))
    with pytest.raises(InputError, match="own_feat.npy has 3 rows, new.jsonl has 2 of 2 items"):
        update(given, [folder], tmp_path / "new")
    np.save(folder / "own_feat.npy", np.ones((2, 5), np.float32))
    with pytest.raises(InputError, match="own_feat.npy has 5 columns, the dataset's 2"):
        update(given, [folder], tmp_path / "new")
    monday(tmp_path / "m", [("u0", "i5", 5.0, DAY)], [{"id": "s1"}, {"id": "s1"}])
    with pytest.raises(InputError, match="new.jsonl has 2 of 1 items; give a vector for each row, and each item once"):
        update(given, [folder], tmp_path / "new")


def test_what_is_refused(old: Dataset, tmp_path: Path) -> None:
    known = sorted(pairs(old, 0))[0]
    with pytest.raises(InputError, match="there is nothing new in"):
        update(old, [monday(tmp_path / "m", [(*known, 5.0, DAY)])], tmp_path / "new")
    timeless = tmp_path / "timeless.csv"
    timeless.write_text("user,item\nu0,i5\n")
    with pytest.raises(InputError, match="1 of 1 new interactions have no time"):
        update(old, [timeless], tmp_path / "new")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds nothing; wanted tables"):
        update(old, [tmp_path / "empty"], tmp_path / "new")
    with pytest.raises(InputError, match="is the dataset itself"):
        update(old, [tmp_path / "m"], old.folder)
    broken = tmp_path / "broken.csv"
    broken.write_text("user,item,timestamp\n" + f"u0,,{DAY}\n" * 9 + f"u0,i5,{DAY}\n")
    with pytest.raises(InputError, match="9 of 10 rows of broken.csv cannot be read"):
        update(old, [broken], tmp_path / "new")
    assert not (tmp_path / "new").exists()
    update(old, [monday(tmp_path / "m", [("u0", "i5", 5.0, DAY)])], tmp_path / "new")
    with pytest.raises(StorageError, match="holds a dataset already"):
        update(old, [tmp_path / "m"], tmp_path / "new")


def test_the_verb(old: Dataset, tmp_path: Path) -> None:
    folder = monday(tmp_path / "m", [("u0", "i5", 5.0, DAY), ("u0", "i9", 5.0, DAY)])
    words = ["update", str(old.folder), "--with", str(folder / "orders.csv"), "--out", str(tmp_path / "new"), "--json"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["items"] == 7
    assert CliRunner().invoke(app, words).exit_code == 1

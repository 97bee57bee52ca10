"""The MMRec layout, in and out."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.errors import InputError, MismatchError
from mllmrec.export.mmrec import export_mmrec
from mllmrec.features.encoder import normalize_rows


def inter(
    folder: Path,
    text: str = "userID\titemID\trating\ttimestamp\tx_label\n0\t0\t5\t1\t0\n0\t2\t5\t2\t1\n1\t0\t5\t1\t2\n",
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "baby.inter").write_text(text)
    return folder


def test_items_without_interactions_keep_their_row(tmp_path: Path) -> None:
    source = inter(tmp_path / "s")
    features = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.save(source / "text_feat.npy", features)
    made = prepare(source, tmp_path / "d")
    assert made.item_ids.to_list() == ["0", "1", "2", "3"]
    np.testing.assert_array_equal(np.load(made.features["text_feat"]), features)
    assert made.manifest["split"]["rule"] == "given"


def test_a_round_trip_changes_nothing(dataset: Dataset, vectors: np.ndarray, tmp_path: Path) -> None:
    export_mmrec(dataset, tmp_path / "out", item_features={"text_feat": vectors})
    again = prepare(tmp_path / "out", tmp_path / "d")
    assert again.users.to_list() == dataset.users.to_list()
    assert again.item_ids.to_list() == dataset.item_ids.to_list()
    assert again.interactions.equals(dataset.interactions)
    assert again.train_digest == dataset.train_digest
    export_mmrec(again, tmp_path / "out2", item_features={})
    first, second = (next((tmp_path / name).glob("*.inter")).read_bytes() for name in ("out", "out2"))
    assert first == second
    np.testing.assert_array_equal(np.load(tmp_path / "out2" / "text_feat.npy"), vectors)


def test_profiles_made_elsewhere_are_not_read(tmp_path: Path) -> None:
    source = inter(tmp_path / "s")
    np.save(source / "user_preferences_feat.npy", np.zeros((2, 3), np.float32))
    made = prepare(source, tmp_path / "d")
    assert not made.features
    assert "may have seen held-out items" in made.manifest["warnings"][0]


def test_arrays_of_objects_are_refused_before_they_are_unpickled(tmp_path: Path) -> None:
    source = inter(tmp_path / "s")
    np.save(source / "text_feat.npy", np.array([{"a": 1}] * 3, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="is not a plain .npy array"):
        prepare(source, tmp_path / "d")
    (source / "text_feat.npy").write_bytes(pickle.dumps([1, 2, 3]))
    with pytest.raises(InputError, match="is not a plain .npy array"):
        prepare(source, tmp_path / "d")


def test_features_with_nan_or_of_another_length_are_refused(tmp_path: Path, dataset: Dataset) -> None:
    source = inter(tmp_path / "s")
    array = np.zeros((3, 2), np.float32)
    array[1, 0] = np.nan
    np.save(source / "text_feat.npy", array)
    with pytest.raises(InputError, match="1 rows hold NaN or infinity, the first is item 1"):
        prepare(source, tmp_path / "d")
    np.save(source / "text_feat.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(InputError, match="text_feat.npy has 2 rows, but there are 3 items"):
        prepare(source, tmp_path / "d")
    with pytest.raises(MismatchError, match="feature 'x' has 1 rows"):
        export_mmrec(dataset, tmp_path / "o", item_features={"x": np.zeros((1, 1), np.float32)})


def test_a_missing_column_names_the_near_miss(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'x_label' \\(did you mean 'xlabel'\\?\\)"):
        prepare(inter(tmp_path / "s", "userID\titemID\txlabel\n0\t0\t0\n"), tmp_path / "d")


def test_ids_that_look_like_formulas_can_be_defused(tmp_path: Path) -> None:
    shop = tmp_path / "s"
    shop.mkdir()
    (shop / "interactions.csv").write_text("user,item\n=cmd(),-1\n@x,plain\n")
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=0))
    export_mmrec(made, tmp_path / "exact", item_features={})
    export_mmrec(made, tmp_path / "safe", item_features={}, spreadsheet=True)
    assert (tmp_path / "exact" / "u_id_mapping.csv").read_text().splitlines()[1:] == ["=cmd()\t0", "@x\t1"]
    assert (tmp_path / "safe" / "u_id_mapping.csv").read_text().splitlines()[1:] == ["'=cmd()\t0", "'@x\t1"]
    assert (tmp_path / "safe" / "i_id_mapping.csv").read_text().splitlines()[1:] == ["'-1\t0", "plain\t1"]


MAP = "id\tuserID\nx\t0\ny\t1\n"
ITEMS = "id\titemID\na\t0\nb\t1\nc\t2\n"


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ("id\tuserID\nx\t0\nx\t1\n", ITEMS, "u_id_mapping.csv:3: the id 'x' stands twice; one id has one number"),
        ("id\tuserID\nx\t0\ny\t0\n", ITEMS, "u_id_mapping.csv:3: the number 0 stands twice"),
        ("id\nx\ny\n", ITEMS, "u_id_mapping.csv:1: one column, 'id'; wanted the id and its number"),
        ("id\tuserID\nx\t0\n", ITEMS, "u_id_mapping.csv has no id for 1 numbers of the .inter file, as 1"),
        ("id\tuserID\nx\tzero\ny\t1\n", ITEMS, "u_id_mapping.csv:2: no id and number"),
        (MAP, "id\titemID\na\t0\nb\t1\n", "an interaction has the itemID 2, but i_id_mapping.csv has 2 ids"),
        (
            MAP,
            "id\titemID\na\t0\nb\t9\nc\t2\n",
            "i_id_mapping.csv maps 3 ids; wanted one for each number below 3",
        ),
        (MAP, "id\titemID\na\t0\nb\t1\nc\t3\n", "i_id_mapping.csv maps 3 ids; wanted one for each number below 3"),
        ("", ITEMS, "u_id_mapping.csv is empty"),
    ],
)
def test_maps_that_do_not_fit_are_one_line(tmp_path: Path, users: str, items: str, message: str) -> None:
    source = inter(tmp_path / "s")
    (source / "u_id_mapping.csv").write_text(users)
    (source / "i_id_mapping.csv").write_text(items)
    with pytest.raises(InputError, match=message):
        prepare(source, tmp_path / "d")


def test_a_map_may_name_more_than_the_interactions_hold(tmp_path: Path) -> None:
    source = inter(tmp_path / "s")
    (source / "u_id_mapping.csv").write_text("userID\tid\n0\tx\n1\ty\n2\tz\n")
    (source / "i_id_mapping.csv").write_text(ITEMS + "d\t3\n")
    made = prepare(source, tmp_path / "d")
    assert (made.users.to_list(), made.item_ids.to_list()) == (["x", "y"], ["a", "b", "c", "d"])


def test_an_empty_file_and_ids_that_are_no_numbers_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no interactions are left: baby.inter has none"):
        prepare(inter(tmp_path / "s", "userID\titemID\tx_label\n"), tmp_path / "d")
    with pytest.raises(InputError, match="1 of 2 rows of baby.inter .* at baby.inter:3: user '-1' is no number from 0"):
        prepare(inter(tmp_path / "s", "userID\titemID\tx_label\n0\t0\t0\n-1\t0\t0\n"), tmp_path / "d")


def test_a_huge_number_is_refused_before_items_are_made_of_it(tmp_path: Path) -> None:
    source = inter(tmp_path / "s", "userID\titemID\tx_label\n7\t150000000\t0\n")
    with pytest.raises(InputError, match="the largest itemID is 150000000 in 1 rows; ids must be numbers from 0"):
        prepare(source, tmp_path / "d")
    np.save(source / "text_feat.npy", np.ones((3, 2), np.float32))
    with pytest.raises(InputError, match="text_feat.npy has 3 rows, but there are 150000001 items"):
        prepare(source, tmp_path / "d")
    with pytest.raises(InputError, match="user '9999999999999999999' is no number from 0"):
        prepare(inter(source, "userID\titemID\tx_label\n9999999999999999999\t1\t0\n"), tmp_path / "d")


def test_recbole_files_keep_their_tokens(tmp_path: Path) -> None:
    source = inter(tmp_path / "s", "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\t007\t4\t1.6e9\n")
    (source / "baby.item").write_text("item_id:token\tmovie_title:token_seq\tgenre:token_seq\n007\tBond\tSpy\n")
    made = prepare(source, tmp_path / "d", PrepareOptions(k_core=0))
    assert made.items.select("id", "title", "categories").rows() == [("007", "Bond", ["Spy"])]
    assert made.interactions.select("rating", "timestamp").rows() == [(4, 1_600_000_000)]


@pytest.mark.parametrize("scale", [1e25, 1e-25, 1e-40, 1.0])
def test_features_of_any_scale_become_unit_vectors_and_zero_rows_are_counted(tmp_path: Path, scale: float) -> None:
    source = inter(tmp_path / "s")
    np.save(source / "text_feat.npy", (np.array([[3, 4], [0, 0], [-4, 3]]) * scale).astype(np.float32))
    made = prepare(source, tmp_path / "d")
    assert "text_feat.npy: 1 of 3 rows are zero; these items have no feature" in made.manifest["warnings"]
    unit = normalize_rows(np.load(made.features["text_feat"]))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [-0.8, 0.6]], rtol=1e-3 if scale == 1e-40 else 1e-6)


@pytest.mark.parametrize("scale", [1e200, 1e-200])
def test_features_beyond_float32_keep_their_direction(tmp_path: Path, scale: float) -> None:
    source = inter(tmp_path / "s")
    np.save(source / "text_feat.npy", np.array([[3, 4], [0, 0], [-4 / scale, 3 / scale]]) * scale)
    made = prepare(source, tmp_path / "d")
    unit = normalize_rows(np.load(made.features["text_feat"]))
    np.testing.assert_allclose(unit, [[0.6, 0.8], [0, 0], [-0.8, 0.6]], rtol=1e-6)
    line = "text_feat.npy: 1 rows exceed the range of float32; each was divided by its largest number"
    assert line in made.manifest["warnings"]
    np.save(source / "text_feat.npy", np.full((3, 2), np.inf))
    with pytest.raises(InputError, match="3 rows hold NaN or infinity"):
        prepare(source, tmp_path / "e")


def test_maps_divided_by_commas_are_read(tmp_path: Path) -> None:
    source = inter(tmp_path / "s")
    (source / "i_id_mapping.csv").write_text("asin,itemID\nx,0\nz,2\ny,1\n")
    assert prepare(source, tmp_path / "d").item_ids.to_list() == ["x", "y", "z"]


@pytest.mark.parametrize(
    "times",
    [
        ["1600000000800", "1600000000100", "1600000000200"],
        ["-1.25", "5e8", "0.5"],
        ["1969-12-31 23:59:58.75", "2020-01-01", "1970-01-01 00:00:00.5"],
        ["", "3", ""],
        ["7000000000002", "7000000000001", "3"],
    ],
)
def test_every_dataset_comes_back_from_its_export(tmp_path: Path, times: list[str]) -> None:
    shop = tmp_path / ".s"
    shop.mkdir()
    rows = zip(("a b", 'q"uote', "=f()"), ("007", "é|x", '"'), times, strict=True)
    table = pl.DataFrame([*rows], schema=["user", "item", "timestamp"], orient="row").with_columns(
        split=pl.Series(["train", "test", "valid"])
    )
    table.write_csv(shop / "interactions.csv")
    (shop / "items.jsonl").write_text('{"item": "never bought"}\n{"item": "007"}\n')
    made = prepare(shop, tmp_path / "d")
    export_mmrec(made, tmp_path / "out", item_features={"x_feat": np.eye(made.n_items, dtype=np.float32)})
    again = prepare(tmp_path / "out", tmp_path / "e")
    assert again.users.to_list() == made.users.to_list()
    assert again.item_ids.to_list() == made.item_ids.to_list()
    assert again.interactions.equals(made.interactions)
    assert again.ticks_per_second == made.ticks_per_second

"""The MMRec layout, in and out."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.errors import InputError, MismatchError
from mllmrec.export.mmrec import export_mmrec


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
    with pytest.raises(InputError, match="text_feat.npy has 2 rows for 3 items"):
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

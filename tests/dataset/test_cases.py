"""Shapes of data from public bug reports: each gives the right dataset or one line. Skipped where they are absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mllmrec.dataset import Dataset, PrepareOptions, parse_columns, prepare, statistics
from mllmrec.errors import InputError

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "cases"
LAST = {"k_core": 0, "split": "leave-one-out"}
WHOLE = (30, 20, 240)  # users, items and interactions of most cases

# Options, (users, items, interactions), items with text, rows left out.
READ: dict[str, tuple[dict[str, Any], tuple[int, int, int], int, int]] = {
    "a01_float_times": ({"k_core": 0}, WHOLE, 20, 0),
    "a02_iso_times": (LAST, WHOLE, 20, 0),
    "a04_utf16": (LAST, WHOLE, 20, 0),
    "a04b_utf16le_nobom": (LAST, WHOLE, 20, 0),
    "a06_tsv_quote": (LAST, WHOLE, 20, 0),
    "a06c_csv_inch_single": (LAST, WHOLE, 19, 1),
    "a06d_tsv_swallow": (LAST, WHOLE, 20, 0),
    "a07_tsv_user_quote": (LAST, WHOLE, 20, 0),
    "a08_space_after_comma": (LAST, WHOLE, 20, 0),
    "a09_nan_title": (LAST, WHOLE, 20, 0),
    "a10_sparse_jsonl_column": ({**LAST, "columns": {"title": "headline"}}, WHOLE, 20, 0),
    "a11_jsonl_row_without_id": (LAST, WHOLE, 19, 1),
    "a13_surrogate_item": (LAST, WHOLE, 20, 1),
    "a14_prices": (LAST, WHOLE, 20, 0),
    "a21_ms_order": (LAST, WHOLE, 20, 0),
    "a23_cr": (LAST, WHOLE, 20, 0),
    "a25_zero_padded": (LAST, (30, 40, 240), 20, 0),
    "a26_train_test_files": ({}, WHOLE, 20, 0),
    "a29_gz_upper": (LAST, WHOLE, 20, 0),
    "a31_multiline": (LAST, WHOLE, 19, 1),
    "a35_na_rating": (LAST, WHOLE, 20, 0),
    "a38_id_ws": (LAST, WHOLE, 20, 0),
    "a41_colname_differs": (
        {"k_core": 0, "columns": parse_columns(["user=klant", "interactions.item=artikel", "items.item=artikelnr"])},
        WHOLE,
        20,
        0,
    ),
    "b03_csv_missing": ({"k_core": 0}, (30, 20, 238), 0, 2),
    "b03c_csv_ragged": (LAST, (30, 20, 239), 0, 1),
    "b03d_csv_latin": (LAST, (30, 20, 239), 0, 1),
    "b06_dup_meta": (LAST, WHOLE, 20, 0),
    "b08_string_overall": ({**LAST, "min_rating": 4}, (30, 20, 102), 20, 0),
    "c02_recbole": (LAST, WHOLE, 0, 0),
    "c06_mapping_longer": ({}, (30, 22, 240), 0, 0),
    "c08_big_feats": ({}, WHOLE, 0, 0),
    "c15_tiny_feats": ({}, WHOLE, 0, 0),
    "e01_items_json": (LAST, WHOLE, 20, 0),
    "e02_sql_names": (LAST, WHOLE, 20, 0),
    "e05_parts": ({**LAST, "interactions": "orders.*.csv"}, WHOLE, 20, 0),
    "e06_bak": (LAST, WHOLE, 20, 0),
    "h02_two_users": (LAST, (2, 20, 12), 20, 0),
    "h11_no_test_part": ({}, WHOLE, 20, 0),
    "p06_datetime_ms": (LAST, WHOLE, 20, 0),
    "p09_nested_image": ({"k_core": 0}, WHOLE, 20, 0),
}
REFUSED = {
    "a24_dup_header": "interactions.csv:1: the column 'item' stands twice",
    "b09_two_dumps": "several files could be the interactions: Beauty.json, Toys.json",
    "c01_dup_mapping": "u_id_mapping.csv:3: the id 'x1' stands twice",
    "c13_empty_inter": "no interactions are left: shop.inter has none",
    "e01d_items_xlsx": "items.xlsx: .xlsx files are not read; save the sheet as .csv",
    "p01b_binary_bad": "240 of 240 rows of interactions.parquet cannot be read",
    "p02_list_id": "the user column 'user' is List",
    "p03_time": "the timestamp column 'time' is Time",
    "p07b_float_item_ids_big": "20 of 20 rows of items.parquet cannot be read, .* item 0.0 is a float",
}


def case(name: str) -> Path:
    """Return a case's folder; the test is skipped where it is absent."""
    if not (CASES / name).is_dir():
        pytest.skip(f"the case {name!r} is not here")
    return CASES / name


def last_items(dataset: Dataset) -> dict[str, str]:
    """Return the item of each user that is held out for the test."""
    rows = dataset.interactions.filter(split=2)
    return {dataset.users[user]: dataset.item_ids[item] for user, item in rows.select("user", "item").iter_rows()}


@pytest.mark.parametrize("name", READ)
def test_a_case_gives_the_right_dataset(tmp_path: Path, name: str) -> None:
    options, sizes, with_text, rejected = READ[name]
    numbers = statistics(prepare(case(name), tmp_path / "d", PrepareOptions(**options)))
    assert (numbers.users, numbers.items, numbers.interactions) == sizes
    assert (numbers.with_text, numbers.rejected) == (with_text, rejected)


@pytest.mark.parametrize("name", REFUSED)
def test_a_case_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=REFUSED[name]):
        prepare(case(name), tmp_path / "d", PrepareOptions(k_core=0))


@pytest.mark.parametrize("name", ["a21_ms_order", "p06_datetime_ms"])
def test_fractions_of_a_second_order_a_user(tmp_path: Path, name: str) -> None:
    made = prepare(case(name), tmp_path / "d", PrepareOptions(**LAST))
    assert last_items(made)["u000"] == "p018"
    assert made.manifest["read"]["time"]["unit"] == "ms"


def test_parts_give_the_split(tmp_path: Path) -> None:
    made = prepare(case("a26_train_test_files"), tmp_path / "d")
    assert made.manifest["split"]["rule"] == "given"
    assert statistics(made).splits == (200, 0, 40)


def test_the_backup_is_not_read(tmp_path: Path) -> None:
    made = prepare(case("e06_bak"), tmp_path / "d", PrepareOptions(**LAST))
    assert made.manifest["read"]["unread"] == ["interactions.bak.csv"]


def test_nobody_to_judge_is_one_warning(tmp_path: Path) -> None:
    warnings = prepare(case("h11_no_test_part"), tmp_path / "d").manifest["warnings"]
    assert [warning for warning in warnings if "no metric can be measured" in warning] == warnings
    assert len(warnings) == 1

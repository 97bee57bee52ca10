"""Quotes, encodings, line ends, ids and numbers: every cell means the same in every format."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from mllmrec.dataset import Dataset, PrepareOptions, parse_columns, prepare
from mllmrec.dataset.readers.delimited import split_fields
from mllmrec.errors import ConfigError, InputError

KEEP = PrepareOptions(k_core=0)
ALL = PrepareOptions(k_core=0, max_rejected=1)
TABLE = "user,item\nu,a\n"


def made(
    folder: Path, interactions: str, items: str = "", name: str = "items.csv", options: PrepareOptions = ALL
) -> Dataset:
    """Return the dataset of a csv file of interactions and an item table."""
    folder.mkdir(exist_ok=True)
    (folder / "interactions.csv").write_bytes(interactions.encode())
    if items:
        (folder / name).write_bytes(items.encode())
    return prepare(folder, folder / "dataset", options, force=True)


def rejects(dataset: Dataset) -> list[tuple[str, str]]:
    """Return file:line and reason of the rows that were left out."""
    rows = (json.loads(line) for line in (dataset.folder / "rejected.jsonl").read_text().splitlines())
    return [(row["where"], row["reason"]) for row in rows]


def titles(dataset: Dataset) -> dict[str, str | None]:
    return dict(dataset.items.select("id", "title").iter_rows())


@pytest.mark.parametrize(
    ("record", "fields", "fault"),
    [
        ('a,"b,c",d', ["a", "b,c", "d"], ""),
        ('a, "b ""x""" ,', ["a", 'b "x"', ""], ""),
        ('5" lamp,b"c', ['5" lamp', 'b"c'], ""),
        ('"",""', ["", ""], ""),
        ("", [""], ""),
        ('a,"b\nc",d', ["a", "b\nc", "d"], ""),
        ('a,"b,c', ["a"], "a quote opens and is not closed"),
        ('a,"b""', ["a"], "a quote opens and is not closed"),
        ('a,"b" c,d', ["a"], "text follows a closing quote"),
    ],
)
def test_fields_of_a_record(record: str, fields: list[str], fault: str) -> None:
    assert split_fields(record, ",") == (fields, fault)


def test_a_stray_quote_in_csv_costs_its_own_row_alone(tmp_path: Path) -> None:
    items = 'item,title,brand\na,Lamp,X\nb,"12 inch lamp,Y\nc,Vase,Z\nd,"Cup, small",Z\ne,5" nail,Z\n'
    dataset = made(tmp_path / "s", TABLE, items)
    assert titles(dataset) == {"a": "Lamp", "c": "Vase", "d": "Cup, small", "e": '5" nail'}
    assert rejects(dataset) == [("items.csv:3", "text follows a closing quote; double the quote, or remove it")]


def test_rows_between_two_stray_quotes_are_not_swallowed(tmp_path: Path) -> None:
    items = 'item,title,brand\na,"12 inch lamp,X\nb,Vase,Y\nc,Lamp 12",Z\n'
    dataset = made(tmp_path / "s", TABLE, items)
    assert titles(dataset) == {"b": "Vase", "c": 'Lamp 12"', "a": None}
    reason = "a quoted field takes in what look like rows, to line 4; double the quote, or remove it"
    assert rejects(dataset) == [("items.csv:2", reason)]


def test_a_quoted_line_break_is_text_and_later_lines_keep_their_number(tmp_path: Path) -> None:
    items = 'item,title,description\na,Lamp,"one\n\ntwo, with ""quotes""\nthree"\nb,Vase,"x"\n,none,\nc,Cup,y\n'
    dataset = made(tmp_path / "s", TABLE, items)
    assert dict(dataset.items.select("id", "description").iter_rows()) == {
        "a": 'one two, with "quotes" three',
        "b": "x",
        "c": "y",
    }
    assert rejects(dataset) == [("items.csv:7", "no item")]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (('a\t"Oak" lamp', 'b\t"Big lamp', 'c\tLamp, 12"'), ['"Oak" lamp', '"Big lamp', 'Lamp, 12"']),
        (('a\t"Big lamp', "b\tVase", 'c\tLamp 12"'), ['"Big lamp', "Vase", 'Lamp 12"']),
        (('a\t"Big lamp"', 'b\t"Say ""hi"""', "c\tVase"), ["Big lamp", 'Say "hi"', "Vase"]),
        (('a\t"Big lamp"', 'b\t"Say ""hi""', "c\tVase"), ['"Big lamp"', '"Say ""hi""', "Vase"]),
        (('a\t"one\ttwo"', "b\tVase", "c\tCup"), ["one two", "Vase", "Cup"]),
    ],
)
def test_tsv_is_quoted_only_where_all_of_it_is(tmp_path: Path, rows: tuple[str, ...], expected: list[str]) -> None:
    dataset = made(tmp_path / "s", TABLE, "item\ttitle\n" + "\n".join(rows) + "\n", "items.tsv")
    assert list(titles(dataset).values()) == expected
    assert rejects(dataset) == []


def test_a_user_with_a_quote_keeps_every_row_of_a_tsv(tmp_path: Path) -> None:
    (tmp_path / "interactions.tsv").write_text('user\titem\nu\ta\n"v\ta\n"v\tb\nw\ta\n')
    dataset = prepare(tmp_path, tmp_path / "d", KEEP)
    assert dataset.users.to_list() == ["u", '"v', "w"]
    assert len(dataset.interactions) == 4


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
def test_encodings_and_line_ends_change_nothing(tmp_path: Path, encoding: str, end: str, name: str) -> None:
    rows = ["item,title", "a,Stehlampe aus Böhmen", "b,Vase"]
    if name == "items.jsonl":
        rows = [
            json.dumps({"item": i, "title": t}, ensure_ascii=False) for i, t in (row.split(",") for row in rows[1:])
        ]
    (tmp_path / "interactions.csv").write_bytes(end.join(["user,item", "u,a", "u,b", ""]).encode(encoding))
    (tmp_path / name).write_bytes(end.join([*rows, ""]).encode(encoding))
    dataset = prepare(tmp_path, tmp_path / "d", KEEP)
    assert titles(dataset) == {"a": "Stehlampe aus Böhmen", "b": "Vase"}
    assert dataset.users.to_list() == ["u"]


def test_a_line_that_is_not_utf8_is_left_out_and_a_file_of_them_is_refused(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_bytes(b"user,item\nu,a\nu,caf\xe9\nu,b\n")
    dataset = prepare(tmp_path, tmp_path / "d", ALL)
    assert dataset.item_ids.to_list() == ["a", "b"]
    assert rejects(dataset)[0][0] == "interactions.csv:3"
    with pytest.raises(
        InputError, match="1 of 3 rows .* at interactions.csv:3: not UTF-8 text .*; save the file as UTF-8"
    ):
        prepare(tmp_path, tmp_path / "e", KEEP)


def test_ragged_rows_are_left_out_and_empty_surplus_is_nothing(tmp_path: Path) -> None:
    dataset = made(tmp_path / "s", "user,item,rating\nu,a,1\nu,b\nu,c,1,9\nu,d,1,,\n,,\nu,e,2\n")
    assert dataset.item_ids.to_list() == ["a", "d", "e"]
    reasons = [f"{n} fields, wanted 3; quote or correct it" for n in (2, 4)]
    assert rejects(dataset) == list(zip(["interactions.csv:3", "interactions.csv:4"], reasons, strict=True))


@pytest.mark.parametrize("mark", [",", ";", "|"])
def test_a_csv_file_is_divided_by_the_mark_of_its_header(tmp_path: Path, mark: str) -> None:
    items = "\n".join(
        [f"item{mark}title{mark}brand", f'a{mark}"Lamp, oak; small | old"{mark}X', f"b{mark}Vase{mark}Y", ""]
    )
    dataset = made(tmp_path / "s", f"user{mark}item\nu{mark}a\n", items)
    assert dict(dataset.items.select("title", "brand").iter_rows()) == {"Lamp, oak; small | old": "X", "Vase": "Y"}


def test_blanks_around_cells_and_headers_are_no_part_of_them(tmp_path: Path) -> None:
    dataset = made(
        tmp_path / "s",
        "user , item, rating\nu, a, 4\n u,b ,5\nu  , c,\n",
        '{"item": " a ", "title": "A"}\n',
        "items.jsonl",
    )
    assert dataset.users.to_list() == ["u"]
    assert dataset.item_ids.to_list() == ["a", "b", "c"]
    assert dataset.interactions["rating"].to_list() == [4, 5, None]
    assert titles(dataset)["a"] == "A"


@pytest.mark.parametrize("null", ["", " ", "nan", "NaN", "null", "NULL", "None", "\\N", "<NA>", "a\x00b", "x" * 1001])
def test_null_ids_are_left_out_of_every_format_and_listed(tmp_path: Path, null: str) -> None:
    frame = pl.DataFrame({"user": ["u", null, "u"], "item": ["a", "b", "c"]})
    for form in ("csv", "parquet", "jsonl"):
        folder = tmp_path / form
        folder.mkdir()
        path = folder / f"interactions.{form}"
        {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[form](path)
        dataset = prepare(folder, folder / "d", ALL)
        assert dataset.item_ids.to_list() == ["a", "c"], form
        line = 2 if form != "csv" else 3
        assert [where for where, _ in rejects(dataset)] == [f"interactions.{form}:{line}"]


@pytest.mark.parametrize("value", [None, 7.0, True, ["a"], {"id": "a"}, "half \ud83d", "two\nlines"])
def test_what_is_no_id_costs_its_json_row_alone(tmp_path: Path, value: Any) -> None:
    items = [{"item": "a", "title": "A"}, {"item": value, "title": "B"}, {"item": 7, "title": "C"}]
    dataset = made(tmp_path / "s", TABLE, "".join(json.dumps(row) + "\n" for row in items), "items.jsonl")
    assert titles(dataset) == {"a": "A", "7": "C"}
    assert [where for where, _ in rejects(dataset)] == ["items.jsonl:2"]
    rows = "".join(json.dumps({"user": "u", "item": row["item"]}) + "\n" for row in items)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "interactions.jsonl").write_text(rows)
    dataset = prepare(tmp_path / "t", tmp_path / "d", ALL)
    assert dataset.item_ids.to_list() == ["a", "7"]
    assert [where for where, _ in rejects(dataset)] == ["interactions.jsonl:2"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pl.Series([["u"]]), r"the user column 'user' is List\(String\); wanted text or integers"),
        (pl.Series([1.0]), "the user column 'user' is Float64: it cannot hold ids above 2\\^53"),
        (pl.Series([Decimal("1.50")]), "is Decimal.*: it cannot hold ids above"),
        (pl.Series([True]), "is Boolean; wanted text or integers"),
        (pl.Series([{"id": "u"}]), "is Struct.*; wanted text or integers"),
        (pl.Series([1]).cast(pl.Date), "is Date; wanted text or integers"),
    ],
)
def test_columns_of_parquet_that_hold_no_ids_are_refused(tmp_path: Path, column: pl.Series, message: str) -> None:
    pl.DataFrame({"user": column, "item": ["a"]}).write_parquet(tmp_path / "interactions.parquet")
    with pytest.raises(InputError, match=message):
        prepare(tmp_path, tmp_path / "d", KEEP)


@pytest.mark.parametrize(
    "column",
    [
        pl.Series([b"1", b"2"]),
        pl.Series(["1", "2"], dtype=pl.Categorical),
        pl.Series([1, 2], dtype=pl.UInt64),
        pl.Series([1, 2]).cast(pl.Decimal(10, 0)),
    ],
)
def test_columns_of_parquet_that_hold_ids_are_read(tmp_path: Path, column: pl.Series) -> None:
    pl.DataFrame({"user": column, "item": ["a", "b"]}).write_parquet(tmp_path / "interactions.parquet")
    assert prepare(tmp_path, tmp_path / "d", KEEP).users.to_list() == ["1", "2"]


def test_bytes_that_are_not_utf8_cost_their_row_alone(tmp_path: Path) -> None:
    pl.DataFrame({"user": [b"u", b"\xffu"], "item": ["a", "b"]}).write_parquet(tmp_path / "interactions.parquet")
    dataset = prepare(tmp_path, tmp_path / "d", ALL)
    assert dataset.users.to_list() == ["u"]
    assert [where for where, _ in rejects(dataset)] == ["interactions.parquet:2"]


def test_text_of_a_damaged_parquet_file_costs_its_row_alone(tmp_path: Path) -> None:
    path = tmp_path / "interactions.parquet"
    table = pl.DataFrame({"user": ["uuuu", "vvvv"], "item": ["a", "b"]}).to_arrow()
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=False)
    path.write_bytes(path.read_bytes().replace(b"vvvv", b"v\xb1vv"))
    dataset = prepare(tmp_path, tmp_path / "d", ALL)
    assert dataset.users.to_list() == ["uuuu"]
    assert [where for where, _ in rejects(dataset)] == ["interactions.parquet:2"]


def test_ratings_are_the_same_number_in_every_format(tmp_path: Path) -> None:
    cells = ["4", "4.0", " 4.5 ", "+3", "1e0", "", "NA", "nan", None]
    expected = [4, 4, 4.5, 3, 1, None, None, None, None]
    frame = pl.DataFrame({"user": "u", "item": [f"i{n}" for n in range(9)], "rating": cells})
    for form in ("csv", "parquet", "jsonl"):
        folder = tmp_path / form
        folder.mkdir()
        path = folder / f"interactions.{form}"
        {"csv": frame.write_csv, "parquet": frame.write_parquet, "jsonl": frame.write_ndjson}[form](path)
        assert prepare(folder, folder / "d", KEEP).interactions["rating"].to_list() == expected, form


@pytest.mark.parametrize("junk", ["four", "4,5", "4 stars", "inf", "0x4", "1_000", "٤", "1e999", "--4", "True"])
def test_junk_is_no_rating(tmp_path: Path, junk: str) -> None:
    dataset = made(tmp_path / "s", f'user,item,rating\nu,a,4\nu,b,"{junk}"\n')
    assert dataset.item_ids.to_list() == ["a"]
    assert rejects(dataset) == [("interactions.csv:3", f"rating is no number, such as 4.5: {junk!r}")]


def test_least_ratings_hold_for_numbers_that_are_text(tmp_path: Path) -> None:
    rows = [
        {"reviewerID": "A", "asin": f"B{n}", "overall": f"{n}.0", "unixReviewTime": "1600000000"} for n in range(1, 6)
    ]
    rows.append({"reviewerID": "A", "asin": "B6", "overall": float("nan"), "unixReviewTime": 1_600_000_000})
    (tmp_path / "Cups.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = prepare(tmp_path, tmp_path / "d", PrepareOptions(k_core=0, min_rating=4))
    assert dataset.item_ids.to_list() == ["B4", "B5", "B6"]
    assert "1 interactions have no rating; --min-rating keeps them" in dataset.manifest["warnings"]


def test_nan_and_infinity_of_json_are_nothing(tmp_path: Path) -> None:
    items = '{"item": "a", "title": NaN, "brand": Infinity, "price": -Infinity, "categories": [NaN, "Home"]}\n'
    row = made(tmp_path / "s", TABLE, items, "items.jsonl").items.row(0, named=True)
    assert (row["title"], row["brand"], row["price"], row["categories"]) == (None, None, None, ["Home"])


def test_rejects_are_judged_for_each_file(tmp_path: Path) -> None:
    rows = "".join(f"u{n},i{n % 10}\n" for n in range(1000))
    items = "".join(json.dumps({"item": float(n), "title": f"T{n}"}) + "\n" for n in range(10))
    with pytest.raises(
        InputError, match="10 of 10 rows of items.jsonl cannot be read, the first at items.jsonl:1: item 0.0 is a float"
    ):
        made(tmp_path / "s", f"user,item\n{rows}", items, "items.jsonl", KEEP)


@pytest.mark.parametrize(
    ("seen", "listed", "hint"),
    [
        (["002", "003"], ["2", "3"], "2 would be, without zeros in front"),
        (["AB", "CD"], ["ab", "cd"], "2 would be, in small letters"),
        (["7.0", "8.0"], ["7", "8"], "2 would be, without .0 at the end"),
        (["a-1", "a-2"], ["a1", "a2"], "2 would be, without blanks and punctuation"),
        (["a", "b"], ["x", "y"], "the table has 'x' and 'y'"),
        (["a", "b", "c"], ["a"], "1 of 3 interacted items are in items.csv: the interactions have 'b' and 'c'"),
    ],
)
def test_tables_that_do_not_meet_are_said(tmp_path: Path, seen: list[str], listed: list[str], hint: str) -> None:
    interactions = "user,item\n" + "".join(f"u,{name}\n" for name in seen)
    items = "item,title\n" + "".join(f"{name},T\n" for name in listed)
    warnings = made(tmp_path / "s", interactions, items).manifest["warnings"]
    assert sum(hint in warning for warning in warnings) == 1
    met = made(tmp_path / "t", interactions, "item,title\n" + "".join(f"{name},T\n" for name in seen))
    assert not any("interacted items" in warning for warning in met.manifest["warnings"])


def test_columns_are_named_for_one_table_or_for_both(tmp_path: Path) -> None:
    columns = parse_columns(["user=klant", "interactions.item=artikel", "items.item=nr", "title=naam", "brand="])
    options = PrepareOptions(k_core=0, columns=columns)
    dataset = made(tmp_path / "s", "klant,artikel\nu,a\n", "nr,naam,brand\na,Lamp,X\n", options=options)
    assert dataset.items.row(0, named=True)["title"] == "Lamp"
    assert dataset.items["brand"].to_list() == [None]
    assert [file["columns"] for file in dataset.manifest["read"]["files"]] == [
        {"user": "klant", "item": "artikel"},
        {"item": "nr", "title": "naam"},
    ]
    for assignment, message in (
        ("items.user=x", "no role 'items.user'"),
        ("shop.item=x", "no role 'shop.item'"),
        ("user", "cannot read --column 'user'"),
        ("user=", "cannot read --column 'user='"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_columns([assignment])
    for name, message in (
        ("title=nam", "no column 'nam' \\(did you mean 'naam'\\?\\)"),
        ("items.title=nam", "items.csv:1: no column 'nam' \\(did you mean 'naam'\\?\\)"),
        ("items.item=x", "items.csv:1: no column 'x'; there are: nr, naam, brand"),
    ):
        with pytest.raises(InputError, match=message):
            made(
                tmp_path / "s",
                "klant,artikel\nu,a\n",
                options=PrepareOptions(k_core=0, columns=columns | parse_columns([name])),
            )


def test_common_names_are_known_in_each_table(tmp_path: Path) -> None:
    dataset = made(tmp_path / "s", "User ID,product_id,stars\nu,a,4\n", "id,name\na,Lamp\n")
    assert (dataset.users[0], titles(dataset), dataset.interactions["rating"][0]) == ("u", {"a": "Lamp"}, 4)


@pytest.mark.parametrize("header", ["user,item,item", "user,item,Item", "user,Item ID,item_id"])
def test_a_doubled_header_is_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(InputError, match="interactions.csv:1: the column '.*' stands twice in the header; rename one"):
        made(tmp_path / "s", f"{header}\nu,a,b\n")


def test_a_column_may_be_missing_in_some_objects_and_an_empty_one_hides_none(tmp_path: Path) -> None:
    items = [
        {"item": "a", "headline": "A"},
        {"item": "b"},
        {"item": "c", "headline": None, "category": "", "genres": "X|Y"},
    ]
    options = PrepareOptions(k_core=0, columns={"title": "headline"})
    dataset = made(tmp_path / "s", TABLE, "".join(json.dumps(row) + "\n" for row in items), "items.jsonl", options)
    assert titles(dataset) == {"a": "A", "b": None, "c": None}
    assert dataset.items["categories"].to_list() == [[], [], ["X", "Y"]]
    with pytest.raises(InputError, match="no column 'heading' \\(did you mean 'headline'\\?\\)"):
        made(tmp_path / "s", TABLE, options=PrepareOptions(k_core=0, columns={"title": "heading"}))

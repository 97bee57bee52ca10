"""The files that are read: the exact name wins, declared parts are read together, otherwise one line stops."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import polars as pl
import pytest

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.errors import InputError

KEEP = PrepareOptions(k_core=0)
TABLE = "user,item\nu,a\n"
OTHER = "user,item\nu,b\n"


def shop(folder: Path, **files: str | bytes) -> Path:
    """Write files; a "__" in a name stands for a dot."""
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name.replace("__", ".")).write_bytes(data)
    return folder


def names(dataset: Dataset) -> list[str]:
    """Return the files that were read."""
    return [file["name"] for file in dataset.manifest["read"]["files"]]


def reviews(*items: str) -> str:
    """Return an Amazon dump in which users review items."""
    rows = [{"reviewerID": f"A{n}", "asin": item, "overall": 5, "unixReviewTime": 1} for n, item in enumerate(items)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_the_exact_name_wins_over_a_backup_and_the_backup_is_named(tmp_path: Path) -> None:
    files = {"interactions__csv": TABLE, "interactions__bak__csv": OTHER, "orders__csv": OTHER}
    items = {"items__jsonl": '{"item": "a", "title": "A"}\n', "items__old__jsonl": '{"item": "a", "title": "old"}\n'}
    made = prepare(shop(tmp_path / "s", **files, **items), tmp_path / "d", KEEP)
    assert made.item_ids.to_list() == ["a"]
    assert made.items["title"].to_list() == ["A"]
    assert names(made) == ["interactions.csv", "items.jsonl"]
    assert made.manifest["read"]["unread"] == ["interactions.bak.csv", "items.old.jsonl", "orders.csv"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (("interactions__csv", "interactions__tsv"), "interactions: interactions.csv, interactions.tsv; name it with"),
        (
            ("interactions__csv", "interactions__csv__gz"),
            "could be the interactions: interactions.csv, interactions.csv.gz",
        ),
        (("orders__csv", "ratings__csv"), "several files could be the interactions: ratings.csv, orders.csv"),
        (("orders__2023__csv", "orders__2024__csv"), "orders.2023.csv, orders.2024.csv; name it with --interactions"),
        (("a__inter", "b__inter"), "several files could be the interactions: a.inter, b.inter"),
        (("a__inter", "interactions__csv"), "several files could be the interactions: a.inter, interactions.csv"),
        (
            ("interactions__csv", "products__csv", "catalog__csv"),
            "several files could be the items: products.csv, catalog",
        ),
        (
            ("interactions__csv", "items__a__csv", "items__b__csv"),
            "several files could be the items: items.a.csv, items.b",
        ),
        (("interactions__xlsx",), "interactions.xlsx: .xlsx files are not read; save the sheet as .csv"),
        (("interactions__csv__zip",), "interactions.csv.zip: .zip files are not read; unpack it"),
        (("interactions__csv", "items__XLSX"), "items.XLSX: .xlsx files are not read; save the sheet as .csv"),
    ],
)
def test_what_is_not_clear_is_one_line_with_the_candidates(
    tmp_path: Path, files: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        prepare(shop(tmp_path / "s", **dict.fromkeys(files, TABLE)), tmp_path / "d", KEEP)


def test_a_pattern_reads_several_files_as_one_in_their_order(tmp_path: Path) -> None:
    folder = shop(tmp_path / "s", orders__2024__csv=OTHER, orders__2023__csv="item,user\na,u\n")
    made = prepare(folder, tmp_path / "d", PrepareOptions(k_core=0, interactions="orders.*.csv"))
    assert made.item_ids.to_list() == ["a", "b"]
    assert names(made) == ["orders.2023.csv", "orders.2024.csv"]
    for pattern, message in (("*.parquet", "has no file"), ("/etc/*", "is no pattern of files inside"), ("", "")):
        if pattern:
            with pytest.raises(InputError, match=message):
                prepare(folder, tmp_path / "e", PrepareOptions(k_core=0, interactions=pattern))


@pytest.mark.parametrize("form", ["interactions.{}.csv", "interactions_{}.csv", "{}.csv", "Ratings-{}.CSV"])
@pytest.mark.parametrize("valid", ["valid", "validation", "val", "dev"])
def test_parts_of_a_split_are_read_together_and_give_the_split(tmp_path: Path, form: str, valid: str) -> None:
    parts = {"train": "u,a", valid: "u,b", "test": "u,c"}
    folder = shop(tmp_path / "s", **{form.format(part): f"user,item\n{row}\n" for part, row in parts.items()})
    made = prepare(folder, tmp_path / "d")
    assert made.manifest["split"]["rule"] == "given"
    rows = made.interactions.sort("split")
    assert made.item_ids.gather(rows["item"]).to_list() == ["a", "b", "c"]
    assert rows["split"].to_list() == [0, 1, 2]


def test_parts_of_recbole_files_are_read_together(tmp_path: Path) -> None:
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    parts = {
        f"ml__{part}__inter": f"{header}u\t{item}\t{n}\n"
        for n, (part, item) in enumerate(zip(("train", "test"), "ab", strict=True))
    }
    made = prepare(
        shop(tmp_path / "s", **parts, ml__item="item_id:token\tmovie_title:token_seq\na\tAlien\n"), tmp_path / "d"
    )
    assert made.items["title"].to_list() == ["Alien", None]
    assert made.interactions["split"].to_list() == [0, 2]


@pytest.mark.parametrize("name", ["ITEMS.JSONL", "Items.json", "items.ndjson", "products.jsonl.GZ", "Catalogue.TSV"])
def test_a_catalogue_is_seen_under_every_common_name(tmp_path: Path, name: str) -> None:
    text = "item\ttitle\na\tLamp\n" if name.endswith("TSV") else '{"item": "a", "title": "Lamp"}\n'
    data = gzip.compress(text.encode()) if name.endswith("GZ") else text
    made = prepare(shop(tmp_path / "s", interactions__csv=TABLE, **{name: data}), tmp_path / "d", KEEP)
    assert made.items["title"].to_list() == ["Lamp"]


def test_a_json_array_is_read_row_by_row_with_its_lines(tmp_path: Path) -> None:
    rows = [
        '{"item": "a", "title": "Lamp", "price": NaN}',
        '{"title": "no id"}',
        "7",
        '{"item": "b",\n"title": "Vase"}',
    ]
    folder = shop(tmp_path / "s", interactions__csv=TABLE, items__json="[\n" + ",\n".join(rows) + "\n]\n")
    made = prepare(folder, tmp_path / "d", PrepareOptions(k_core=0, max_rejected=0.5))
    assert made.items.select("id", "title", "price").rows() == [("a", "Lamp", None), ("b", "Vase", None)]
    where = [json.loads(line)["where"] for line in (made.folder / "rejected.jsonl").read_text().splitlines()]
    assert where == ["items.json:3", "items.json:4"]
    for cut in ("[{", '[{"item": "a"}', '[{"item": "a"} {"item": "b"}]', "[\n\nnull,"):
        (folder / "items.json").write_text(cut)
        with pytest.raises(InputError, match=r"items.json:\d: the array is cut off or no JSON here|rows of items.json"):
            prepare(folder, tmp_path / "e", KEEP)


def test_two_dumps_or_the_meta_file_of_another_shop_stop(tmp_path: Path) -> None:
    folder = shop(
        tmp_path / "s",
        Beauty__json=reviews("B1"),
        Toys__json=reviews("T1"),
        meta_Toys__json='{"asin": "T1", "title": "Toy"}\n',
    )
    with pytest.raises(InputError, match="several files could be the interactions: Beauty.json, Toys.json"):
        prepare(folder, tmp_path / "d", KEEP)
    made = prepare(folder, tmp_path / "d", PrepareOptions(k_core=0, interactions="Toys.json"))
    assert (made.item_ids.to_list(), made.items["title"].to_list()) == (["T1"], ["Toy"])
    with pytest.raises(
        InputError, match="a file of an unusual name could be the items: meta_Toys.json; name it with --items"
    ):
        prepare(folder, tmp_path / "e", PrepareOptions(k_core=0, interactions="Beauty.json"))


@pytest.mark.parametrize("dump", ["reviews_Baby_5.json", "Baby_5.json", "Baby.jsonl", "baby.json"])
def test_a_dump_meets_its_meta_file(tmp_path: Path, dump: str) -> None:
    folder = shop(
        tmp_path / "s",
        **{dump: reviews("B1")},
        meta_Baby__json='{"asin": "B1", "title": "Cup"}\n',
        meta_Toys__json="{}\n",
    )
    assert prepare(folder, tmp_path / "d", KEEP).items["title"].to_list() == ["Cup"]


def test_other_content_than_the_name_says_is_named(tmp_path: Path) -> None:
    pl.DataFrame({"user": ["u"], "item": ["a"]}).write_parquet(tmp_path / "t.parquet")
    for content, message in (
        (b"PK\x03\x04....", "items.csv is an Excel workbook or a zip archive; save the sheet as .csv"),
        ((tmp_path / "t.parquet").read_bytes(), "items.csv is a parquet file; name it .parquet"),
        (b"\x00" * 100, "items.csv has no text, only NUL bytes"),
        (b"\x1f\x8b\x08\x00broken", "items.csv cannot be read, it is cut off, damaged or closed"),
    ):
        with pytest.raises(InputError, match=message):
            prepare(shop(tmp_path / "s", interactions__csv=TABLE, items__csv=content), tmp_path / "d", KEEP)
    packed = gzip.compress(b"item,title\na,Lamp\n")
    made = prepare(shop(tmp_path / "s", interactions__csv=TABLE, items__csv=packed), tmp_path / "d", KEEP)
    assert made.items["title"].to_list() == ["Lamp"]


def test_a_folder_without_an_item_table_says_so(tmp_path: Path) -> None:
    made = prepare(shop(tmp_path / "s", interactions__csv=TABLE, produkte__csv="item\na\n"), tmp_path / "d", KEEP)
    assert any("there is no item table" in warning for warning in made.manifest["warnings"])
    assert made.manifest["read"]["unread"] == ["produkte.csv"]


def test_packed_files_that_unpack_to_too_much_are_refused_early(tmp_path: Path) -> None:
    bomb = gzip.compress(b"user,item\n" + b"0" * (300 << 20), compresslevel=1)
    with pytest.raises(InputError, match="unpacks to over 256 MiB; .* permit it with --max-unpacked GIB"):
        prepare(shop(tmp_path / "s", interactions__csv__gz=bomb), tmp_path / "d", KEEP)
    options = PrepareOptions(k_core=0, max_unpacked=0.001)
    packed = gzip.compress(b"user,item\n" + b"u,a\n" * 500_000)
    with pytest.raises(InputError, match="unpacks to over 1 MiB"):
        prepare(shop(tmp_path / "s", interactions__csv__gz=packed), tmp_path / "d", options)
    assert prepare(tmp_path / "s", tmp_path / "d", KEEP).n_users == 1
    rows = pl.select(user=pl.lit("u").repeat_by(10_000_000)).explode("user").with_columns(item=pl.lit("a"))
    (tmp_path / "p").mkdir()
    rows.write_parquet(tmp_path / "p" / "interactions.parquet")
    with pytest.raises(InputError, match=r"unpacks to over \d+ MiB in 10,000,000 rows"):
        prepare(tmp_path / "p", tmp_path / "e", KEEP)
    with pytest.raises(InputError, match="interactions.csv.gz has over 10 rows; permit more with --max-rows"):
        prepare(tmp_path / "s", tmp_path / "e", PrepareOptions(k_core=0, max_rows=10))


def test_a_file_of_nothing_but_faults_ends_soon_and_lists_a_bounded_number(tmp_path: Path) -> None:
    folder = shop(tmp_path / "s", interactions__csv=TABLE, items__jsonl="{}\n" * 30_000)
    with pytest.raises(InputError, match="10,001 of the first 10,001 rows of items.jsonl cannot be read, .* no item"):
        prepare(folder, tmp_path / "d", KEEP)
    made = prepare(folder, tmp_path / "d", PrepareOptions(k_core=0, max_rejected=1))
    assert made.manifest["rejected"] == 30_000
    assert len((made.folder / "rejected.jsonl").read_text().splitlines()) == 10_000
    assert "rejected.jsonl lists the first 10,000 of 30,000 rows" in made.manifest["warnings"]
    blank = shop(tmp_path / "b", interactions__csv=TABLE, items__jsonl="\n" * 1_000_002)
    with pytest.raises(InputError, match="items.jsonl:1000001: over 1,000,000 blank lines"):
        prepare(blank, tmp_path / "e", KEEP)

"""Readers of plain tables: ids stay strings, and every fault names file, line, near miss and fix."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import polars as pl
import pytest
from PIL import Image

from mllmrec.dataset import PrepareOptions, load, parse_columns, prepare, statistics
from mllmrec.errors import ConfigError, InputError, LeakError, MismatchError, StorageError

KEEP = PrepareOptions(k_core=0)


def write(
    folder: Path, interactions: str, items: list[dict[str, object]] | None = None, name: str = "interactions.csv"
) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(interactions.encode())
    if items is not None:
        (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def test_ids_stay_the_strings_that_they_were(tmp_path: Path) -> None:
    shop = write(
        tmp_path / "s", "user,item\n007,1\n7,01\n9007199254740993,1\n", [{"item": 1, "title": "a"}, {"item": "01"}]
    )
    made = prepare(shop, tmp_path / "d", KEEP)
    assert made.users.to_list() == ["007", "7", "9007199254740993"]
    assert made.item_ids.to_list() == ["1", "01"]


def test_integer_columns_of_parquet_keep_every_digit_and_floats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    table = pl.DataFrame({"user": [2**53 + 1], "item": ["a"]})
    table.write_parquet(tmp_path / "s" / "interactions.parquet")
    assert prepare(tmp_path / "s", tmp_path / "d", KEEP).users[0] == str(2**53 + 1)
    table.cast({"user": pl.Float64}).write_parquet(tmp_path / "s" / "interactions.parquet")
    with pytest.raises(InputError, match="user column 'user' is Float64: it cannot hold ids above 2\\^53"):
        prepare(tmp_path / "s", tmp_path / "e", KEEP)


def test_byte_order_marks_and_windows_line_ends_are_read(tmp_path: Path) -> None:
    shop = write(tmp_path / "s", "\ufeffuser,item\r\na,x\r\nb,y\r\n")
    assert prepare(shop, tmp_path / "d", KEEP).item_ids.to_list() == ["x", "y"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("usr,item\na,x\n", "interactions.csv:1: no column for the user \\(is it 'usr'\\?\\).*--column user=usr"),
        ("user\titem\na\tx\n", "interactions.csv:1: wanted columns divided by ',', but .* rename the file to .tsv"),
        ("kunde,artikel\na,x\n", "no column for the user and the item; .*--column user=NAME --column item=NAME"),
        ("user,item\na,x\nb,y,z\n", "interactions.csv:3: 3 fields, wanted 2"),
        ("", "interactions.csv is empty"),
        ("user,item\n", "no interactions are left"),
    ],
)
def test_a_malformed_table_is_one_line_that_says_the_fix(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare(write(tmp_path / "s", text), tmp_path / "d", KEEP)
    assert not (tmp_path / "d").exists()


def test_extra_columns_are_ignored_and_columns_can_be_named(tmp_path: Path) -> None:
    shop = write(tmp_path / "s", "kunde,item,colour\na,x,red\n")
    options = PrepareOptions(k_core=0, columns=parse_columns(["user=kunde"]))
    assert prepare(shop, tmp_path / "d", options).users.to_list() == ["a"]
    with pytest.raises(ConfigError, match="no role 'usr' \\(did you mean 'user'\\?\\)"):
        parse_columns(["usr=kunde"])


def test_bad_rows_are_left_out_and_kept_with_file_and_line(tmp_path: Path) -> None:
    rows = "".join(f"u{n},x,4\n" for n in range(60))
    shop = write(tmp_path / "s", f"user,item,rating\n{rows},x,4\nv,x,four\n", [{"item": "x"}])
    with (shop / "items.jsonl").open("a") as file:
        file.write("{broken\n" + "[" * 100_000 + "\n[1]\n")
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=0, max_rejected=0.75))
    rejected = [json.loads(line) for line in (made.folder / "rejected.jsonl").read_text().splitlines()]
    assert [row["where"] for row in rejected] == [
        "interactions.csv:62",
        "interactions.csv:63",
        "items.jsonl:2",
        "items.jsonl:3",
        "items.jsonl:4",
    ]
    assert "rating is no number" in rejected[1]["reason"]
    with pytest.raises(
        InputError, match="2 of 62 rows of interactions.csv cannot be read, the first at interactions.csv:62: no user"
    ):
        prepare(shop, tmp_path / "e", PrepareOptions(k_core=0, max_rejected=0.01))


def test_gzipped_tables_read_like_plain_ones_and_a_cut_one_is_named(tmp_path: Path) -> None:
    shop = tmp_path / "s"
    shop.mkdir()
    packed = gzip.compress(b"user,item\n" + b"".join(b"u%d,x\n" % n for n in range(5000)))
    (shop / "interactions.csv.gz").write_bytes(packed)
    assert prepare(shop, tmp_path / "d", KEEP).n_users == 5000
    (shop / "interactions.csv.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(InputError, match="interactions.csv.gz"):
        prepare(shop, tmp_path / "e", KEEP)


def test_no_id_and_no_image_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(b"secret")
    ids = ["../secret", "/etc/passwd", "a" * 300, ".."]
    items: list[dict[str, object]] = [{"item": name} for name in ids]
    items += [
        {"item": "p", "image": "../secret.png"},
        {"item": "q", "image": "/etc/passwd"},
        {"item": "r", "image": "x\x00y"},
    ]
    shop = write(tmp_path / "s", "user,item\n" + "".join(f"u,{item['item']}\n" for item in items), items)
    (shop / "images").mkdir()
    made = prepare(shop, tmp_path / "d", KEEP)
    assert made.item_ids.to_list()[:4] == ids
    assert made.items["images"].list.len().sum() == 0
    warnings = " ".join(made.manifest["warnings"])
    assert "2 image paths lead out of the source folder" in warnings
    assert "1 image paths or addresses hold a character that none can have" in warnings
    assert sorted(path.name for path in made.folder.iterdir()) == [
        "interactions.parquet",
        "items.parquet",
        "manifest.json",
        "rejected.jsonl",
        "users.parquet",
    ]


def test_pictures_are_kept_by_content_and_equal_ones_once(tmp_path: Path) -> None:
    shop = write(tmp_path / "s", "user,item\nu,a\nu,b\nu,c\n", [{"item": "a"}, {"item": "b"}, {"item": "c"}])
    (shop / "images").mkdir()
    for name, color in (("a", "red"), ("b", "red"), ("c", "blue")):
        Image.new("RGB", (16, 16), color).save(shop / "images" / f"{name}.jpg")
    made = prepare(shop, tmp_path / "d", KEEP)
    assert len(list((made.folder / "images").iterdir())) == 2
    assert made.items["images"][0].to_list() == made.items["images"][1].to_list()


def test_text_is_cleaned_and_capped(tmp_path: Path) -> None:
    title = "A\u202e\x00B\ud800\n C" + "x" * 1_000_000
    made = prepare(
        write(tmp_path / "s", "user,item\nu,a\n", [{"item": "a", "title": title, "price": "$1,299.50"}]),
        tmp_path / "d",
        KEEP,
    )
    assert made.items["title"][0].startswith("A BC"[:1]) and len(made.items["title"][0]) <= 1000
    assert not set(made.items["title"][0]) & {"\x00", "\u202e", "\n", "\ud800"}
    assert made.items["price"][0] == 1299.5


def test_repeats_keep_the_earliest_and_equal_times_the_order_of_the_file(tmp_path: Path) -> None:
    text = "user,item,timestamp\nu,late,50\nu,a,20\nu,b,10\nu,c,10\nu,b,5\n"
    made = prepare(write(tmp_path / "s", text), tmp_path / "d", KEEP)
    names = made.item_ids.gather(made.interactions["item"]).to_list()
    assert names == ["b", "c", "a", "late"]
    assert any("1 interactions repeat" in warning for warning in made.manifest["warnings"])


def test_each_time_is_read_in_the_unit_that_its_size_tells(tmp_path: Path) -> None:
    text = "user,item,timestamp\nu,a,1700000000\nu,b,1700000001000\nu,c,1700000002000000\nu,d,1700000003000000000\n"
    made = prepare(write(tmp_path / "s", text), tmp_path / "d", KEEP)
    assert made.interactions["timestamp"].to_list() == [1700000000 + n for n in range(4)]
    forms = "1 in seconds, 1 in milliseconds, 1 in microseconds, 1 in nanoseconds"
    assert made.manifest["read"]["time"] == {"unit": "s", "form": forms}
    assert any(f"several forms: {forms}" in warning for warning in made.manifest["warnings"])


def test_a_given_split_with_one_pair_in_two_parts_is_a_leak(tmp_path: Path) -> None:
    with pytest.raises(LeakError, match="user 'u' with item 'a'"):
        prepare(write(tmp_path / "s", "user,item,split\nu,a,train\nu,a,test\n"), tmp_path / "d")
    with pytest.raises(InputError, match="the given split says 'holdout'"):
        prepare(write(tmp_path / "t", "user,item,split\nu,a,holdout\n"), tmp_path / "d")


def test_the_core_is_iterative_and_an_empty_one_says_what_to_change(tmp_path: Path) -> None:
    # u3 goes for want of items, then z for want of users.
    rows = [(u, i) for u in ("u1", "u2") for i in ("x", "y")] + [("u3", "z")]
    shop = write(tmp_path / "s", "user,item\n" + "".join(f"{u},{i}\n" for u, i in rows))
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=2))
    assert (made.n_users, made.n_items) == (2, 2)
    assert statistics(made).steps["dropped by k-core"] == 1
    with pytest.raises(InputError, match="left after the 5-core; lower --k-core"):
        prepare(shop, tmp_path / "e")


def test_the_same_input_gives_the_same_bytes(shop: Path, tmp_path: Path) -> None:
    folders = [prepare(shop, tmp_path / name, PrepareOptions(k_core=2)).folder for name in ("a", "b")]
    files = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert files[0] == files[1]


def test_what_is_no_dataset_is_never_overwritten(tmp_path: Path) -> None:
    shop = write(tmp_path / "s", "user,item\nu,a\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(StorageError, match="exists and is no dataset"):
        prepare(shop, tmp_path / "mine", KEEP, force=True)
    prepare(shop, tmp_path / "d", KEEP)
    with pytest.raises(StorageError, match="replace it with --force"):
        prepare(shop, tmp_path / "d", KEEP)
    assert prepare(shop, tmp_path / "d", KEEP, force=True).n_items == 1


def test_a_dataset_that_was_edited_is_refused(tmp_path: Path) -> None:
    made = prepare(write(tmp_path / "s", "user,item\nu,a\n"), tmp_path / "d", KEEP)
    table = pl.read_parquet(made.folder / "interactions.parquet")
    pl.concat([table, table]).write_parquet(made.folder / "interactions.parquet")
    with pytest.raises(MismatchError, match="interactions.parquet is not what prepare wrote"):
        load(made.folder)
    assert len(load(made.folder, verified=False).interactions) == 2  # a prediction reads what is there
    with pytest.raises(InputError, match="is no dataset"):
        load(tmp_path / "s")


def test_an_unknown_folder_says_what_it_holds_and_what_was_wanted(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "readme.txt").touch()
    with pytest.raises(InputError, match="holds readme.txt; wanted interactions"):
        prepare(tmp_path / "s", tmp_path / "d")


@pytest.mark.parametrize(
    ("name", "column", "sizes", "splits"),
    [
        ("amazon-scientific", "split_random", (8317, 4344, 58492), (41365, 8450, 8677)),
        ("movielens-posters", None, (662, 1805, 53541), None),
        ("amazon-sports", None, (35598, 18357, 296337), (218409, 37899, 40029)),
    ],
)
def test_real_data_keeps_its_published_sizes(
    real, tmp_path: Path, name: str, column: str | None, sizes, splits
) -> None:
    found = statistics(prepare(real(name), tmp_path / "d", PrepareOptions(split_column=column)))
    assert (found.users, found.items, found.interactions) == sizes
    assert splits is None or found.splits == splits
    if name == "movielens-posters":
        assert found.with_image == 1805


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
def test_a_header_in_the_middle_is_no_item_and_no_user(tmp_path: Path, suffix: str) -> None:
    mark = "," if suffix == "csv" else "\t"
    shop = write(tmp_path / "s", "user,item\na,x\nuser,item\nb,y\n".replace(",", mark), name=f"interactions.{suffix}")
    (shop / "items.csv").write_text("item,title\nx,X\n\ufeffItem,Title\ny,Y\n")
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=0, max_rejected=0.5))
    assert made.users.to_list() == ["a", "b"]
    assert made.items.select("id", "title").rows() == [("x", "X"), ("y", "Y")]
    assert (
        f"1 rows of interactions.{suffix} were left out, the first at interactions.{suffix}:3: the header again"
        in (made.manifest["warnings"])
    )


def test_camel_case_and_dates_are_columns(tmp_path: Path) -> None:
    shop = write(tmp_path / "s", "userId,itemId,orderDate\na,y,2024-02-01\na,x,2024-03-01\na,z,2024-01-01\n")
    (shop / "items.csv").write_text("itemId,itemName,imageLink\nx,X,https://img.example.org/x.jpg\n")
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=0, split="leave-one-out"))
    last = made.interactions.filter(split=2)["item"]
    assert made.item_ids[last[0]] == "x"
    row = made.items.row(by_predicate=pl.col("id") == "x", named=True)
    assert (row["title"], row["image_urls"]) == ("X", ["https://img.example.org/x.jpg"])


def test_words_for_no_value_are_no_title_and_no_id(tmp_path: Path) -> None:
    items: list[dict[str, object]] = [
        {"item": "x", "title": "nan", "brand": "None"},
        {"item": "y", "title": "Nan bread"},
    ]
    shop = write(tmp_path / "s", "user,item\na,x\na,N/A\nb,y\n", items)
    made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=0, max_rejected=0.5))
    assert made.items.select("id", "title", "brand").rows() == [("x", None, None), ("y", "Nan bread", None)]


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("items.json", '[{"item": "x"}]\n[{"item": "y"}]\n', r"items.json:2: text follows the end of the array"),
        ("items.json", '{\n "item": "x"\n}\n', r"items.json:1: JSON over several lines; wanted an object in each"),
        ("items.jsonl", '[\n {"item": "x"}\n]\n', r"items.jsonl:1: JSON over several lines; .* named .json"),
        ("items.jsonl", '[{"item": "x"}]\n', r"wanted an object, got list; name a file that is one array .json"),
    ],
)
def test_json_of_another_layout_is_refused_with_the_way_out(tmp_path: Path, name: str, text: str, line: str) -> None:
    shop = write(tmp_path / "s", "user,item\na,x\n")
    (shop / name).write_text(text)
    with pytest.raises(InputError, match=line):
        prepare(shop, tmp_path / "d", KEEP)


def test_messages_name_what_may_be_meant(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the first line looks like data: add one with the names of the columns"):
        prepare(write(tmp_path / "s", "u1,i1,1600000000\n"), tmp_path / "d", KEEP)
    shop = write(tmp_path / "t", "user,item\na,x\n")
    (shop / "items_old.jsonl").write_text('{"item": "x"}\n')
    made = prepare(shop, tmp_path / "e", KEEP)
    assert "is it one of items_old.jsonl? Name it with --items items_old.jsonl" in made.manifest["warnings"][0]
    (shop / "items_old.jsonl").rename(shop / "items.jsonl")
    (shop / "items.jsonl").write_bytes(b'{"item": "x"}\n{"item": "y", "title": "\xe9t\xe9"}\n')
    with pytest.raises(InputError, match=r"items.jsonl:2: not UTF-8 text; save the file as UTF-8"):
        prepare(shop, tmp_path / "f", KEEP)


def test_base64_in_a_cell_is_the_picture(tmp_path: Path) -> None:
    shop = write(tmp_path / "s", "user,item\na,x\n")
    Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg")
    cell = base64.b64encode((tmp_path / "x.jpg").read_bytes()).decode()
    (shop / "items.jsonl").write_text(json.dumps({"item": "x", "image": cell}))
    made = prepare(shop, tmp_path / "d", KEEP)
    with Image.open(made.folder / made.items["images"][0][0]) as picture:
        assert picture.size == (20, 10)

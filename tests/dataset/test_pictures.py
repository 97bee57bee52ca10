"""Pictures are found in every form that a shop's table holds, and whatever is not taken is counted."""

from __future__ import annotations

import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from PIL import Image

from mllmrec.dataset.picture_store import copy_pictures
from mllmrec.dataset.readers.pictures import Pictures
from mllmrec.foundation import storage
from mllmrec.foundation.progress import silent

A, B = "https://img.example.org/a.jpg", "https://img.example.org/b.jpg"
CASES = Path(__file__).parents[3] / "shared" / "cases"


def picture(color: str = "red", kind: str = "JPEG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (24, 24), color).save(data, kind)
    return data.getvalue()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    for name in ("images/p1.jpg", "images/p2.PNG", "images/p3.gif", "pics/x y.jpg", "pics/a, b.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture())
    return folder


def find(shop: Path, *values: Any, item: str = "none") -> tuple[list[str], list[str]]:
    """Return the files, by their names in the shop, and the addresses."""
    files, addresses = Pictures(shop).find(values, item)
    return [str(Path(file).relative_to(shop)) for file in files], addresses


@pytest.mark.parametrize(
    "value",
    [
        "images/p1.jpg",
        " images/p1.jpg ",
        "images\\p1.jpg",
        "./images/p1.jpg",
        "/images/p1.jpg",
        "p1.jpg",
        "images/p1.jpg|images/p1.jpg",
        "['images/p1.jpg']",
        '["images/p1.jpg"]',
        '{"path": "images/p1.jpg", "bytes": null}',
        ["images/p1.jpg", None, float("nan")],
        ("images/p1.jpg",),
        [["images/p1.jpg"]],
        {"path": "images/p1.jpg", "bytes": None},
        {"file_name": "images/p1.jpg"},
        {"image": ["images/p1.jpg"]},
    ],
)
def test_a_file_of_the_shop_is_found_in_every_form(shop: Path, value: Any) -> None:
    assert find(shop, value) == (["images/p1.jpg"], [])


@pytest.mark.parametrize(
    ("value", "addresses"),
    [
        (A, [A]),
        (f"\t{A} \n", [A]),
        ("HTTPS://IMG.example.org/a.jpg", ["HTTPS://IMG.example.org/a.jpg"]),
        ("//img.example.org/a.jpg", [A]),
        (f"{A}|{B}", [A, B]),
        (f"{A}, {B}", [A, B]),
        (f"{A};{B}", [A, B]),
        (f"{A} {B}", [A, B]),
        (f"{A}\n{B}", [A, B]),
        ("https://x.org/a,b;c.jpg?u=1,2", ["https://x.org/a,b;c.jpg?u=1,2"]),
        (f"['{A}' '{B}']", [A, B]),  # as NumPy prints two
        ([A, B, A], [A, B]),
        # Amazon 2023: a list of objects, and Hugging Face's columns of it
        ([{"hi_res": None, "large": A, "thumb": "https://t", "variant": "MAIN"}, {"hi_res": B, "large": "x"}], [A, B]),
        ({"hi_res": [None, B], "large": [A, "x"], "thumb": ["https://t", "y"], "variant": ["MAIN", "PT01"]}, [A, B]),
        (json.dumps({"hi_res": [None], "large": [A], "variant": ["MAIN"]}), [A]),
        ({"large": A}, [A]),
        ([{"url": A}, {"src": B}], [A, B]),
        ({A: [500, 500], B: [40, 40]}, [A, B]),
        ({"hi_res": None, "large": None, "variant": "MAIN"}, []),
        ({"hi_res": [], "large": [], "variant": []}, []),
    ],
)
def test_addresses_are_found_in_every_form(shop: Path, value: Any, addresses: list[str]) -> None:
    pictures = Pictures(shop)
    assert pictures.find([value], "none") == ([], addresses)
    assert list(pictures.warnings()) == []


def test_a_name_in_other_letters_is_that_file_where_there_is_one_only(shop: Path) -> None:
    for name in ("images/P1.JPG", "P1.jpg", "images\\P1.Jpg"):
        assert find(shop, name) == (["images/p1.jpg"], [])
    (shop / "images" / "P3.GIF").write_bytes(picture("blue"))
    assert find(shop, "images/p3.gif") == (["images/p3.gif"], [])
    assert find(shop, "images/P3.gif") == ([], [])
    assert find(shop, "../SHOP/images/p1.jpg") == ([], [])
    pictures = Pictures(shop)
    pictures.find(["P1.jpg"], "p9")
    assert list(pictures.warnings()) == ["1 image files were found under a name in other letters (capital or small)"]


def test_one_text_may_name_several_files(shop: Path) -> None:
    both = ["images/p1.jpg", "images/p2.PNG"]
    for value in ("images/p1.jpg|images/p2.PNG", "p1.jpg;p2.PNG", "p1.jpg, p2.PNG", "p1.jpg p2.PNG"):
        assert find(shop, value) == (both, [])
    assert find(shop, "pics/x y.jpg") == (["pics/x y.jpg"], [])
    assert find(shop, "pics/a, b.jpg") == (["pics/a, b.jpg"], [])


@pytest.mark.parametrize("empty", [None, "", " ", "nan", "[]", [], {}, [None], float("nan"), [""], {"large": None}])
def test_an_empty_alias_does_not_hide_a_filled_one(shop: Path, empty: Any) -> None:
    assert find(shop, empty, ["images/p1.jpg"]) == (["images/p1.jpg"], [])
    assert find(shop, empty, A, item="p1") == ([], [A])
    assert find(shop, empty, item="p1") == (["images/p1.jpg"], [])


def test_the_first_filled_alias_decides(shop: Path) -> None:
    assert find(shop, A, B) == ([], [A])
    assert find(shop, "gone.jpg", "images/p1.jpg") == (["images/p1.jpg"], [])


def test_an_item_without_a_name_has_the_file_of_its_id(shop: Path) -> None:
    assert find(shop, item="p1") == (["images/p1.jpg"], [])
    assert find(shop, item="p2") == (["images/p2.PNG"], [])
    assert find(shop, item="p3") == (["images/p3.gif"], [])
    assert find(shop, item="P1") == ([], [])
    (shop / "images" / "p2.jpg").write_bytes(picture())
    assert find(shop, item="p2") == (["images/p2.jpg"], [])
    for item in ("../shop/images/p1", "..", "images/p1", "x" * 300):
        assert find(shop, item=item) == ([], [])


def test_links_are_followed_the_same_way_by_name_and_by_id(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.jpg").write_bytes(picture())
    (shop / "images" / "in.jpg").symlink_to(shop / "pics" / "x y.jpg")
    (shop / "images" / "out.jpg").symlink_to(tmp_path / "outside.jpg")
    (shop / "images" / "loop.jpg").symlink_to(shop / "images" / "loop.jpg")
    pictures = Pictures(shop)
    for values, item in (([], "in"), (["images/in.jpg"], "none")):
        assert pictures.find(values, item) == ([str(shop / "pics" / "x y.jpg")], [])
    for values, item in (([], "out"), (["images/out.jpg"], "none")):
        assert pictures.find(values, item) == ([], [])
    assert pictures.find([], "loop") == ([], [])
    lines = sorted(pictures.warnings())
    assert lines[0].startswith("1 image files")
    assert lines[1] == "2 image paths lead out of the source folder and are ignored (for example, item 'out')"


def test_a_picture_inside_the_table_is_kept_by_its_content(shop: Path) -> None:
    data = picture("blue", "PNG")
    address = f"data:image/jpeg;base64,{base64.b64encode(data).decode()}"
    table = pl.DataFrame(
        {"image": [{"bytes": data, "path": "gone.jpg"}]},
        schema={"image": pl.Struct({"bytes": pl.Binary, "path": pl.String})},
    )
    struct = table.row(0, named=True)["image"]
    for value in (data, {"bytes": data, "path": None}, struct, [struct], address, address.rstrip("="), [address]):
        (file,), addresses = Pictures(shop).find([value], "none")
        assert Path(file).read_bytes() == data
        assert file.endswith(".png")
        assert addresses == []


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (17, "1 image values are neither text nor a picture (a number, true or false, a date) and are ignored"),
        (True, "1 image values are neither text nor a picture (a number, true or false, a date) and are ignored"),
        (0.5, "1 image values are neither text nor a picture (a number, true or false, a date) and are ignored"),
        ("gone.jpg", "1 image files are missing"),
        (["gone.jpg", "also.jpg"], "2 image files are missing"),
        ("images", "1 image files are missing"),
        ("../secret.jpg", "1 image paths lead out of the source folder and are ignored"),
        ("/etc/passwd", "1 image paths lead out of the source folder and are ignored"),
        ("a\x00b.jpg", "1 image paths or addresses hold a character that none can have and are ignored"),
        ("\ud800.jpg", "1 image paths or addresses hold a character that none can have and are ignored"),
        (f"{A}\udfff", "1 image paths or addresses hold a character that none can have and are ignored"),
        ("x" * 2000, "1 image paths or addresses are too long and are ignored"),
        (A + "x" * 9000, "1 image paths or addresses are too long and are ignored"),
        ("ftp://example.org/a.jpg", "1 image addresses are neither http nor https and are ignored"),
        ("s3://bucket/a.jpg", "1 image addresses are neither http nor https and are ignored"),
        ("x" * 300, "1 image files cannot be opened and are ignored"),
        ({"size": 3}, "1 image objects name no picture that can be found and are ignored"),
        (b"abc", "1 pictures inside the table cannot be used and are ignored"),
        ({"bytes": b"abc", "path": "x.jpg"}, "1 pictures inside the table cannot be used and are ignored"),
        ("data:image/jpeg;base64,/9j/AAAA", "1 pictures inside the table cannot be used and are ignored"),
        ("data:image/svg+xml,<svg/>", "1 pictures inside the table cannot be used and are ignored"),
        ([A] * 101, "1 items have more than 100 pictures; the rest are ignored"),
    ],
)
def test_what_is_not_taken_is_counted_with_its_reason(shop: Path, value: Any, line: str) -> None:
    pictures = Pictures(shop)
    files, addresses = pictures.find([value], "p9")
    assert files == []
    assert addresses in ([], [A])
    (warning,) = pictures.warnings()
    assert warning.startswith(f"{line} (for example, item 'p9'")


def test_a_file_that_may_not_be_read_is_counted(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    pictures = Pictures(shop)
    assert pictures.find(["images/p1.jpg"], "p9") == ([], [])
    assert list(pictures.warnings()) == ["1 image files cannot be opened and are ignored (for example, item 'p9')"]


def test_a_folder_whose_name_is_no_text_gives_its_pictures(tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    (folder / "images").mkdir(parents=True)
    (folder / "images" / "p1.jpg").write_bytes(picture())
    (folder / "images" / os.fsdecode(b"p\xe9.jpg")).write_bytes(picture())
    pictures = Pictures(folder)
    for values, item in ((["images/p1.jpg"], "none"), ([], "p1")):
        (file,), _ = pictures.find(values, item)
        assert Path(file.encode().decode()).read_bytes() == picture()


def test_hostile_nesting_ends(shop: Path) -> None:
    deep: Any = A
    for _ in range(5000):
        deep = [deep]
    pictures = Pictures(shop)
    assert pictures.find([deep], "p9") == ([], [])
    assert list(pictures.warnings()) == [
        "1 image objects name no picture that can be found and are ignored (for example, item 'p9')"
    ]
    assert find(shop, "[" * 100_000 + "]" * 100_000) == ([], [])
    assert len(find(shop, {"large": [A + str(n) for n in range(100_000)]})[1]) == 100


@pytest.mark.parametrize(
    ("case", "columns", "files", "addresses"),
    [
        ("b01_2018_image", ("image",), 0, 20),
        ("a09d_dict_image", ("image",), 0, 20),
        ("d01_upper_ext", (), 20, 0),
        ("d13_image_null_images_set", ("image", "images"), 20, 0),
        ("d14_images_null_image_set", ("images", "image"), 20, 0),
        ("d15_image_url_col", ("image_url",), 0, 20),
        ("d16_space_url", ("image",), 0, 20),
        ("d06_backslash", ("image",), 20, 0),
        ("d09_pipe_list", ("image",), 20, 0),
    ],
)
def test_the_collected_shops(case: str, columns: tuple[str, ...], files: int, addresses: int) -> None:
    if not (CASES / case).is_dir():
        pytest.skip("the collected shops are not here")
    pictures = Pictures(CASES / case)
    listing = next(path for path in (CASES / case).iterdir() if path.name.startswith(("items", "meta")))
    rows = [json.loads(line) for line in listing.read_text().splitlines()]
    found = [pictures.find([row[name] for name in columns], row.get("item") or row["asin"]) for row in rows]
    assert sum(len(local) for local, _ in found) == files
    assert sum(len(remote) for _, remote in found) == addresses
    assert list(pictures.warnings()) == []


def test_a_picture_that_may_not_be_read_is_no_fault_of_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(storage, "open_regular", refuse)
    copied, warnings = copy_pictures(pl.Series([["x.jpg"]]), tmp_path / "images", silent)
    assert copied.to_list() == [[]]
    assert warnings == ["1 image files cannot be read (1 x Permission denied)"]


def test_only_pictures_are_copied_and_the_rest_is_counted(tmp_path: Path) -> None:
    files = {
        "good.jpg": picture("red"),
        "good.jpeg": picture("green"),
        "png.jpg": picture("blue", "PNG"),
        "none": picture("white", "GIF"),
        "secret.jpg": b"root:x:0:0:root:/root:/bin/bash\n",
        "page.jpg": b"<html></html>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "empty.png": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    os.mkfifo(tmp_path / "pipe.jpg")
    names = [*files, "pipe.jpg", "gone.jpg", "good.jpg"]
    lists = pl.Series([[str(tmp_path / name)] for name in names] + [None], dtype=pl.List(pl.String))
    copied, warnings = copy_pictures(lists, tmp_path / "images", silent)
    kept = [row[0] if row else "" for row in copied.to_list()]
    assert [name.rpartition(".")[2] for name in kept] == ["jpg", "jpeg", "png", "gif", *[""] * 6, "jpg", ""]
    assert {(tmp_path / name).read_bytes() for name in kept if name} == set(list(files.values())[:4])
    assert len(list((tmp_path / "images").iterdir())) == 4
    assert warnings == [
        "1 image files are missing",
        "1 image files cannot be read (1 x it is no regular file)",
        "4 image files are no usable pictures (3 x unreadable picture: not a JPEG, PNG, WEBP, GIF, BMP picture; "
        "1 x the file is empty)",
    ]

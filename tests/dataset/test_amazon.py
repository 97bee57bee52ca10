"""Amazon dumps of three generations, and what hostile lines may not do."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from mllmrec.dataset import PrepareOptions, prepare
from mllmrec.dataset.readers.formats import Reading, parse_object
from mllmrec.dataset.readers.shop import read_shop
from mllmrec.dataset.readers.source import Rejects

KEEP = PrepareOptions(k_core=0)


def packed(path: Path, lines: list[str]) -> None:
    path.write_bytes(gzip.compress("".join(line + "\n" for line in lines).encode()))


def review(n: int, **changes: object) -> str:
    return json.dumps(
        {"reviewerID": f"A{n:013d}", "asin": f"B{n % 3:09d}", "overall": 5.0, "unixReviewTime": 1_400_000_000 + n}
        | changes
    )


def test_2014_meta_lines_are_python_literals_and_are_never_run(tmp_path: Path) -> None:
    marker = tmp_path / "run"
    packed(tmp_path / "reviews_Baby_5.json.gz", [review(n) for n in range(60)])
    lines = [
        "{'asin': 'B000000000', 'title': \"It's a chair\", 'categories': [['Baby', 'Chairs']], 'price': 9.5, 'imUrl': 'http://x/y.jpg'}",
        f"{{'asin': 'B000000001', 'title': __import__('pathlib').Path({str(marker)!r}).touch()}}",
        "{'asin': 'B000000001', 'categories': " + "[" * 5000 + "]" * 5000 + "}",
        "{'asin': 'B000000002', 'title': 'fine', 'categories': \"__import__('os').system('x')\"}",
    ]
    packed(tmp_path / "meta_Baby.json.gz", lines)
    made = prepare(tmp_path, tmp_path / "d", PrepareOptions(k_core=0, max_rejected=0.5))
    assert not marker.exists()
    first = made.items.row(0, named=True)
    assert (first["title"], first["categories"], first["image_urls"]) == (
        "It's a chair",
        ["Baby", "Chairs"],
        ["http://x/y.jpg"],
    )
    assert "__import__('os').system('x')" in made.items.filter(id="B000000002")["categories"][0].to_list()
    rejected = (made.folder / "rejected.jsonl").read_text()
    assert "meta_Baby.json.gz:2" in rejected and "nested 5001 deep" in rejected


@pytest.mark.parametrize(
    "line", ["{" + "-" * 200_000 + "1}", "(" * 300 + ")" * 300, "{'a': 1", "lambda: 1", "{'a': b}"]
)
def test_hostile_literals_raise_what_the_reader_catches(line: str) -> None:
    with pytest.raises((ValueError, RecursionError)):
        parse_object(line.encode())


@pytest.mark.parametrize("item_first", [False, True])
def test_ratings_without_header_tell_users_from_items(tmp_path: Path, item_first: bool) -> None:
    rows = [(f"A{n:013d}", f"B{n % 3:09d}") for n in range(20)]
    lines = [f"{i},{u},4.0,1400000000" if item_first else f"{u},{i},4.0,1400000000" for u, i in rows]
    (tmp_path / "ratings_Baby.csv").write_text("\n".join(lines) + "\n")
    found = read_shop(tmp_path, {}, Reading(Rejects())).interactions.table()
    assert set(found["item"]) == {"B000000000", "B000000001", "B000000002"}
    assert found["user"].n_unique() == 20


def test_2023_lines_have_milliseconds_and_nested_images(tmp_path: Path) -> None:
    rows = [
        {"user_id": f"U{n}", "parent_asin": "B000000001", "rating": 4.0, "timestamp": 1_600_000_000_000 + n}
        for n in range(5)
    ]
    (tmp_path / "Baby.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    meta = {
        "parent_asin": "B000000001",
        "title": "Cup",
        "store": "Acme",
        "features": ["light"],
        "description": ["A cup."],
        "categories": ["Baby", "Cups"],
        "images": [{"large": "https://x/l.jpg", "hi_res": None}],
        "price": "$3.50",
    }
    (tmp_path / "meta_Baby.jsonl").write_text(json.dumps(meta) + "\n")
    made = prepare(tmp_path, tmp_path / "d", KEEP)
    item = made.items.row(0, named=True)
    assert (item["brand"], item["description"], item["price"]) == ("Acme", "A cup. light", 3.5)
    assert item["image_urls"] == ["https://x/l.jpg"]
    assert made.interactions["timestamp"].to_list() == [1_600_000_000_000 + n for n in range(5)]
    assert made.histories().times.tolist() == [1_600_000_000] * 5

"""Files are read some rows at a time: the dataset has the bytes of one piece, and memory does not grow with text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from bench import prepare_memory
from mllmrec.dataset import PrepareOptions, clean, dataset, prepare, summary
from mllmrec.dataset.readers import formats, interactions, items, reading
from mllmrec.dataset.readers.interactions import InteractionFile, read_interactions
from mllmrec.dataset.readers.source import Rejects
from mllmrec.errors import InputError, LeakError

GENERATOR = np.random.default_rng(7)


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Let every file and column be worked on in pieces of some rows."""

    def shrink() -> None:
        monkeypatch.setattr(reading, "_PIECE_BYTES", 60)
        for module in (formats, interactions, items):
            monkeypatch.setattr(module, "_PIECE_ROWS", 7)
        for module in (clean, dataset, summary):
            monkeypatch.setattr(module, "_SLICE", 11)

    return shrink


def rows(count: int = 400) -> list[tuple[str, str, str, str]]:
    """Return user, item, rating and time as text: repeats, equal times and missing values among them."""
    users, sold = GENERATOR.integers(0, 25, count), GENERATOR.integers(0, 30, count)
    ratings = GENERATOR.choice(["1", "2.5", "4", "5", ""], count)
    times = GENERATOR.integers(1_500_000_000, 1_500_000_060, count)
    return [
        (f"u{user}", f"i{item}", rating, "" if time % 17 == 0 else str(time))
        for user, item, rating, time in zip(users, sold, ratings, times, strict=True)
    ]


def as_csv(table: list[tuple[str, ...]], header: str = "user,item,rating,timestamp", end: str = "\n") -> bytes:
    return (end.join([header, *(",".join(row) for row in table)]) + end).encode()


def as_tsv(table: list[tuple[str, ...]]) -> bytes:
    return as_csv(table, "user,item,rating,timestamp").replace(b",", b"\t")


def odd_csv() -> bytes:
    """Return a table with a fault of every kind, and rows that span lines."""
    lines = as_csv(rows(120)).decode().split("\n")
    lines[20:20] = ['"u1","i\n1\n2",3,1500000000', 'u2,"i ""3""",5,1500000001', "u3,i4,5", 'u4,"i5,5,1500000002']
    lines[60:60] = ["", "user,item,rating,timestamp", "u5,i6,much,1500000003", ",i7,1,1500000004", "u6,i8,2,yesterday"]
    return "\n".join(lines).encode() + b"u7,\xff\xfe,1,1500000005\n" + b'u8,"i9\n\n\n10",1,1500000006'


def jsonl() -> bytes:
    objects = [{"user": u, "item": i, "rating": r or None, "timestamp": t} for u, i, r, t in rows(90)]
    broken = ["{", '{"user": 1.5, "item": "i1"}', '{"user": 7, "item": "i2", "overall": 3, "rating": ""}']
    return "\n".join([*(json.dumps(value) for value in objects), *broken]).encode()


def given_csv() -> bytes:
    table = list(dict.fromkeys((u, i) for u, i, _, _ in rows(300)))
    return as_csv(
        [(*pair, "", "", ("train", "Valid", "2")[n % 3]) for n, pair in enumerate(table)],
        "user,item,rating,timestamp,split",
    )


def two_time_columns() -> bytes:
    table = [(u, i, "", "" if n < 90 else f"2020-09-13 12:26:{n % 60}") for n, (u, i, _, _) in enumerate(rows(100))]
    return as_csv(table, "user,item,timestamp,date")


def parquet(folder: Path) -> None:
    users, sold, ratings, times = zip(*rows(), strict=True)
    table = pl.DataFrame({"user": users, "item": sold, "rating": ratings, "timestamp": times})
    table.with_columns(pl.col("timestamp").cast(pl.Int64, strict=False)).write_parquet(folder / "interactions.parquet")


SHOPS: dict[str, tuple[str, Callable[[], bytes], PrepareOptions]] = {
    "csv": ("csv", lambda: as_csv(rows()), PrepareOptions(k_core=3, min_rating=2)),
    "windows": ("csv", lambda: as_csv(rows(), end="\r\n"), PrepareOptions(k_core=2, split="cold-items")),
    "odd": ("csv", odd_csv, PrepareOptions(k_core=0, max_rejected=0.5)),
    "tsv": ("tsv", lambda: as_tsv(rows()), PrepareOptions(k_core=0)),
    "tsv with quotes": ("tsv", lambda: as_tsv(rows()) + b'"u 1"\t"i"\t\t\n', PrepareOptions(k_core=0)),
    "tsv with stray quotes": ("tsv", lambda: as_tsv(rows()) + b'u 1\t"i\t\t\n', PrepareOptions(k_core=0)),
    "jsonl": ("jsonl", jsonl, PrepareOptions(k_core=2, max_rejected=0.5)),
    "packed": ("csv.gz", lambda: gzip.compress(as_csv(rows())), PrepareOptions(k_core=2)),
    "given": ("csv", given_csv, PrepareOptions(split="given")),
    "two time columns": ("csv", two_time_columns, PrepareOptions(k_core=0)),
    "digits": ("csv", lambda: as_csv([(u, i, r, f"202009{n % 28 + 1:02}") for n, (u, i, r, _) in enumerate(rows())]),
               PrepareOptions(k_core=2, split="leave-one-out")),
    "order": ("csv", lambda: as_csv([(u, i, r, str(n)) for n, (u, i, r, _) in enumerate(rows())]),
              PrepareOptions(k_core=2, split="global-time")),
}  # fmt: skip


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize("shop", [*SHOPS, "parquet"])
def test_pieces_make_the_same_bytes(shop: str, in_pieces: Callable[[], None], tmp_path: Path) -> None:
    place = tmp_path / "shop"
    place.mkdir()
    (place / "items.csv").write_text("id,title\n" + "".join(f"i{n},title {n}\n" for n in range(3, 40)))
    options = PrepareOptions(k_core=2, split="user-time") if shop == "parquet" else SHOPS[shop][2]
    if shop == "parquet":
        parquet(place)
        options = PrepareOptions(k_core=2)
    else:
        (place / f"interactions.{SHOPS[shop][0]}").write_bytes(SHOPS[shop][1]())
    whole = prepare(place, tmp_path / "whole", options)
    in_pieces()
    prepare(place, tmp_path / "pieces", options)
    found = content(tmp_path / "pieces")
    assert found == content(tmp_path / "whole")
    assert len(whole.interactions) > 20
    if shop == "odd":
        listed = [json.loads(line)["where"] for line in found["rejected.jsonl"].splitlines()]
        assert len(listed) == whole.manifest["rejected"] == 9


@pytest.mark.parametrize(("k", "least"), [(0, None), (2, 2.0), (5, None), (9, 4.0)])
def test_rules_keep_the_rows_that_they_say(
    k: int, least: float | None, in_pieces: Callable[[], None], tmp_path: Path
) -> None:
    in_pieces()
    (tmp_path / "i.csv").write_bytes(as_csv(rows(900)))
    read = read_interactions([InteractionFile(tmp_path / "i.csv")], {}, formats.Reading(Rejects()))
    table = read.table().with_row_index()
    want = table.filter(pl.col("rating").is_null() | (pl.col("rating") >= least)) if least else table
    want = want.sort("timestamp", maintain_order=True, nulls_last=False)
    want = want.unique(["user", "item"], keep="first", maintain_order=True)
    single = clean.drop_repeats(read, clean.oldest_first(read, least), given=False)
    assert single.tolist() == want["index"].to_list()
    rounds = 0
    while k > 1:
        rounds += 1
        core = want.filter((pl.len().over("user") >= k) & (pl.len().over("item") >= k))
        if len(core) == len(want):
            break
        want = core
    found, counted = clean.k_core(read, single, k)
    assert found.tolist() == want["index"].to_list() and counted == rounds
    appeared = read.rows.items.gather(clean.by_appearance(read.rows.item, found, len(read.rows.items)))
    assert appeared.to_list() == want["item"].unique(maintain_order=True).to_list()


def test_a_leak_names_the_pair_that_comes_first_in_the_file(in_pieces: Callable[[], None], tmp_path: Path) -> None:
    in_pieces()
    table = [(f"u{n % 20}", f"i{n % 12}", "", str(90 - n % 60), "train") for n in range(60)]
    table[31:31] = [("u11", "i11", "", "5", "test"), ("u1", "i1", "", "5", "test"), ("u1", "i1", "", "5", "")]
    (tmp_path / "interactions.csv").write_bytes(as_csv(table, "user,item,rating,timestamp,split"))
    with pytest.raises(LeakError, match="2 user-item pairs in more than one of its parts, the first is user 'u1' with"):
        prepare(tmp_path, tmp_path / "d")


def test_a_table_of_blank_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "interactions.csv").write_text(",,\n,,\n")
    with pytest.raises(InputError, match=r"interactions\.csv has nothing but blank cells"):
        prepare(tmp_path, tmp_path / "d")


@pytest.mark.slow
def test_memory_grows_by_the_numbers_of_a_row_alone(tmp_path: Path) -> None:
    peaks = []
    for rows in (5_000_000, 12_000_000):
        prepare_memory.write_shop(tmp_path / f"shop{rows}", rows)
        found = prepare_memory.measure(tmp_path / f"shop{rows}", tmp_path / f"dataset{rows}")
        assert found.interactions > 0.9 * rows
        peaks.append(found.peak)
    assert (peaks[1] - peaks[0]) / 7e6 < 80  # bytes a row; its text cells would take a hundred and more

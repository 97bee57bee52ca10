"""Damage the files of small shops and prepare them: each ends as a dataset or as one line, and no row is lost unsaid.

python -m tests.dataset.door_fuzz --inputs 10000 --seed 1
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import signal
import sys
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from mllmrec.dataset import Dataset, PrepareOptions, prepare
from mllmrec.errors import MllmrecError
from mllmrec.export.mmrec import export_mmrec
from tests.dataset.shop_forms import Form, Purchase, write_shop

SECONDS = 10  # that one input may take
MESSAGE_CHARACTERS = 3000
_PLAIN = Form("csv", False, "utf-8", "\n", csv.QUOTE_MINIMAL, "user", "item", "timestamp", "s.f", True, False)
Files = dict[str, bytes]


class TooSlowError(Exception):
    """An input took longer than SECONDS."""


def shops(folder: Path) -> Iterator[Files]:
    """Yield whole shops, as file by name, in every form that the reader takes."""
    purchases = [
        Purchase(f"u{user}", f"{item:03d}", 1.0 + item % 5, 1_600_000_000_000 + 60_001 * item + user)
        for user in range(8)
        for item in range(user, user + 6)
    ]
    titles = {f"{item:03d}": f'Lamp, "{item}" inch' for item in range(13)}
    for kind in ("csv", "tsv", "jsonl", "json", "parquet"):
        for clock in ("ms", "iso", "digits"):
            for packed, encoding in ((False, "utf-8"), (True, "utf-8"), (False, "utf-16")):
                where = folder / f"{kind}-{clock}-{packed}-{encoding}"
                where.mkdir()
                write_shop(
                    where,
                    purchases,
                    titles,
                    Form(**{**vars(_PLAIN), "kind": kind, "clock": clock, "packed": packed, "encoding": encoding}),
                )
                yield _files(where)
    yield _amazon(purchases, titles)
    made = prepare(folder / "csv-ms-False-utf-8", folder / "d", PrepareOptions(k_core=0))
    export_mmrec(made, folder / "mmrec", item_features={"text_feat": np.eye(made.n_items, dtype=np.float32)})
    yield _files(folder / "mmrec")


def _files(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _amazon(purchases: list[Purchase], titles: dict[str, str]) -> Files:
    rows = [
        {"reviewerID": f"A{row.user}", "asin": row.item, "overall": row.rating, "unixReviewTime": 1_600_000_000 + n}
        for n, row in enumerate(purchases)
    ]
    meta = [
        {"asin": item, "title": title, "categories": [["Home", "Lamps"]], "imUrl": "http://x/y.jpg"}
        for item, title in titles.items()
    ]
    return {
        "reviews_Lamps_5.json.gz": gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()),
        "meta_Lamps.json": "".join(f"{row!r}\n" for row in meta).encode(),
    }


def flip_bits(data: bytes, draw: random.Random) -> bytes:
    """Change some bits."""
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 3, 20))):
        damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
    return bytes(damaged)


def cut(data: bytes, draw: random.Random) -> bytes:
    """Leave out the end, or a piece in the middle."""
    start, end = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if draw.random() < 0.5 else data[:start] + data[end:]


def double_lines(data: bytes, draw: random.Random) -> bytes:
    """Repeat, swap or drop lines."""
    lines = data.splitlines(keepends=True)
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    if draw.random() < 0.4:
        lines[first], lines[second] = lines[second], lines[first]
    else:
        lines[second:second] = [lines[first]] * draw.choice((1, 1, 2, 50))
    return b"".join(lines)


def swap_columns(data: bytes, draw: random.Random) -> bytes:
    """Exchange two fields in all lines, or in one."""
    lines = data.split(b"\n")
    mark = b"\t" if b"\t" in lines[0] else b","
    width = len(lines[0].split(mark))
    one, other = draw.randrange(width), draw.randrange(width)
    chosen = range(len(lines)) if draw.random() < 0.5 else [draw.randrange(len(lines))]
    for n in chosen:
        fields = lines[n].split(mark)
        if len(fields) > max(one, other):
            fields[one], fields[other] = fields[other], fields[one]
        lines[n] = mark.join(fields)
    return b"\n".join(lines)


def insert_text(data: bytes, draw: random.Random) -> bytes:
    """Put in what parsers trip over."""
    pieces = (
        b'"',
        b"'",
        b",",
        b"\t",
        b"\n",
        b"\r",
        b"\x00",
        b"\xff\xfe",
        b"NaN",
        b"[" * 200,
        b"\\ud83d",
        b"{",
        b"9" * 400,
        b"1e999",
        b"-",
    )
    at = draw.randrange(len(data) + 1)
    return data[:at] + draw.choice(pieces) * draw.choice((1, 1, 2)) + data[at:]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    flip_bits,
    cut,
    double_lines,
    swap_columns,
    insert_text,
)


def mutate(files: Files, draw: random.Random) -> Files:
    """Damage one file or two, packed ones also inside."""
    damaged = dict(files)
    for name in draw.sample(sorted(files), k=min(len(files), draw.choice((1, 1, 2)))):
        data = damaged[name]
        inside = data[:2] == b"\x1f\x8b" and draw.random() < 0.7
        data = gzip.decompress(data) if inside else data
        for _ in range(draw.choice((1, 1, 2))):
            if data:
                data = draw.choice(MUTATIONS)(data, draw)
        damaged[name] = gzip.compress(data) if inside else data
    return damaged


def try_input(files: Files, folder: Path) -> str:
    """Prepare a shop: return "dataset" or "refused".

    Raises:
        Exception: anything that is not one line for a person, or a row that is not accounted for.
    """
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    try:
        with _at_most(SECONDS):
            made = prepare(folder, folder / "dataset", PrepareOptions(k_core=0, max_rejected=0.9))
    except MllmrecError as error:
        if not 0 < len(str(error)) < MESSAGE_CHARACTERS:
            raise AssertionError(f"a message of {len(str(error))} characters") from error
        return "refused"
    check_rows(made, files)
    return "dataset"


def check_rows(made: Dataset, files: Files) -> None:
    """Check that each row of each file was read or counted as left out, and each row read was kept or counted."""
    steps = made.manifest["steps"]
    drops = sum(steps[f"dropped {step}"] for step in ("by rating", "as repeats", "by k-core"))
    assert steps["interactions read"] == len(made.interactions) + drops
    read = 0
    for file in made.manifest["read"]["files"]:
        read += file["rows"] - file["rejected"] if file["table"] == "interactions" else 0
        rows = count_rows(file["name"].lower(), files[file["name"]])
        assert rows is None or file["rows"] == rows, f"{file['name']}: {file['rows']} rows of {rows}"
    assert steps["interactions read"] == read


def count_rows(name: str, data: bytes) -> int | None:
    """Count the rows of a file by simple means; None where these do not suffice."""
    if name.endswith(".parquet"):
        return int(pq.read_metadata(io.BytesIO(data)).num_rows)
    try:
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace")
    except (OSError, EOFError, zlib.error, UnicodeError):
        return None
    if "\x00" in text:
        return None  # UTF-16 whose mark is damaged
    lines = [line for line in text.replace("\r\n", "\n").split("\n") if line.strip(" \t\r\n,")]
    if name.removesuffix(".gz").endswith((".jsonl", ".json")):
        return None if text.lstrip()[:1] == "[" else len([line for line in text.split("\n") if line.strip()])
    may_span_lines = '"' in text and not name.removesuffix(".gz").endswith((".tsv", ".inter"))
    return None if may_span_lines or "\r" in text.replace("\r\n", "") else len(lines) - 1


@contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def stop(_: int, __: FrameType | None) -> None:
        raise TooSlowError(f"over {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def fuzz(inputs: int, seed: int) -> tuple[Counter[str], float, list[str]]:
    """Try damaged shops.

    Args:
        inputs: number of shops.
        seed: of the damage.

    Returns:
        Number of shops by outcome, the longest time in seconds, and a report of each failure.
    """
    outcomes: Counter[str] = Counter()
    longest, failures = 0.0, []
    with tempfile.TemporaryDirectory() as name:
        whole = list(shops(Path(name)))
    for n in range(inputs):
        draw = random.Random(seed * 1_000_003 + n)
        files = mutate(draw.choice(whole), draw)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as name:
            try:
                outcomes[try_input(files, Path(name, "shop"))] += 1
            except (Exception, pl.exceptions.PanicException):
                outcomes["failed"] += 1
                failures.append(f"input {n} of seed {seed}:\n{traceback.format_exc(limit=-4)}")
        longest = max(longest, time.monotonic() - start)
    return outcomes, longest, failures


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    start = time.monotonic()
    outcomes, longest, failures = fuzz(options.inputs, options.seed)
    took = f"the longest {longest:.1f} s, all {time.monotonic() - start:.0f} s"
    sys.stdout.write("\n".join([*failures[:20], f"{dict(outcomes)} of {options.inputs} inputs, {took}\n"]))


if __name__ == "__main__":
    main()

"""Prepare shops of several sizes, and print what each took: seconds, and the most memory that the process held.

    python -m bench.prepare_memory FOLDER ROWS [ROWS ...]

A shop is one parquet file, written a million rows at a time: a user for each twenty rows, an item for each two hundred,
ids of 14 and 10 characters, times in seconds, and a table of titles. FOLDER keeps one shop and its dataset at a time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

_BATCH_ROWS = 1_000_000
_FIRST_SECOND, _SECONDS = 1_500_000_000, 200_000_000
_MEASURED = """
import json, resource, sys, time
from mllmrec.dataset import prepare, statistics
began = time.perf_counter()
counts = statistics(prepare(sys.argv[1], sys.argv[2]))
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([counts.users, counts.items, counts.interactions, time.perf_counter() - began, peak]))
"""


@dataclass(frozen=True)
class Measured:
    """Hold what preparing a shop gave and took.

    Attributes:
        users, items, interactions: of the dataset.
        seconds: of prepare and the statistics.
        peak: bytes that the process held at most, mapped files among them.
    """

    users: int
    items: int
    interactions: int
    seconds: float
    peak: int


def write_shop(folder: Path, rows: int) -> None:
    """Write interactions.parquet and items.jsonl of a shop with so many rows."""
    users, items = max(1, rows // 20), max(1, rows // 200)
    folder.mkdir(parents=True)
    schema = pa.schema([("user_id", pa.string()), ("item_id", pa.string()), ("timestamp", pa.int64())])
    with pq.ParquetWriter(folder / "interactions.parquet", schema, compression="zstd") as file:
        for batch in _batches(rows, users, items):
            file.write_table(batch.to_arrow().cast(schema))
    with (folder / "items.jsonl").open("w") as file:
        for item in range(items):
            file.write(json.dumps({"item_id": f"B{item:09d}", "title": f"title of item {item}"}) + "\n")


def _batches(rows: int, users: int, items: int) -> Iterator[pl.DataFrame]:
    generator = np.random.default_rng(1)
    for start in range(0, rows, _BATCH_ROWS):
        count = min(_BATCH_ROWS, rows - start)
        table = pl.DataFrame(
            {
                "user": (users * generator.random(count) ** 1.3).astype(np.int64),
                "item": (items * generator.random(count) ** 2).astype(np.int64),
                "timestamp": _FIRST_SECOND
                + (start + np.arange(count)) * _SECONDS // rows
                + generator.integers(0, 500, count),
            }
        )
        yield table.select(
            user_id=pl.format("A{}", pl.col("user").cast(pl.String).str.pad_start(13, "0")),
            item_id=pl.format("B{}", pl.col("item").cast(pl.String).str.pad_start(9, "0")),
            timestamp="timestamp",
        )


def measure(shop: Path, out: Path) -> Measured:
    """Prepare a shop in a process of its own."""
    command = [sys.executable, "-c", _MEASURED, str(shop), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(*json.loads(done.stdout))


def main() -> None:
    """Measure the sizes of the command line."""
    place = Path(sys.argv[1])
    print("| rows | users | items | interactions kept | s | GiB |\n|---|---|---|---|---|---|")
    for rows in map(int, sys.argv[2:]):
        write_shop(place / "shop", rows)
        found = measure(place / "shop", place / "dataset")
        counts = " | ".join(f"{n:,}" for n in (rows, found.users, found.items, found.interactions))
        print(f"| {counts} | {found.seconds:.0f} | {found.peak / 2**30:.2f} |", flush=True)
        shutil.rmtree(place)


if __name__ == "__main__":
    main()

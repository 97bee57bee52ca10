"""Time a day's update beside a full run on the same dataset, and compare what they made; or several days in a row.

    python -m bench.bench_update DATA/amazon-scientific --out day --split-column split_random
    python -m bench.bench_update SHOP --out day --set encode.features=item_feat      # SHOP of mllmrec_bench.large_shop
    python -m bench.bench_update SHOP --out days --days 5 --set encode.features=item_feat

A share of the items and of the training interactions of a folder (interactions.parquet, items.jsonl.gz; or shop.inter,
item_feat.npy) is each new day; the rest is the earlier state. Then:

    prepare before; run before; and for each day: update; run --from the day before
    after the first day and the last: run from scratch

Printed: processor seconds and seconds of the clock of each, the ratio of the update to the run from scratch, whether
the graphs are equal byte for byte, NDCG@20 of both on the test users that both judged, with a paired interval, and the
share of listed items that both have.
"""

from __future__ import annotations

import argparse
import gzip
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
from mllmrec_cli import console
from numpy.typing import NDArray

from mllmrec.evaluation.metrics import mean_interval
from mllmrec.foundation.storage import make_folder, read_array, write_array, write_table
from mllmrec.runs import Run

NEW_ITEMS, NEW_INTERACTIONS = 0.01, 0.02  # shares


@dataclass(frozen=True, slots=True)
class Cost:
    """Hold what a command took, in seconds of the processor and of the clock."""

    processor: float
    clock: float

    def __add__(self, other: Cost) -> Cost:
        """Return the cost of both commands."""
        return Cost(self.processor + other.processor, self.clock + other.clock)


def main(arguments: Sequence[str] | None = None) -> int:
    """Split the folder, run both ways, print the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="interactions.parquet and items.jsonl.gz")
    parser.add_argument("--out", type=Path, default=Path("update-cost"), help="folder of everything that is made")
    parser.add_argument("--split-column", default="split", help="column of the interactions: train, valid, test")
    parser.add_argument("--seed", type=int, default=0, help="of the new days")
    parser.add_argument("--days", type=int, default=1, help="days in a row")
    parser.add_argument("--set", action="append", default=["profile.kind=mean"], help="a setting of the runs")
    options = parser.parse_args(arguments)
    out: Path = make_folder(options.out)
    if (options.folder / "shop.inter").exists():
        split_generated_days(options.folder, out, options.days, options.seed)
    else:
        split_days(options.folder, out, options.split_column, options.days, options.seed)
    settings = [word for setting in options.set for word in ("--set", setting)]
    before = out / "before"
    column = "x_label" if (before / "files" / "shop.inter").exists() else "split"
    _call("prepare", before / "files", "--out", before / "dataset", "--split-column", column)
    costs = {"run before": _call("run", before / "dataset", "--out", before / "run", *settings)}
    for n in range(1, options.days + 1):
        before = _go_on(before, out / f"day-{n}", settings, costs, judged=n in (1, options.days))
    rows = [(name, f"{cost.processor:.1f}", f"{cost.clock:.1f}") for name, cost in costs.items()]
    console.out.print(console.table("Updates", ("command", "processor s", "clock s"), rows))
    return 0


def _go_on(before: Path, day: Path, settings: list[str], costs: dict[str, Cost], *, judged: bool) -> Path:
    """Update and run a day, and say how it compares with a run from scratch; return the folder of the day.

    Args:
        before: folder of the day before, with its dataset and run.
        day: folder of the day, with its files.
        settings: words of the command line.
        costs: by command, added to.
        judged: whether to run from scratch.
    """
    own = _call("update", before / "dataset", "--with", day / "files", "--out", day / "dataset")
    costs[f"{day.name}: update"] = own
    go_on = _call("run", day / "dataset", "--out", day / "run", "--from", before / "run", *settings)
    costs[f"{day.name}: run --from"] = go_on
    if judged:
        full = _call("run", day / "dataset", "--out", day / "scratch", *settings)
        costs[f"{day.name}: run from scratch"] = full
        spent = own + go_on
        console.say(
            f"{day.name}: update and run --from take {spent.processor / full.processor:.1%} of the processor seconds "
            f"from scratch, {spent.clock / full.clock:.1%} of the clock's"
        )
        console.say(f"{day.name}: graphs: {compare_graphs(day / 'run', day / 'scratch')}")
        console.say(f"{day.name}: {compare_quality(day / 'run', day / 'scratch')}")
    return day


def split_days(folder: Path, out: Path, column: str, days: int, seed: int) -> None:
    """Write the earlier state and the new days as files of their own.

    Args:
        folder: interactions.parquet and items.jsonl.gz.
        out: gets before/files and day-1/files and so on.
        column: of the interactions, which names the part of each.
        days: number of new days.
        seed: of the new days.
    """
    pairs = pl.read_parquet(folder / "interactions.parquet").with_columns(pl.col(column).alias("split"))
    with gzip.open(folder / "items.jsonl.gz", "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    draw = np.random.default_rng(seed)
    names = [item["item"] for item in items]
    drawn = draw.permutation(len(names))[: days * round(NEW_ITEMS * len(names))]
    item_days = np.zeros(len(names), np.int64)
    item_days[drawn] = 1 + np.arange(len(drawn)) % days
    of_name = dict(zip(names, item_days.tolist(), strict=True))
    of_items = pairs["item"].replace_strict(of_name, default=0, return_dtype=pl.Int64).to_numpy()
    pair_days = choose_days(of_items, (pairs["split"] == "train").to_numpy(), days, draw)
    for n in range(days + 1):
        files = make_folder(out / (f"day-{n}" if n else "before") / "files")
        write_table(files / "interactions.parquet", pairs.filter(pair_days == n))
        text = "".join(json.dumps(item) + "\n" for item, day in zip(items, item_days.tolist(), strict=True) if day == n)
        (files / "items.jsonl").write_text(text, encoding="utf-8")


def split_generated_days(folder: Path, out: Path, days: int, seed: int) -> None:
    """Write the earlier state and the new days of a generated shop; the last items are the new ones.

    Args:
        folder: shop.inter and item_feat.npy.
        out: gets before/files and day-1/files and so on.
        days: number of new days.
        seed: of the new interactions.
    """
    pairs = pl.read_csv(folder / "shop.inter", separator="\t")
    vectors = read_array(folder / "item_feat.npy")
    ends = len(vectors) - round(NEW_ITEMS * len(vectors)) * np.arange(days, -1, -1)  # items known after each day
    of_items = np.searchsorted(ends, pairs["itemID"].to_numpy(), side="right")
    in_train = (pairs["x_label"] == 0).to_numpy()
    pair_days = choose_days(of_items, in_train, days, np.random.default_rng(seed))
    before = make_folder(out / "before" / "files")
    pairs.filter(pair_days == 0).write_csv(before / "shop.inter", separator="\t")
    write_array(before / "item_feat.npy", vectors[: ends[0]])
    parts = pl.col("x_label").replace_strict([0, 1, 2], ["train", "valid", "test"]).alias("split")
    for n, (start, stop) in enumerate(pairwise(ends.tolist()), start=1):
        files = make_folder(out / f"day-{n}" / "files")
        rows = pairs.filter(pair_days == n).select(user="userID", item="itemID", split=parts)
        write_table(files / "interactions.parquet", rows)
        write_table(files / "items.parquet", pl.DataFrame({"item": np.arange(start, stop)}))
        write_array(files / "item_feat.npy", vectors[start:stop])


def choose_days(
    of_items: NDArray[np.int64], in_train: NDArray[np.bool_], days: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Return the day of each interaction, int64 [n]; 0: it is known before the first.

    Args:
        of_items: int64 [n], the day of the interaction's item; 0: it is known before the first.
        in_train: bool [n], interactions in training.
        days: number of days.
        draw: of the interactions that a day has beside those of its new items.
    """
    chosen = of_items.copy()
    for day in range(1, days + 1):
        more = max(0, round(NEW_INTERACTIONS * len(chosen)) - int(np.count_nonzero(of_items == day)))
        known = np.flatnonzero((chosen == 0) & in_train)
        chosen[draw.choice(known, min(more, len(known)), replace=False)] = day
    return chosen


def compare_graphs(left: Path, right: Path) -> str:
    """Return whether the graphs of two runs are equal byte for byte, by file."""
    names = sorted(file.name for file in (right / "graph").iterdir() if file.suffix in (".npy", ".npz", ".safetensors"))
    different = [
        name for name in names if (left / "graph" / name).read_bytes() != (right / "graph" / name).read_bytes()
    ]
    return f"{len(names)} files equal" if not different else f"differ in {', '.join(different)}"


def compare_quality(update: Path, scratch: Path) -> str:
    """Return NDCG@20 of both runs on the test users that both judged, and the share of list places that agree.

    Args:
        update: run that went on from an earlier one.
        scratch: run of the same dataset from nothing.
    """
    judged = [Run(folder).evaluation for folder in (update, scratch)]
    tables = [evaluation.rows_of(evaluation.own_model) for evaluation in judged]
    both = tables[0].join(tables[1], on="id", suffix="_scratch")
    own, other = (both[name].to_numpy() for name in ("ndcg@20", "ndcg@20_scratch"))
    gap = mean_interval(own - other)
    lists = [Run(folder).recommendations.users.select("user", "item") for folder in (update, scratch)]
    same = len(lists[0].join(lists[1], on=["user", "item"], how="semi")) / max(1, len(lists[1]))
    return (
        f"test NDCG@20 of {len(both):,} users: run --from {own.mean():.4f}, from scratch {other.mean():.4f}, gap "
        f"{gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] ({gap.value / max(other.mean(), 1e-12):+.1%}); "
        f"{same:.1%} of the listed items are the same"
    )


def _call(*words: object) -> Cost:
    """Run one command of mllmrec; stop where it fails."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, "-m", "mllmrec_cli", *map(str, words), "--quiet"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    cost = Cost(spent, time.perf_counter() - started)
    console.say(f"{words[0]} {words[1]}: {cost.processor:.1f} s of the processor, {cost.clock:.1f} of the clock")
    return cost


if __name__ == "__main__":
    sys.exit(main())

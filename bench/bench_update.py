"""Time a day's update beside a full run on the same dataset, and compare what they made.

    python -m bench.bench_update DATA/amazon-scientific --out day --split-column split_random
    python -m bench.bench_update SHOP --out day --set encode.features=item_feat      # SHOP of mllmrec_bench.large_shop

A share of the items and of the training interactions of a folder (interactions.parquet, items.jsonl.gz; or shop.inter,
item_feat.npy) is the new day; the rest is the earlier state. Then:

    prepare before; run before; update; run --from; run from scratch

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
    parser.add_argument("--seed", type=int, default=0, help="of the new day")
    parser.add_argument("--set", action="append", default=["profile.kind=mean"], help="a setting of the runs")
    options = parser.parse_args(arguments)
    out: Path = make_folder(options.out)
    if (options.folder / "shop.inter").exists():
        split_generated_day(options.folder, out, options.seed)
    else:
        split_day(options.folder, out, options.split_column, options.seed)
    settings = [word for setting in options.set for word in ("--set", setting)]
    before, after = out / "before", out / "after"
    run_before, run_after, scratch = out / "run-before", out / "run-after", out / "run-scratch"
    column = "x_label" if (before / "files" / "shop.inter").exists() else "split"
    _call("prepare", before / "files", "--out", before / "dataset", "--split-column", column)
    costs = {"run before": _call("run", before / "dataset", "--out", run_before, *settings)}
    costs["update"] = _call("update", before / "dataset", "--with", after / "files", "--out", after / "dataset")
    costs["run --from"] = _call("run", after / "dataset", "--out", run_after, "--from", run_before, *settings)
    costs["run from scratch"] = _call("run", after / "dataset", "--out", scratch, *settings)
    full, day = costs["run from scratch"], costs["update"] + costs["run --from"]
    rows = [(name, f"{cost.processor:.1f}", f"{cost.clock:.1f}") for name, cost in costs.items()]
    rows.append(
        ("update and run --from / scratch", f"{day.processor / full.processor:.3f}", f"{day.clock / full.clock:.3f}")
    )
    console.out.print(console.table("A day's update", ("command", "processor s", "clock s"), rows))
    console.say(f"graphs: {compare_graphs(run_after, scratch)}")
    console.say(compare_quality(run_after, scratch))
    return 0


def split_day(folder: Path, out: Path, column: str, seed: int) -> None:
    """Write the earlier state and the new day as files of their own.

    Args:
        folder: interactions.parquet and items.jsonl.gz.
        out: gets before/files and after/files.
        column: of the interactions, which names the part of each.
        seed: of the new day.
    """
    pairs = pl.read_parquet(folder / "interactions.parquet").with_columns(pl.col(column).alias("split"))
    with gzip.open(folder / "items.jsonl.gz", "rt", encoding="utf-8") as lines:
        items = [json.loads(line) for line in lines]
    draw = np.random.default_rng(seed)
    names = np.array([item["item"] for item in items])
    new = draw.choice(names, round(NEW_ITEMS * len(names)), replace=False)
    new_names = set(new.tolist())
    of_new_items = pairs["item"].is_in(list(new_names)).to_numpy()
    is_new = choose_new(of_new_items, (pairs["split"] == "train").to_numpy(), draw)
    for state, rows, chosen in (("before", ~is_new, False), ("after", is_new, True)):
        files = make_folder(out / state / "files")
        write_table(files / "interactions.parquet", pairs.filter(rows))
        kept = [item for item in items if (item["item"] in new_names) == chosen]
        text = "".join(json.dumps(item) + "\n" for item in kept)
        (files / "items.jsonl").write_text(text, encoding="utf-8")


def split_generated_day(folder: Path, out: Path, seed: int) -> None:
    """Write the earlier state and the new day of a generated shop; the last items are the new ones.

    Args:
        folder: shop.inter and item_feat.npy.
        out: gets before/files and after/files.
        seed: of the new interactions.
    """
    pairs = pl.read_csv(folder / "shop.inter", separator="\t")
    vectors = read_array(folder / "item_feat.npy")
    n_known = len(vectors) - round(NEW_ITEMS * len(vectors))
    of_new_items, in_train = (pairs["itemID"] >= n_known).to_numpy(), (pairs["x_label"] == 0).to_numpy()
    is_new = choose_new(of_new_items, in_train, np.random.default_rng(seed))
    before, after = make_folder(out / "before" / "files"), make_folder(out / "after" / "files")
    pairs.filter(~is_new).write_csv(before / "shop.inter", separator="\t")
    write_array(before / "item_feat.npy", vectors[:n_known])
    parts = pl.col("x_label").replace_strict([0, 1, 2], ["train", "valid", "test"]).alias("split")
    write_table(after / "interactions.parquet", pairs.filter(is_new).select(user="userID", item="itemID", split=parts))
    write_table(after / "items.parquet", pl.DataFrame({"item": np.arange(n_known, len(vectors))}))
    write_array(after / "item_feat.npy", vectors[n_known:])


def choose_new(
    of_new_items: NDArray[np.bool_], in_train: NDArray[np.bool_], draw: np.random.Generator
) -> NDArray[np.bool_]:
    """Return bool [n]: interactions of the new day, which are all of new items and a draw of the other training rows.

    Args:
        of_new_items: bool [n], interactions with a new item.
        in_train: bool [n], interactions in training.
        draw: of the others.
    """
    more = max(0, round(NEW_INTERACTIONS * len(in_train)) - int(np.count_nonzero(of_new_items)))
    is_new = of_new_items.copy()
    is_new[draw.choice(np.flatnonzero(~of_new_items & in_train), more, replace=False)] = True
    return is_new


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

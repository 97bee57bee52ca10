"""Measure where users' vectors may come from: counted texts, a language model's texts or states, means of items.

    make demo
    python -m bench.profile_sources demo/dataset --model smollm2-135m --write docs/results.md

One run for each source and kind of model, in one folder, with one cache of texts. A gain is over the means of items,
of the same test users, with its 95 % interval. The last source reads the held-out items too: LEAKY.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from bench.pictures import replaced
from mllmrec.config import default_kind, load_config
from mllmrec.errors import MllmrecError
from mllmrec.evaluation.metrics import Interval, mean_interval, short, written
from mllmrec.foundation.storage import write_text
from mllmrec.models import registry
from mllmrec.pipeline import run

METRICS = ("recall@20", "ndcg@20")
BEGIN, END = "<!-- profile sources: bench.profile_sources writes this table -->", "<!-- end of profile sources -->"
BASE = "means of items"
GENERATED = "profile.engine=transformers"
SOURCES = {
    BASE: ["profile.kind=mean"],
    "extractive texts": [],
    "the model's texts": [GENERATED],
    "the model's states": [GENERATED, "profile.kind=hidden"],
    "the model's texts, LEAKY": [GENERATED, "profile.history=all"],
}


@dataclass(frozen=True, slots=True)
class Score:
    """Hold what one source of users' vectors brings one kind of model.

    Attributes:
        kind, source: of the run.
        users: test users.
        means: by metric.
        gains: over the means of items, by metric.
    """

    kind: str
    source: str
    users: int
    means: dict[str, float]
    gains: dict[str, Interval]


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print the table and write it where --write names a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("--model", default="smollm2-135m", help="as profile.model takes it")
    parser.add_argument("--out", type=Path, default=Path("profile-sources"), help="folder of runs and texts")
    parser.add_argument("--kinds", nargs="+", default=["mllmrec", default_kind()], choices=registry.kinds())
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    parser.add_argument("--set", action="append", default=[], dest="changes", help="a setting of every run")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args(arguments)
    try:
        table = as_table(measure(options))
        print(table)
        if options.write:
            write_text(options.write, replaced(options.write.read_text(encoding="utf-8"), table, BEGIN, END))
    except MllmrecError as error:
        print(f"profile sources: {error}", file=sys.stderr)
        return 1
    return 0


def measure(options: argparse.Namespace) -> list[Score]:
    """Return the score of each source under each kind of model; the texts of one source serve all kinds."""
    found: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
    for source in dict.fromkeys((BASE, *options.sources)):
        for kind in options.kinds:
            model = [f"profile.model={options.model}"] if GENERATED in SOURCES[source] else []
            config = load_config(None, [*options.changes, f"model.kind={kind}", *SOURCES[source], *model])
            out = options.out / re.sub(r"\W+", "-", f"{kind} {source}")
            made = run(options.dataset, out, config, until="evaluate", cache=options.out / "texts.sqlite")
            found[kind, source] = _per_user(made.evaluate.per_user, list(made.evaluate.means["test"])[-1])
            print(f"{kind}, {source}: {made.profile.summary}", file=sys.stderr, flush=True)
    return [_score(kind, source, own, found[kind, BASE]) for (kind, source), own in sorted(found.items(), key=_order)]


def _order(entry: tuple[tuple[str, str], object]) -> tuple[str, int]:
    (kind, source), _ = entry
    return kind, list(SOURCES).index(source)


def _score(kind: str, source: str, own: dict[str, NDArray[np.float64]], base: dict[str, NDArray[np.float64]]) -> Score:
    return Score(
        registry.title(kind),
        source,
        len(own[METRICS[0]]),
        {metric: float(own[metric].mean()) for metric in METRICS},
        {metric: mean_interval(own[metric] - base[metric]) for metric in METRICS},
    )


def _per_user(table: pl.DataFrame, model: str) -> dict[str, NDArray[np.float64]]:
    own = table.filter((pl.col("split") == "test") & (pl.col("model") == model)).sort("id")
    return {metric: own[metric].to_numpy().astype(np.float64) for metric in METRICS}


def as_table(scores: Sequence[Score]) -> str:
    """Return the table of a page: a line for each kind of model and source."""
    lines = [
        f"| model | users' vectors | {' | '.join(f'{written(m)} | gain over means of items' for m in METRICS)} |",
        f"|---|---|{'---|---|' * len(METRICS)}",
    ]
    for score in scores:
        cells = []
        for metric in METRICS:
            gain = score.gains[metric]
            ends = ", ".join(short(end, signed=True) for end in (gain.low, gain.high))
            cells += [short(score.means[metric]), f"{short(gain.value, signed=True)} [{ends}]"]
        if score.source == BASE:
            cells[1::2] = ["", ""]
        lines.append(f"| {score.kind} | {score.source} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""Measure what pictures are worth for cold items: one model with and without them, paired over users and draws.

    mllmrec prepare shop --format catalogue --out dataset
    mllmrec prepare DATA/movielens-posters --out movielens
    make pictures DATA="dataset movielens"

Each dataset is split anew for each seed by the rule cold-items. Descriptions and vectors do not depend on the split, so
they are made once with pictures and once without. Users are the means of their training items' vectors. The table goes
into docs/results.md, between the two comments that name it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mllmrec.config import Config, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.dataset.splits import COLD_SHARE, resplit
from mllmrec.errors import InputError, MllmrecError
from mllmrec.evaluation.groups import ALL, AMONG_COLD, COLD, Judged, SplitTask
from mllmrec.evaluation.metrics import Interval, crossed_intervals, short, written
from mllmrec.features.encode import Features, Vectors
from mllmrec.foundation.storage import write_text
from mllmrec.graph.item_graph import build_graph
from mllmrec.models import registry
from mllmrec.models.fitting import fit_model
from mllmrec.pipeline import run

FIRST_SEED, CUTOFF = 999, 20
METRICS = (f"recall@{CUTOFF}", f"ndcg@{CUTOFF}")
SHOWN = (COLD, AMONG_COLD, ALL)
BEGIN, END = "<!-- pictures: make pictures writes this table -->", "<!-- end of pictures -->"


@dataclass(frozen=True, slots=True)
class Worth:
    """Hold what pictures add to one model on one dataset.

    Attributes:
        dataset, model, group, metric: what is measured.
        without, with_pictures: means over draws.
        gain: their difference, over users and draws.
    """

    dataset: str
    model: str
    group: str
    metric: str
    without: float
    with_pictures: float
    gain: Interval


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, measure, print the table and write it where --write names a page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("datasets", type=Path, nargs="+", help="prepared datasets with pictures")
    parser.add_argument("--out", type=Path, default=Path("pictures"), help="descriptions and vectors are kept there")
    parser.add_argument("--models", nargs="+", default=["content", "ease-neighbors"], choices=registry.kinds())
    parser.add_argument("--seeds", type=int, default=5, help=f"draws of the split, from {FIRST_SEED} on")
    parser.add_argument("--write", type=Path, help="page whose table is replaced")
    options = parser.parse_args(arguments)
    try:
        rows = [
            row
            for folder in options.datasets
            for row in measure(load(folder), options.out / folder.name, options.models, max(1, options.seeds))
        ]
        table = as_table(rows)
        print(table)
        if options.write:
            write_text(options.write, replaced(options.write.read_text(encoding="utf-8"), table))
    except MllmrecError as error:
        print(f"pictures: {error}", file=sys.stderr)
        return 1
    return 0


def measure(dataset: Dataset, folder: Path, kinds: Sequence[str], draws: int) -> list[Worth]:
    """Return what pictures add to each kind of model, by group and metric.

    Args:
        dataset: with pictures; its own split is not used.
        folder: for descriptions and vectors.
        kinds: of models, as model.kind takes them.
        draws: of the split.

    Raises:
        InputError: the dataset has no pictures.
    """
    if not (dataset.items["images"].list.len() > 0).any():
        raise InputError(f"{dataset.folder} has no pictures; prepare a shop that has some")
    config = load_config(None, ["profile.kind=mean"])
    vectors = {pictures: _vectors(dataset, folder, pictures=pictures) for pictures in (False, True)}
    found = []
    for kind in kinds:
        own = load_config(None, ["profile.kind=mean", f"model.kind={kind}"])
        judged = [_judge(dataset, own, vectors, seed) for seed in range(config.seed, config.seed + draws)]
        found += [_worth(dataset.name, kind, group, metric, judged) for group in SHOWN for metric in METRICS]
    return found


def _vectors(dataset: Dataset, folder: Path, *, pictures: bool) -> Vectors:
    config = load_config(None, ["profile.kind=mean", f"describe.images={'true' if pictures else 'false'}"])
    made = run(dataset, folder / ("with" if pictures else "without"), config, until="encode", cache=folder / "c.sqlite")
    return made.encode.items


def _judge(dataset: Dataset, config: Config, vectors: dict[bool, Vectors], seed: int) -> dict[bool, dict[str, Judged]]:
    """Return the judged groups of one draw, without and with pictures."""
    data = resplit(dataset, "cold-items", seed, COLD_SHARE)
    histories, valid = data.histories("train"), data.matrix("valid")
    task, found = SplitTask.of(data, "test", config.evaluate), {}
    for pictures, items in vectors.items():
        features = Features.of_items(items, histories)
        graph = build_graph(items, histories, config.graph)
        model = fit_model(features, graph, histories, valid, config.model, config.train, seed=config.seed)
        _, found[pictures] = task.judge(model, (CUTOFF,))
    return found


def _worth(dataset: str, kind: str, group: str, metric: str, draws: Sequence[dict[bool, dict[str, Judged]]]) -> Worth:
    def values(pictures: bool) -> list[NDArray[np.float64]]:
        return [draw[pictures][group].values[metric] for draw in draws]

    users = [draw[True][group].users for draw in draws]
    gaps = [(own, (a - b)[:, None]) for own, a, b in zip(users, values(True), values(False), strict=True)]
    means = [float(np.mean([each.mean() for each in values(pictures)])) for pictures in (False, True)]
    return Worth(dataset, registry.title(kind), group, metric, *means, crossed_intervals(gaps)[0])


def as_table(rows: Sequence[Worth]) -> str:
    """Return the table of a page: a line for each dataset, model and group."""
    lines = [
        f"| data set | model | held-out items | {' | '.join(f'{written(m)}: without, with, gain' for m in METRICS)} |",
        f"|---|---|---|{'---|' * len(METRICS)}",
    ]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        cells = [f"{short(row.without)}, {short(row.with_pictures)}, {row.gain.signed}" for row in (first, second)]
        lines.append(f"| {first.dataset} | {first.model} | {first.group} | {' | '.join(cells)} |")
    return "\n".join(lines)


def replaced(page: str, table: str, begin: str = BEGIN, end: str = END) -> str:
    """Return a page with a table in its place.

    Args:
        page: Markdown.
        table: that goes between the two comments.
        begin: the comment before the table.
        end: the comment after it.

    Raises:
        InputError: the page lacks one of them.
    """
    if begin not in page or end not in page:
        raise InputError(f"the page has no place for the table; write {begin} and {end} where it belongs")
    return re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{table}\n{end}", page, flags=re.DOTALL)


if __name__ == "__main__":
    sys.exit(main())

"""Print the seconds of each step of one fit, from the steps that its progress names.

    python -m bench.part_seconds scientific run

Time between two calls of the progress counts for the step of the second one. Steps that differ in numbers alone are
one: "fit 64 factors 1 of 2" and "fit 64 factors 2 of 2". Processor seconds are those of this process, all threads
together.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.given_vectors import encoded_items, table
from mllmrec.config import default_kind, load_config
from mllmrec.dataset import Dataset, load
from mllmrec.errors import MllmrecError
from mllmrec.features.encode import Features, Vectors
from mllmrec.graph.item_graph import build_graph
from mllmrec.models import registry
from mllmrec.models.fitting import fit_model

LAST = "the rest"


@dataclass
class Clock:
    """Count the seconds of each step.

    Attributes:
        seconds: step -> processor seconds and seconds, in the order that steps began.
    """

    seconds: dict[str, tuple[float, float]] = field(default_factory=dict)
    _last: tuple[float, float] = field(default_factory=lambda: (time.process_time(), time.perf_counter()))

    def __call__(self, label: str, done: int, total: int) -> None:
        """Take the progress of a fit."""
        now, step = (time.process_time(), time.perf_counter()), step_of(label)
        before = self.seconds.get(step, (0.0, 0.0))
        self.seconds[step] = before[0] + now[0] - self._last[0], before[1] + now[1] - self._last[1]
        self._last = now


def step_of(label: str) -> str:
    """Return a label without its numbers: "validate ridges 1 of 2, 1" is of "validate ridges"."""
    return re.sub(r"( \d+ of \d+)?(, \d+)?( on [\d,]+ of [\d,]+ users)?$", "", label)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, fit and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="run folder of its encoded items")
    parser.add_argument("--kind", default=default_kind(), choices=registry.kinds(), help="of model")
    options = parser.parse_args(arguments)
    try:
        dataset = load(options.dataset)
        print(measure(dataset, encoded_items(dataset, options.out), options.kind))
    except MllmrecError as error:
        print(f"part seconds: {error}", file=sys.stderr)
        return 1
    return 0


def measure(dataset: Dataset, items: Vectors, kind: str) -> str:
    """Return the table of one fit.

    Args:
        dataset: whose training rows are fitted.
        items: float32 [I, d].
        kind: of model.
    """
    config = load_config(None, ["profile.kind=mean", f"model.kind={kind}"])
    seen, valid = dataset.histories(), dataset.matrix("valid")
    features = Features.of_items(items, seen)
    graph = build_graph(items, seen, config.graph) if "graph" in registry.reads(kind) else None
    clock = Clock()
    fit_model(features, graph, seen, valid, config.model, config.train, seed=config.seed, progress=clock)
    clock(LAST, 1, 1)
    sums = [sum(each) for each in zip(*clock.seconds.values(), strict=True)]
    steps = [*clock.seconds.items(), ("together", sums)]
    return table(("step", "processor s", "s"), [(step, *(f"{n:.2f}" for n in each)) for step, each in steps])


if __name__ == "__main__":
    sys.exit(main())

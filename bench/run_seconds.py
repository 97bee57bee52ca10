"""Print the seconds of each step of a whole run, from the steps that its progress names, and each step as it ends.

    python -m bench.run_seconds large-dataset large-run encode.features=item_feat profile.kind=mean train.device=cuda

Steps and processor seconds are those of bench/part_seconds.py. The run stays in its folder; `mllmrec show` reads it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.given_vectors import table
from bench.part_seconds import LAST, Clock
from mllmrec import pipeline
from mllmrec.config import load_config
from mllmrec.errors import MllmrecError


class StepPrinter(Clock):
    """Count the seconds of each step, and print when one ends."""

    def __call__(self, label: str, done: int, total: int) -> None:
        """Take the progress of a run."""
        super().__call__(label, done, total)
        if done == total:
            print(f"{sum(s for _, s in self.seconds.values()):8.1f} s {label}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, run and print a table, and how good the run's own model is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path, help="a prepared dataset")
    parser.add_argument("out", type=Path, help="folder of the run")
    parser.add_argument("settings", nargs="*", help="settings, as `mllmrec run --set` takes them")
    options = parser.parse_args(arguments)
    clock = StepPrinter()
    try:
        artefacts = pipeline.run(options.dataset, options.out, load_config(None, options.settings), progress=clock)
    except MllmrecError as error:
        print(f"run seconds: {error}", file=sys.stderr)
        return 1
    clock(LAST, 1, 1)
    sums = [sum(each) for each in zip(*clock.seconds.values(), strict=True)]
    steps = [*clock.seconds.items(), ("together", sums)]
    print(table(("step", "processor s", "s"), [(step, *(f"{n:.2f}" for n in each)) for step, each in steps]))
    own = artefacts.evaluate.means["test"][artefacts.evaluate.own_model]
    print(", ".join(f"{name} {value:.6f}" for name, value in own.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

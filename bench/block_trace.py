"""Run a dataset in blocks and write down what every work did: its tables, and the seconds and bytes of its blocks.

    python -m bench.block_trace DATASET --out RUN --on local [--start RUN] [--set KEY=VALUE ...]

The trace goes to RUN.trace.json. `--start` copies the finished stages of another run first.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mllmrec import pipeline
from mllmrec.blocks.execution import Task
from mllmrec.blocks.launcher import Inputs, Launcher
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.stage import open_launcher
from mllmrec.blocks.work import cut
from mllmrec.config import Config, override


class Recorder:
    """A launcher that writes down what another one does."""

    def __init__(self, launcher: Launcher, out: Path) -> None:
        self._launcher, self._out = launcher, out.resolve()
        self.works: list[dict[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._launcher, name)

    def launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        spans = {task.block: task.span for task in tasks}
        began, busy, seconds = time.time(), self._launcher.busy_seconds, dict[int, float]()
        moved = self._launcher.bytes_moved
        for block in self._launcher.launch(tasks, inputs, parts):
            seconds[block], busy = self._launcher.busy_seconds - busy, self._launcher.busy_seconds
            yield block
        ended = time.time()
        sizes = {int(file.name[:8]): file.stat().st_size for file in parts.folder.glob("*.safetensors")}
        rows = {n: sum(row.nbytes for row in cut(inputs.rows, span).values()) for n, span in spans.items()}
        self.works.append(
            {
                "stage": parts.folder.resolve().relative_to(self._out).parts[0],
                "function": tasks[0].function,
                "start": began,
                "stop": ended,
                "tables": {inputs.digests[name]: table.nbytes for name, table in inputs.shared.items()},
                "cut": {inputs.digests[name]: table.nbytes for name, table in inputs.rows.items()},
                "blocks": [[seconds[n], rows[n], sizes[n]] for n in sorted(spans)],
                "moved": self._launcher.bytes_moved - moved,
            }
        )


def trace(dataset: Path, out: Path, config: Config, on: str) -> None:
    """Run a dataset and write RUN.trace.json.

    Args:
        dataset: prepared.
        out: the run.
        config: of the run.
        on: see `mllmrec run --on`.
    """
    recorders: list[Recorder] = []

    @contextmanager
    def recorded(name: str) -> Iterator[Recorder]:
        with open_launcher(name) as launcher:
            assert launcher is not None
            recorders.append(Recorder(launcher, out))
            yield recorders[-1]

    with patch.object(pipeline, "open_launcher", recorded):
        began = time.time()
        pipeline.run(dataset, out, config, on=on, cache=out.parent / "cache.sqlite")
    stages = json.loads((out / "run.json").read_text())["stages"]
    value = {"on": on, "seconds": time.time() - began, "stages": stages, "works": recorders[0].works}
    trace_file(out).write_text(json.dumps(value))


def trace_file(run: Path) -> Path:
    """Return where the trace of a run lies."""
    return run.with_name(run.name + ".trace.json")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a traced run takes."""
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="a run whose finished stages are taken over")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    parser.add_argument("--on", default="local")
    given = parser.parse_args()
    shutil.rmtree(given.out, ignore_errors=True)
    if given.start:
        shutil.copytree(given.start, given.out)
    trace(given.dataset, given.out, override(Config(), given.set), given.on)


if __name__ == "__main__":
    main()

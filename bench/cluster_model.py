"""Predict a run's time on N nodes from what its run.json says of blocks, and draw up the table of docs/scale.md.

    python -m bench.cluster_model RUN [RUN ...]

A stage that computed in blocks has, in run.json, its seconds, its works and blocks, and the seconds of its workers. Of
its seconds, those of the workers shrink with the workers; the rest is the starter's own and stays:

    T(n) = rest + sum over works of ceil(blocks of the work / n) x seconds of a block + bytes of tables / bandwidth
    rest = seconds - the same sum for the workers that were there

Blocks of a work are taken to be equally long, and works to be equally large. Tables reach each node by a tree, so each
node receives them once at its own bandwidth.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES = (1, 2, 4, 8, 16, 32, 64)
BANDWIDTH = 1.25e9  # bytes per second, 10 Gbit/s


@dataclass(frozen=True)
class StageTimes:
    """Hold the times of one stage, as a run records them.

    Attributes:
        seconds: from its start to its end.
        works: pieces of work, one after the other.
        blocks: in all works.
        busy: seconds that workers spent, summed.
        bytes_sent: of tables.
    """

    seconds: float
    works: int
    blocks: int
    busy: float
    bytes_sent: int

    def in_blocks(self, workers: int) -> float:
        """Return the seconds that the works take on so many workers."""
        if not self.blocks:
            return 0.0
        return self.works * math.ceil(self.blocks / self.works / workers) * self.busy / self.blocks

    def predict(self, workers: int, measured_on: int, bandwidth: float = BANDWIDTH) -> float:
        """Return the seconds on so many workers, given a run on `measured_on` of them."""
        rest = max(0.0, self.seconds - self.in_blocks(measured_on))
        return rest + self.in_blocks(workers) + self.bytes_sent / bandwidth


def read_stages(run: Path) -> dict[str, StageTimes]:
    """Return the stages of a run that were computed, not read again."""
    record: Mapping[str, Any] = json.loads((run / "run.json").read_text())
    return {
        stage: StageTimes(
            done["seconds"],
            done["counts"].get("works", 0),
            done["counts"].get("blocks", 0),
            done["counts"].get("worker_milliseconds", 0) / 1000,
            done["counts"].get("bytes_sent", 0),
        )
        for stage, done in record["stages"].items()
        if not done["reused"]
    }


def main(folders: list[str]) -> None:
    for folder in folders:
        stages = read_stages(Path(folder))
        print(f"{folder}: seconds of a stage, predicted from this run as one worker's")
        print("| stage | measured | blocks | worker seconds |", " | ".join(map(str, NODES)), "|")
        for name, times in stages.items():
            predicted = " | ".join(f"{times.predict(nodes, 1):.1f}" for nodes in NODES)
            print(f"| {name} | {times.seconds:.1f} | {times.blocks} | {times.busy:.1f} | {predicted} |")
        totals = [sum(times.predict(nodes, 1) for times in stages.values()) for nodes in NODES]
        print("| all | | | |", " | ".join(f"{total:.1f}" for total in totals), "|")
        print("speed-up:", " ".join(f"{totals[0] / total:.1f}" for total in totals))


if __name__ == "__main__":
    main(sys.argv[1:])

"""Simulate a run in blocks on N nodes, from the seconds and bytes of every block of a traced run.

    python -m bench.cluster_model RUN.trace.json [...] [--gbit 10] [--workers 1]

A run is a sequence of works, and between them the starter computes alone (that time stays). Within a work:

- the starter hands out and collects block after block, each `handling` seconds; two blocks a worker are in flight;
- a table that the nodes lack goes from node to node by doubling: ceil(log2 nodes) times its bytes over the bandwidth;
- rows and results of a block pass the starter's own wire, one after the other; rows of a table that is cut again and
  again pass it twice, and then stay on the nodes;
- a block starts when its worker is free and its rows are there, and takes `gap` and the seconds that were measured.

`gap` is the median over works of (seconds of the work - seconds of its blocks) / blocks, in a trace of one worker.
bench.cluster_replay measures `handling` by blocks that do nothing.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NODES = (1, 2, 4, 8, 16, 32, 64)
_AHEAD = 2  # blocks in flight a worker
_KEPT_WORKS = 4  # works after which a table that none of them read leaves the nodes


@dataclass(frozen=True)
class Cluster:
    """Hold what a prediction assumes.

    Attributes:
        nodes: the starter's own among them.
        workers: of a node.
        bandwidth: of a node's wire in each direction, bytes per second.
        handling: seconds of the starter a block.
        gap: seconds of a worker between two blocks.
    """

    nodes: int
    workers: int = 1
    bandwidth: float = math.inf
    handling: float = 0.0
    gap: float = 0.0

    def move_tables(self, size: int) -> float:
        """Return the seconds until every node has tables of so many bytes."""
        return math.ceil(math.log2(self.nodes)) * size / self.bandwidth

    def carry(self, size: int) -> float:
        """Return the seconds of the starter's wire for rows or a result."""
        return size / self.bandwidth if self.nodes > 1 else 0.0

    def run(self, blocks: Sequence[tuple[float, int, int]], tables: int) -> float:
        """Return the seconds of a work.

        Args:
            blocks: seconds, bytes of rows and bytes of the result of each.
            tables: bytes that the nodes lack.
        """
        count = self.nodes * self.workers
        moved = self.move_tables(tables)
        free = [0.0] * self.workers + [moved] * (count - self.workers)  # when each worker can begin
        heapq.heapify(free)
        starter, flying = 0.0, list[tuple[float, int]]()
        for seconds, rows, result in blocks:
            if len(flying) >= _AHEAD * count:
                starter = self._collect(starter, flying)
            starter += self.handling / 2
            begin = max(heapq.heappop(free), starter + self.carry(rows))
            end = begin + self.gap + seconds
            heapq.heappush(free, end)
            heapq.heappush(flying, (end, result))
        while flying:
            starter = self._collect(starter, flying)
        return starter

    def _collect(self, starter: float, flying: list[tuple[float, int]]) -> float:
        ended, result = heapq.heappop(flying)
        return max(starter, ended) + self.carry(result) + self.handling / 2


def gap(trace: Mapping[str, Any]) -> float:
    """Return a worker's seconds between two blocks, from a trace of one worker."""
    return max(0.0, statistics.median(_rest(work) / len(work["blocks"]) for work in trace["works"]))


def _rest(work: Mapping[str, Any]) -> float:
    return float(work["stop"] - work["start"] - sum(block[0] for block in work["blocks"]))


def new_tables(works: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the bytes of tables that the nodes lack at each work."""
    last, sizes = dict[str, int](), []
    for number, work in enumerate(works):
        lacking = [key for key in work["tables"] if number - last.get(key, -_KEPT_WORKS - 1) > _KEPT_WORKS]
        sizes.append(sum(work["tables"][key] for key in lacking))
        last |= dict.fromkeys(work["tables"], number)
    return sizes


def sent_rows(works: Sequence[Mapping[str, Any]]) -> list[float]:
    """Return which share of its rows' bytes each work sends."""
    last, times, shares = dict[str, int](), dict[str, int](), []
    for number, work in enumerate(works):
        tables = work["cut"]
        for key in tables:
            recent = number - last.get(key, -_KEPT_WORKS - 1) <= _KEPT_WORKS
            times[key] = times[key] + 1 if recent else 1
        sent = sum(size for key, size in tables.items() if times[key] <= 2)
        shares.append(sent / max(1, sum(tables.values())))
        last |= dict.fromkeys(tables, number)
    return shares


def moved_bytes(works: Sequence[Mapping[str, Any]], nodes: int) -> dict[str, int]:
    """Return the bytes that go from node to node in each stage, if the nodes take the blocks in turn.

    The starter's own node takes the first block, and moves nothing. A table goes to each other node that takes a block
    and lacks it. So do the rows of its blocks, twice those of a table that is cut again and again; results come back.

    Args:
        works: of a trace.
        nodes: the starter's own among them.
    """
    last, held, stages = dict[str, int](), dict[str, int](), dict[str, float]()
    for number, (work, sent) in enumerate(zip(works, sent_rows(works), strict=True)):
        taking = min(nodes, len(work["blocks"]))
        moved = sum(sent * rows + result for n, (_, rows, result) in enumerate(work["blocks"]) if n % taking)
        for key, size in work["tables"].items():
            if number - last.get(key, -_KEPT_WORKS - 1) > _KEPT_WORKS:
                held[key] = 1
            moved += size * max(0, taking - held[key])
            held[key] = max(taking, held[key])
        last |= dict.fromkeys(work["tables"], number)
        stages[work["stage"]] = stages.get(work["stage"], 0.0) + moved
    return {stage: round(size) for stage, size in stages.items()}


def predict(trace: Mapping[str, Any], cluster: Cluster) -> dict[str, float]:
    """Return the seconds of each stage that computed in blocks; the others stay as they were.

    Args:
        trace: of one worker.
        cluster: to predict for.
    """
    works, between = trace["works"], gap(trace)
    seconds = {stage: done["seconds"] for stage, done in trace["stages"].items() if not done["reused"]}
    for work, tables, share in zip(works, new_tables(works), sent_rows(works), strict=True):
        blocks = [(took, round(share * rows), result) for took, rows, result in work["blocks"]]
        own = max(0.0, _rest(work) - between * len(work["blocks"]))  # such as the start of the workers
        seconds[work["stage"]] += own + cluster.run(blocks, tables) - (work["stop"] - work["start"])
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("traces", type=Path, nargs="+")
    parser.add_argument("--gbit", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=1, help="of a node")
    parser.add_argument("--handling", type=float, default=2.0, help="milliseconds of the starter a block")
    given = parser.parse_args()
    for file in given.traces:
        trace = json.loads(file.read_text())
        between, bandwidth = gap(trace), given.gbit * 1e9 / 8
        print(f"{file}: {trace['seconds']:.1f} s measured, {1000 * between:.1f} ms between two blocks of a worker")
        columns = [predict(trace, Cluster(n, given.workers, bandwidth, given.handling / 1000, between)) for n in NODES]
        print("| stage | measured |", " | ".join(map(str, NODES)), "|")
        for stage in columns[0]:
            cells = " | ".join(f"{column[stage]:.1f}" for column in columns)
            print(f"| {stage} | {trace['stages'][stage]['seconds']:.1f} | {cells} |")
        totals = [sum(column.values()) for column in columns]
        print("| all | |", " | ".join(f"{total:.1f}" for total in totals), "|")
        for nodes in (2, 4):
            print(f"bytes between {nodes} nodes:", moved_bytes(trace["works"], nodes))
        print("speed-up:", " ".join(f"{totals[0] / total:.1f}" for total in totals))


if __name__ == "__main__":
    main()

"""Check the simulation of bench.cluster_model: play the works of a trace on real clusters, each block a sleep.

    python -m bench.cluster_replay RUN.trace.json [--nodes 1 2 4 8] [--gbit 1] [--works 60]

A sleep takes no processor, so more nodes than this machine has cores run at full speed. Ray places the blocks, moves
tables, rows and results of the sizes that the trace has over wires of the given speed, and the launcher is ours. The
processors alone are not tested: two of them bound real work here. Needs root and ray.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.cluster_model import Cluster, gap, new_tables
from bench.node_network import limit, network
from mllmrec.blocks import cluster as ray_blocks
from mllmrec.blocks.execution import Task
from mllmrec.blocks.launcher import Inputs
from mllmrec.blocks.part_files import PartFiles
from mllmrec.foundation import digests
from tests.ray_cluster import cluster

_STORE = 400_000_000
_IDLE = 400  # blocks that do nothing, to time the starter


def sleep(task: dict[str, Any], versions: object, rows: object, names: object, *tables: object) -> dict[str, Any]:
    """Sleep as long as the block took, and return as many bytes; see mllmrec.blocks.cluster.compute."""
    import ray

    seconds, _, result = task["settings"]["blocks"][task["block"]]
    time.sleep(seconds)
    data = bytes(result)
    node = ray.get_runtime_context().get_node_id()
    return {"data": data, "sha": digests.hash_bytes(data), "node": node, "seconds": seconds}


def play(works: list[Mapping[str, Any]], folder: Path) -> list[float]:
    """Return the seconds of each work on the cluster of $RAY_ADDRESS."""
    ray_blocks.compute = sleep  # type: ignore[assignment]
    launcher, took = ray_blocks.RayLauncher("ray"), list[float]()
    for number, work in enumerate(works):
        ends = np.cumsum([0, *(rows for _, rows, _ in work["blocks"])])
        tasks = [
            Task(str(number), n, "bench", (int(ends[n]), int(ends[n + 1])), {"blocks": work["blocks"]})
            for n in range(len(work["blocks"]))
        ]
        shared = {key: np.zeros(size, np.uint8) for key, size in work["tables"].items()}
        digests_of = {key: key for key in shared} | {"rows": f"rows of {number}"}
        inputs = Inputs({"rows": np.zeros(ends[-1], np.uint8)}, shared, digests_of)
        began = time.perf_counter()
        for _ in launcher.launch(tasks, inputs, PartFiles(folder / str(number))):
            pass
        took.append(time.perf_counter() - began)
    launcher.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trace", type=Path)
    parser.add_argument("--nodes", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--gbit", type=float, default=1.0)
    parser.add_argument("--works", type=int, default=60, help="of the trace, the first ones")
    parser.add_argument("--play", type=Path, help=argparse.SUPPRESS)  # the starter of one cluster
    given = parser.parse_args()
    trace = json.loads(given.trace.read_text())
    works = trace["works"][: given.works]
    if given.play:
        idle = {"tables": {}, "blocks": [(0.0, 0, 0)] * _IDLE}
        print(json.dumps(play([idle, *works, idle], given.play)[1:]))  # the first one starts the workers
        return
    between: float | None = None
    for nodes in given.nodes:
        with (
            tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as place,
            network(nodes) as (places, _),
            cluster(Path(place), nodes, places, _STORE) as started,
        ):
            limit(places, given.gbit)
            command = [*places[0].enter, sys.executable, "-m", "bench.cluster_replay", str(given.trace)]
            command += ["--works", str(given.works), "--play", str(Path(place) / "parts")]
            done = subprocess.run(
                command, check=False, env={**os.environ, **started.environment}, capture_output=True, text=True
            )
            if done.returncode:
                sys.exit(done.stderr[-3000:])
        took = json.loads(done.stdout.splitlines()[-1])
        *took, idle = took
        if between is None:  # of the first cluster, which should have one node
            played = [{**work, "start": 0.0, "stop": seconds} for work, seconds in zip(works, took, strict=True)]
            between = gap({"works": played})
        handling = idle / _IDLE
        model = Cluster(nodes, 1, given.gbit * 1e9 / 8, handling, between)
        print(f"{1000 * between:.1f} ms between blocks, {1000 * handling:.1f} ms of the starter a block; ", end="")
        want = sum(model.run(work["blocks"], tables) for work, tables in zip(works, new_tables(works), strict=True))
        print(f"{nodes} nodes: {sum(took):.1f} s played, {want:.1f} s simulated, {sum(took) / want:.2f}", flush=True)


if __name__ == "__main__":
    main()

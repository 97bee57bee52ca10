"""Run a dataset on clusters of 1, 2, 4 nodes here, each node in a network namespace, beside a local run.

    python -m bench.cluster_runs DATASET --out FOLDER [--nodes 1 2 4] [--workers 1] [--local RUN] [--set KEY=VALUE ...]

Needs root and ray. Printed of each run: its files that differ from the local run's, the processor seconds of the run
and of the cluster, and each stage's seconds beside the local ones. Printed of each stage: the bytes that the run
counted between nodes (`bytes_moved`), and those that the nodes' wires carried meanwhile. The latter hold packets'
headers and Ray's own messages as well. Temporary files lie in $TMPDIR.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bench.block_trace import arguments, trace_file
from bench.node_network import Wires, network
from tests.ray_cluster import Cluster, cluster, descendants

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.5
_THREADS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def artefacts(run: Path) -> dict[str, bytes]:
    """Return every file of the stages of a run."""
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted(run.glob("*/*")) if file.is_file()}


class Processors:
    """Sample the processor seconds of a cluster's processes; those of workers that ended are lost to their parents."""

    def __init__(self, started: Cluster) -> None:
        self._roots = [node.process.pid for node in started.nodes]
        self._ticks: dict[int, int] = {}
        self._ended = threading.Event()
        self._before = self._read()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._read()

    def _read(self) -> float:
        for process in [child for root in self._roots for child in (root, *descendants(root))]:
            with suppress(OSError):
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                self._ticks[process] = int(fields[11]) + int(fields[12])
        return sum(self._ticks.values()) / _TICKS

    def close(self) -> float:
        """Return the seconds since the start."""
        self._ended.set()
        self._thread.join()
        return self._read() - self._before


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def traced(out: Path, on: str, given: argparse.Namespace, environment: dict[str, str], enter: Sequence[str]) -> Any:
    """Run bench.block_trace; return its trace, with the processor seconds of the run and its children."""
    words = [*enter, sys.executable, "-m", "bench.block_trace", str(given.dataset), "--out", str(out), "--on", on]
    words += ["--start", str(given.start)] if given.start else []
    words += [word for pair in given.set for word in ("--set", pair)]
    before = children_seconds()
    done = subprocess.run(words, check=False, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{out.name}: {done.stderr[-3000:]}")
    return {**json.loads(trace_file(out).read_text()), "processor": children_seconds() - before}


def stage_seconds(run: Path) -> dict[str, float]:
    """Return the seconds of the stages of a finished run that were not taken over from another."""
    stages = json.loads((run / "run.json").read_text())["stages"]
    return {stage: done["seconds"] for stage, done in stages.items() if not done["reused"]}


def show(name: str, made: Any, cluster_seconds: float) -> None:
    """Print the time of one run."""
    own = made["processor"]
    print(
        f"{name}: {made['seconds']:.1f} s; processor s: {own:.1f} and, of the cluster, {cluster_seconds:.1f}",
        flush=True,
    )


def show_stages(local: dict[str, float], seconds: dict[str, float]) -> None:
    """Print the seconds of each stage beside those of the local run."""
    print("| stage | local, s | here, s | ratio |\n|---|---|---|---|")
    rows = {stage: (local[stage], seconds[stage]) for stage in local if stage in seconds}
    for stage, (own, other) in {**rows, "all": (sum(local.values()), sum(seconds.values()))}.items():
        print(f"| {stage} | {own:.1f} | {other:.1f} | {other / max(own, 1e-9):.3f} |", flush=True)


def show_files(want: dict[str, bytes], found: dict[str, bytes]) -> None:
    """Print which files differ from the local run's."""
    differing = [name for name in sorted({*want, *found}) if want.get(name) != found.get(name)]
    print(f"{len(want)} files; those that differ: {differing or 'none'}")


def show_bytes(made: Any, wires: Wires) -> None:
    """Print the bytes that each stage moved, as counted and on the wires."""
    for stage in dict.fromkeys(work["stage"] for work in made["works"]):
        works = [work for work in made["works"] if work["stage"] == stage]
        counts = made["stages"][stage]["counts"]
        carried = wires.between(works[0]["start"], works[-1]["stop"])
        moved, share = counts["bytes_moved"], counts["bytes_moved"] / max(1, carried)
        print(f"  {stage}: {moved:,} bytes counted, {carried:,} on the wires, share {share:.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    arguments(parser)
    parser.add_argument("--nodes", type=int, nargs="*", default=[1, 2, 4])
    parser.add_argument("--workers", type=int, default=1, help="of a node and of the local run, and threads of it")
    parser.add_argument("--store", type=float, default=2.0, help="10^9 bytes of all object stores")
    parser.add_argument("--objects", type=Path, help="folder of the object stores; Ray chooses /dev/shm")
    parser.add_argument("--local", type=Path, help="a finished run to compare with; none is made then")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which ends the nodes
    given.out.mkdir(parents=True, exist_ok=True)
    threads = dict.fromkeys(_THREADS, str(given.workers))
    options = ["--num-cpus", str(given.workers)]
    options += ["--plasma-directory", str(given.objects)] if given.objects else []
    local = given.local or given.out / "local"
    if not given.local:
        show("local", traced(local, "local", given, {**os.environ, **threads}, ()), 0.0)
    want, store = artefacts(local), round(given.store * 1e9)
    for nodes in given.nodes:
        with (
            network(nodes) as (places, wires),
            tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as place,
            cluster(Path(place), nodes, places, store // nodes, options) as started,
        ):
            processors, out = Processors(started), given.out / f"ray{nodes}"
            made = traced(out, "ray", given, {**started.environment, **threads}, places[0].enter)
            time.sleep(1)  # the last samples of the wires
            show(f"{nodes} nodes", made, processors.close())
            show_files(want, artefacts(out))
            show_stages(stage_seconds(local), stage_seconds(out))
            show_bytes(made, wires)


if __name__ == "__main__":
    main()

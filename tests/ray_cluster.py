"""A Ray cluster of several nodes on this machine, started and ended by Ray's own command."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

_START_SECONDS = 120
# A dead node is noticed after a second or two instead of half a minute.
_FAST = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "5000",  # of a busy one; a dead one refuses at once
    "RAY_health_check_failure_threshold": "3",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "5",
    "RAY_raylet_client_num_connect_attempts": "3",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Node:
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """Kill the node's raylet at once; Ray's command then ends what is left of the node."""
        for child in descendants(self.process.pid):
            if "raylet/raylet" in command_of(child):
                os.kill(child, signal.SIGKILL)
        self.process.wait(timeout=60)

    def end(self) -> None:
        left = descendants(self.process.pid)
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        for child in left:
            if "ray" in command_of(child):
                os.kill(child, signal.SIGKILL)


@dataclass(frozen=True)
class Place:
    """A machine, as far as a node of the cluster sees: its address, and the command that runs others there."""

    address: str = "127.0.0.1"
    enter: tuple[str, ...] = ()


@dataclass
class Cluster:
    folder: Path
    places: Sequence[Place] = (Place(),)  # of the nodes, the head first; the last one takes all others
    store: int = 100_000_000  # bytes of a node's object store
    options: Sequence[str] = ()  # of every node; they overrule those here
    port: int = field(default_factory=free_port)
    client_port: int = field(default_factory=free_port)
    nodes: list[Node] = field(default_factory=list)
    started: int = 0

    @property
    def address(self) -> str:
        return f"ray://{self.places[0].address}:{self.client_port}"

    @property
    def environment(self) -> dict[str, str]:
        paths = os.pathsep.join(entry for entry in sys.path if entry)
        threads = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        return {
            **os.environ,
            **_FAST,
            **threads,
            "PYTHONPATH": paths,
            "RAY_ADDRESS": f"{self.places[0].address}:{self.port}",
        }

    def _serves_clients(self) -> bool:
        """Return whether the head takes connections by ray://, which it does some time after it has started."""
        if self.places[0].enter:  # a network of its own, which nobody enters by ray://
            return True
        try:
            socket.create_connection((self.places[0].address, self.client_port), timeout=1).close()
        except OSError:
            return False
        return True

    def add(self, *more: str) -> Node:
        """Start the head, then further nodes: one processor each, a folder for temporary files, and `more` options."""
        machine = self.places[min(self.started, len(self.places) - 1)]
        place = self.folder / f"n{self.started}"
        place.mkdir(parents=True)
        self.started += 1
        role = ["--address", f"{self.places[0].address}:{self.port}"]
        if not self.nodes:
            role = ["--head", "--port", str(self.port), "--ray-client-server-port", str(self.client_port)]
            role += ["--include-dashboard", "false", "--temp-dir", str(place)]
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", *role]
        command = [*machine.enter, *ray, "--node-ip-address", machine.address, "--num-cpus", "1"]
        command += ["--object-store-memory", str(self.store), "--disable-usage-stats", "--block"]
        command += [*self.options, *more]
        environment = {name: value for name, value in self.environment.items() if name != "RAY_ADDRESS"}
        with (place / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        self.nodes.append(Node(process))
        log_file, until = place / "log", time.monotonic() + _START_SECONDS
        while "Ray runtime started" not in log_file.read_text() or not self._serves_clients():
            assert process.poll() is None, log_file.read_text()
            assert time.monotonic() < until, log_file.read_text()
            time.sleep(0.2)
        return self.nodes[-1]


@contextmanager
def cluster(
    folder: Path,
    nodes: int,
    places: Sequence[Place] = (Place(),),
    store: int = Cluster.store,
    options: Sequence[str] = (),
) -> Iterator[Cluster]:
    started = Cluster(folder, places, store, options)
    try:
        for _ in range(nodes):
            started.add()
        yield started
    finally:
        for node in reversed(started.nodes):
            node.end()


def command_of(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(process: int) -> list[int]:
    """Return the processes that a process started, and those that they started."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = [int(child) for child in task.read_text().split()]
        except OSError:
            continue
        for child in children:
            found += [child, *descendants(child)]
    return found

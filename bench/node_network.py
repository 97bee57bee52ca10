"""A network of machines on this one: namespaces of Linux joined by a bridge, each with a wire whose bytes are counted.

Needs root and the `ip` command. A process in a namespace sees its own addresses and ports alone, so a node of a cluster
there is reached over its wire or not at all.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.ray_cluster import Place

_SAMPLE_SECONDS = 0.02


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Wires:
    """Sample the bytes that the nodes receive.

    Args:
        names: of the ends of their wires on the bridge; what goes out there is what a node receives.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._files = [Path(f"/sys/class/net/{name}/statistics/tx_bytes") for name in names]
        self._samples: list[tuple[float, int]] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def _sample(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            self._samples.append((time.time(), self.total))

    @property
    def total(self) -> int:
        """Return the bytes that all nodes received so far."""
        return sum(int(file.read_text()) for file in self._files)

    def between(self, start: float, stop: float) -> int:
        """Return the bytes received between two times, in seconds since 1970."""
        inside = [received for at, received in self._samples if start <= at <= stop]
        return inside[-1] - inside[0] if inside else 0

    def close(self) -> None:
        """End the samples."""
        self._ended.set()
        self._thread.join()


def limit(places: Sequence[Place], gbit: float) -> None:
    """Limit the wires of nodes in both directions, to so many 10^9 bits per second."""
    rate = ["tbf", "rate", f"{round(1000 * gbit)}mbit", "burst", "2mb", "latency", "400ms"]
    for place in places:
        name = place.enter[-1]
        for enter, device in (((), name), (place.enter, "eth0")):
            subprocess.run([*enter, "tc", "qdisc", "add", "dev", device, "root", *rate], check=True)


@contextmanager
def network(nodes: int) -> Iterator[tuple[list[Place], Wires]]:
    """Yield the machines of a network and their wires.

    Args:
        nodes: 1 to 200.
    """
    own = os.getpid()
    bridge, names = f"mb{own}", [f"m{own}n{n}" for n in range(nodes)]
    places = [Place(f"10.99.0.{n + 1}", ("ip", "netns", "exec", name)) for n, name in enumerate(names)]
    _ip("link", "add", bridge, "type", "bridge")
    try:
        _ip("link", "set", bridge, "up")
        for name, place in zip(names, places, strict=True):
            _ip("netns", "add", name)
            _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", name, "master", bridge, "up")
            _ip("-n", name, "addr", "add", f"{place.address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _ip("-n", name, "link", "set", device, "up")
        wires = Wires(names)
        try:
            yield places, wires
        finally:
            wires.close()
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)
        _ip("link", "del", bridge)

"""Blocks on a Ray cluster: tables are put once a node, blocks are tasks of one processor, results come back as bytes.

Ray places the tasks, moves the tables and sees nodes die. A block whose worker or node died is submitted again here,
so that it is counted. No more blocks are in flight than keep the processors busy: the object store holds the tables
and the results of only those.
"""

from __future__ import annotations

import logging
import socket
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from mllmrec.blocks.execution import Executor, Task, hold_to_one_thread, shaping_versions
from mllmrec.blocks.launcher import ATTEMPTS, Inputs, raise_from_worker
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.work import Array, Arrays, cut
from mllmrec.errors import ConfigError, EngineError, first_line, require_extra
from mllmrec.foundation import digests

_AHEAD = 2  # blocks in flight a processor: one runs, the rows of another are brought meanwhile
_LOOK_SECONDS = 5.0  # between two looks at a cluster in which no block ends
_GRACE_SECONDS = 60.0  # without a processor, before the run stops
_CONNECT_SECONDS = 10.0
_CONNECTS = 3  # by ray://, where the head is too busy to start a server for us in its half minute
_PAUSE_SECONDS = 5.0
_KEPT_WORKS = 4  # works after which a table that none of them read leaves the object store
_executor = Executor()  # one a worker process


class _Memory:
    """The memory of a read-only array, as NumPy takes any other.

    Compiled code takes an array that cannot be written to for another type, and would be compiled anew on every node.
    Functions of blocks write to no table; the object store is mapped read-only, so one that did would end its worker.
    """

    def __init__(self, array: Array) -> None:
        self._array = array  # keeps the memory alive
        interface = dict(array.__array_interface__)
        self.__array_interface__ = {**interface, "data": (interface["data"][0], False)}


def _open(names: Sequence[str], arrays: Sequence[Array]) -> Arrays:
    return {
        name: np.asarray(_Memory(array)) if array.size else array.copy()
        for name, array in zip(names, arrays, strict=True)
    }


def compute(
    task: dict[str, Any], versions: Mapping[str, str], rows: Arrays, names: Sequence[str], *tables: Array
) -> dict[str, Any]:
    """Compute one block on a node of the cluster.

    Args:
        task: as `Task.as_json` writes it.
        versions: of the packages where the run was started.
        rows: the block's own rows, flat.
        names: of the tables.
        tables: flat arrays of the tables that are read whole.

    Returns:
        The content of the part file, its SHA-256 and the node; or the error.
    """
    import ray

    node, began = ray.get_runtime_context().get_node_id(), time.perf_counter()
    own = shaping_versions()
    other = [f"{name} {own.get(name, 'absent')} for {want}" for name, want in versions.items() if own.get(name) != want]
    if other:
        text = f"node {node[:8]} of the cluster has {', '.join(other)}; install the same versions everywhere"
        return {"error": "MismatchError", "text": text, "trace": ""}
    hold_to_one_thread()
    try:
        own_rows, shared = _open(list(rows), list(rows.values())), _open(names, tables)
        data = _executor.execute(Task.from_json(task), own_rows, shared, whole=False)
    except Exception as error:  # whatever a block raises is the starter's to judge
        return {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
    return {"data": data, "sha": digests.hash_bytes(data), "node": node, "seconds": time.perf_counter() - began}


class RayLauncher:
    """Starts blocks on a Ray cluster; see Launcher.

    Args:
        name: "ray" for the cluster of this machine or of $RAY_ADDRESS, or ray://HOST:PORT.

    Attributes:
        nodes: blocks that each node computed, by its id.

    Raises:
        ConfigError: ray is not installed, or no cluster answers.
    """

    def __init__(self, name: str) -> None:
        require_extra("ray", "ray", "--on ray")
        import ray

        self._ray = ray
        self._owned = not ray.is_initialized()
        if self._owned:
            _connect(ray, name)
        self._compute = ray.remote(num_cpus=1, max_retries=0)(compute)
        self._refs: dict[str, tuple[Any, int]] = {}  # digest -> object, and the last work that read it
        self._works = 0
        self.nodes: Counter[str] = Counter()
        self.repeated = self.bytes_sent = self.bytes_back = 0
        self.busy_seconds = 0.0

    def launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        """Yield the number of each block once its part file is there, in any order; see Launcher.

        Args:
            tasks: the blocks to compute.
            inputs: their tables.
            parts: takes the part files.
        """
        try:
            yield from self._launch(tasks, inputs, parts)
        except (self._ray.exceptions.RayError, ConnectionError, *_rpc_errors()) as error:
            raise EngineError(
                f"the Ray cluster cannot go on: {first_line(error)}; what is done is kept, start the run again"
            ) from error

    def _launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        tables = self._put(inputs)
        versions, waiting, attempts = shaping_versions(), deque(tasks), Counter[int]()
        running: dict[Any, Task] = {}
        while waiting or running:
            most = self._in_flight()
            while waiting and len(running) < most:
                task = waiting.popleft()
                rows = {name: np.ascontiguousarray(row) for name, row in cut(inputs.rows, task.span).items()}
                self.bytes_sent += sum(row.nbytes for row in rows.values())
                running[self._compute.remote(task.as_json(), versions, rows, list(tables), *tables.values())] = task
            for done in self._wait(running):
                task = running.pop(done)
                reply = self._reply(done, task, attempts)
                if reply is None:
                    waiting.appendleft(task)
                    continue
                parts.write(task.block, reply["data"])
                self.bytes_back += len(reply["data"])
                self.busy_seconds += reply["seconds"]
                self.nodes[reply["node"]] += 1
                yield task.block

    def _put(self, inputs: Inputs) -> dict[str, Any]:
        """Return a reference to each shared table; those that lie in the object store are not put again."""
        self._works += 1
        refs = {}
        for name, array in inputs.shared.items():
            digest = inputs.digests[name]
            if digest not in self._refs:
                self.bytes_sent += array.nbytes
            known = self._refs.get(digest)
            refs[name] = known[0] if known else self._ray.put(np.ascontiguousarray(array))
            self._refs[digest] = (refs[name], self._works)
        self._refs = {key: ref for key, ref in self._refs.items() if ref[1] > self._works - _KEPT_WORKS}
        return refs

    def _in_flight(self) -> int:
        return max(1, _AHEAD * int(self._ray.cluster_resources().get("CPU", 0)))

    def _wait(self, running: Mapping[Any, Task]) -> Sequence[Any]:
        """Return the blocks that ended, at least one.

        Raises:
            EngineError: the cluster has no processor left.
        """
        without = 0.0
        while True:
            began = time.monotonic()
            ended: Sequence[Any] = self._ray.wait(list(running), num_returns=1, timeout=_LOOK_SECONDS)[0]
            if ended:
                return ended
            alone = self._ray.cluster_resources().get("CPU", 0) == 0
            without = without + time.monotonic() - began if alone else 0.0
            if without > _GRACE_SECONDS:
                raise EngineError(
                    f"the Ray cluster has had no processor for {_GRACE_SECONDS:.0f} s; add nodes with ray start "
                    "--address=HEAD:PORT and start the run again, what is done is kept"
                )

    def _reply(self, done: Any, task: Task, attempts: Counter[int]) -> dict[str, Any] | None:
        """Return what a block brought; None if its worker or node died, and it must be computed again."""
        exceptions = self._ray.exceptions
        try:
            reply: dict[str, Any] = self._ray.get(done)
        except exceptions.RayTaskError as error:  # a bug, or a table that a node had no memory for
            raise EngineError(
                f"block {task.block} failed on the cluster: {first_line(error.cause or error)}"
            ) from error
        except exceptions.RayError as error:
            attempts[task.block] += 1
            if attempts[task.block] >= ATTEMPTS:
                raise
            self.repeated += 1
            logging.getLogger(__name__).info("block %s is computed again: %s", task.block, first_line(error))
            return None
        if "error" in reply:
            raise_from_worker(reply["error"], reply["text"], reply["trace"])
        if digests.hash_bytes(reply["data"]) != reply["sha"]:
            raise EngineError(f"block {task.block} came back from node {reply['node'][:8]} with another hash")
        return reply

    def close(self) -> None:
        """Leave the cluster, which goes on."""
        self._refs = {}
        if self._owned:
            self._ray.shutdown()


def _check_port(address: str) -> None:
    """Raise an OSError or ValueError where nobody listens, which Ray tries for half a minute."""
    parts = urlsplit(address)
    if not parts.hostname or not parts.port:
        raise ValueError("wanted ray://HOST:PORT, where PORT is mostly 10001")
    with socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_SECONDS):
        pass


def _rpc_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a connection by ray://, which Ray passes on as they are."""
    grpc = sys.modules.get("grpc")
    return (grpc.RpcError,) if grpc else ()


def _connect(ray: Any, name: str) -> None:
    """Join a cluster.

    Raises:
        ConfigError: none answers.
    """
    address = name if name.startswith("ray://") else "auto"
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters of it is raised, and said in one line
    for attempt in range(_CONNECTS, 0, -1):
        try:
            if address == name:
                _check_port(name)
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
        except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
            if isinstance(error, ConnectionAbortedError) and attempt > 1:
                time.sleep(_PAUSE_SECONDS)
                continue
            where = f"at {name}" if address == name else "on this machine, nor at $RAY_ADDRESS"
            raise ConfigError(
                f"no Ray cluster answers {where} ({_reason(error)}); start one with: ray start --head"
            ) from error
        return


def _reason(error: Exception) -> str:
    """Return the line of an error that says why: of a traceback that a head sends the last."""
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if isinstance(error, ConnectionAbortedError) and lines else first_line(error)

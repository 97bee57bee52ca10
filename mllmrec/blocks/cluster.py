"""Blocks on a Ray cluster: tables are put once a node, blocks are tasks of one processor, results come back as bytes.

Ray places the tasks, moves the tables and sees nodes die. A block whose worker or node died is submitted again here,
so that it is counted. So is one that is late while no other waits; the first result stands. No more blocks are in
flight than keep the processors busy: the object store holds the tables and the results of only those.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mllmrec.blocks.connection import connect, is_of_connection, rpc_errors
from mllmrec.blocks.execution import Task, shaping_versions
from mllmrec.blocks.launcher import ATTEMPTS, Inputs, raise_from_worker
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.ray_node import compute
from mllmrec.blocks.work import Array, Span, cut
from mllmrec.errors import EngineError, first_line, require_extra
from mllmrec.foundation import digests

_AHEAD = 2  # blocks in flight a processor: one runs, the rows of another are brought meanwhile
_LATE, _LATE_SECONDS = 4.0, 30.0  # a block is late after so many times the usual seconds, and so many more
_LOOK_SECONDS = 5.0  # between two looks at a cluster in which no block ends
_GRACE_SECONDS = 60.0  # without a processor, before the run stops
_KEPT_WORKS = 4  # works after which a table that none of them read leaves the object store


@dataclass
class _Flight:
    """A block that a worker has.

    Attributes:
        task: the block.
        since: when it was started, by the monotonic clock.
        doubled: it was started once more, for it is late.
    """

    task: Task
    since: float
    doubled: bool = False


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
            connect(ray, name)
        self._compute = ray.remote(num_cpus=1, max_retries=0)(compute)
        self._refs: dict[str, tuple[Any, int]] = {}  # key of an array -> object, and the last work that read it
        self._cut: dict[str, int] = {}  # digest of a table that was cut, and the last work that did
        self._kept: set[str] = set()  # of these tables, those that this work cuts again
        self._works = 0
        self.nodes: Counter[str] = Counter()
        self.repeated = self.bytes_sent = self.bytes_back = self.bytes_moved = 0
        self._own_node = ray.get_runtime_context().get_node_id()
        self._held: set[tuple[str, str]] = set()  # key of an array, and a node that has it
        self.busy_seconds = self._seen = 0.0  # when the cluster last had a processor

    def launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        """Yield the number of each block once its part file is there, in any order; see Launcher.

        Args:
            tasks: the blocks to compute.
            inputs: their tables.
            parts: takes the part files.
        """
        try:
            yield from self._launch(tasks, inputs, parts)
        except (self._ray.exceptions.RayError, ConnectionError, *rpc_errors()) as error:
            if not is_of_connection(error):
                raise
            raise EngineError(
                f"the Ray cluster cannot go on: {first_line(error)}; what is done is kept, start the run again"
            ) from error

    def _launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        tables, attempts = self._put(inputs), Counter[int]()
        waiting, left = deque(tasks), {task.block for task in tasks}
        running, seconds = dict[Any, _Flight](), list[float]()
        self._seen = time.monotonic()
        while left:
            most = self._in_flight()
            while waiting and len(running) < most:
                task = waiting.popleft()
                running[self._submit(task, inputs, tables)] = _Flight(task, time.monotonic())
            for done in self._wait(running):
                task = running.pop(done).task
                if task.block not in left:  # another worker was faster
                    continue
                reply = self._reply(done, task, attempts)
                if reply is None:
                    waiting.appendleft(task)
                    continue
                left.remove(task.block)
                seconds.append(reply["seconds"])
                self._keep(reply, task, inputs, parts)
                yield task.block
            if not waiting and seconds:
                waiting.extend(self._late(running, left, statistics.median(seconds)))
        for ref in running:
            self._ray.cancel(ref, force=True)

    def _submit(self, task: Task, inputs: Inputs, tables: Mapping[str, Any]) -> Any:
        """Start a block, and return the reference of its reply."""
        rows = {name: np.ascontiguousarray(row) for name, row in cut(inputs.rows, task.span).items()}
        sent = [self._send_rows(row, inputs.digests[name], task.span) for name, row in rows.items()]
        function = self._options(task)
        return function.remote(task.as_json(), shaping_versions(), list(rows), list(tables), *sent, *tables.values())

    def _send_rows(self, row: Array, digest: str, span: Span) -> Any:
        """Return rows as a task takes them; those of a table that is cut again stay on the nodes, as tables do."""
        if digest in self._kept:
            return self._reference(_key(digest, span), row)
        self.bytes_sent += row.nbytes
        return row

    def _reference(self, key: str, array: Array) -> Any:
        """Return a reference to an array in the object store; one that lies there is not put again."""
        if key not in self._refs:
            self.bytes_sent += array.nbytes
            self._refs[key] = self._ray.put(np.ascontiguousarray(array)), 0
        self._refs[key] = self._refs[key][0], self._works
        return self._refs[key][0]

    def _keep(self, reply: Mapping[str, Any], task: Task, inputs: Inputs, parts: PartFiles) -> None:
        """Write a block's part file, and count what it took."""
        parts.write(task.block, reply["data"])
        self.bytes_back += len(reply["data"])
        self.busy_seconds += reply["seconds"]
        self.nodes[reply["node"]] += 1
        self._count_moves(reply, task, inputs)

    def _late(self, running: Mapping[Any, _Flight], left: set[int], usual: float) -> list[Task]:
        """Return blocks that take far longer than others did: their nodes may be slow, and others have time.

        Args:
            running: blocks by reference; those that are returned are marked.
            left: numbers of the blocks that are not done.
            usual: median seconds of a block.
        """
        limit, now, late = _LATE_SECONDS + _LATE * usual, time.monotonic(), list[Task]()
        for flight in running.values():
            if flight.task.block in left and not flight.doubled and now - flight.since > limit:
                flight.doubled = True
                late.append(flight.task)
        self.repeated += len(late)
        return late

    def _count_moves(self, reply: Mapping[str, Any], task: Task, inputs: Inputs) -> None:
        """Count what a block moved if another node computed it: its rows and result, and tables new to that node."""
        node = reply["node"]
        if node == self._own_node:
            return
        self.bytes_moved += len(reply["data"])
        arrays = {inputs.digests[name]: table for name, table in inputs.shared.items()}
        arrays |= {_key(inputs.digests[name], task.span): row for name, row in cut(inputs.rows, task.span).items()}
        for key, array in arrays.items():
            if (key, node) not in self._held:
                self.bytes_moved += array.nbytes
                self._held |= {(key, node)} if key in self._refs else set()

    def _put(self, inputs: Inputs) -> dict[str, Any]:
        """Return a reference to each shared table, and let go of what no work has read for a while."""
        self._works += 1
        oldest = self._works - _KEPT_WORKS
        tables = {name: self._reference(inputs.digests[name], array) for name, array in inputs.shared.items()}
        own = {inputs.digests[name] for name in inputs.rows}
        self._cut = {key: work for key, work in self._cut.items() if work > oldest}
        self._kept = own & set(self._cut)
        self._cut |= dict.fromkeys(own, self._works)
        self._refs = {key: ref for key, ref in self._refs.items() if ref[1] > oldest}
        self._held = {(key, node) for key, node in self._held if key in self._refs}
        return tables

    def _options(self, task: Task) -> Any:
        """Return the remote function for a block.

        Raises:
            EngineError: it takes a GPU, and no node has one.
        """
        if not task.gpu:
            return self._compute
        if not self._ray.cluster_resources().get("GPU", 0):
            raise EngineError(
                f"{task.function} takes a GPU, and no node of the Ray cluster has one; add a node that has, or name "
                "the processor: encode.device=cpu, transformers.device=cpu"
            )
        return self._compute.options(num_gpus=1)

    def _in_flight(self) -> int:
        return max(1, _AHEAD * int(self._ray.cluster_resources().get("CPU", 0)))

    def _wait(self, running: Mapping[Any, _Flight]) -> Sequence[Any]:
        """Return the blocks that ended within a few seconds, maybe none.

        Raises:
            EngineError: the cluster has had no processor for a minute.
        """
        ended: Sequence[Any] = self._ray.wait(list(running), num_returns=1, timeout=_LOOK_SECONDS)[0]
        now = time.monotonic()
        if ended or self._ray.cluster_resources().get("CPU", 0):
            self._seen = now
        elif now - self._seen > _GRACE_SECONDS:
            raise EngineError(
                f"the Ray cluster has had no processor for {_GRACE_SECONDS:.0f} s; add nodes with ray start "
                "--address=HEAD:PORT and start the run again, what is done is kept"
            )
        return ended

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


def _key(digest: str, span: Span) -> str:
    """Return the key of the rows of a span."""
    return f"{digest}[{span[0]}:{span[1]}]"

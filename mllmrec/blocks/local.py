"""Blocks on processes of this machine: as many as Numba may use threads, each with one."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from numba import get_num_threads

from mllmrec.blocks.execution import Task
from mllmrec.blocks.launcher import ATTEMPTS, Inputs, raise_from_worker
from mllmrec.blocks.part_files import PartFiles
from mllmrec.errors import EngineError
from mllmrec.foundation import storage

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "POLARS_MAX_THREADS")
_TABLES = "tables"  # folder of the mapped arrays, beside the parts of each work


class WorkerDiedError(Exception):
    """A worker process ended before it answered."""


class Worker:
    """A process that computes blocks, one at a time."""

    def __init__(self) -> None:
        environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in sys.path if entry)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mllmrec.blocks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=environment,
        )

    @property
    def process_id(self) -> int:
        """Return the system's number of the process."""
        return self._process.pid

    def call(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the reply to one request.

        Raises:
            WorkerDiedError: there was none.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
            reply: dict[str, Any] = json.loads(line)
        except (OSError, ValueError) as error:
            raise WorkerDiedError(f"it ended with code {self._process.wait()}") from error
        return reply

    def end(self) -> None:
        """End the process at once; part files are whole or not there."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # what was not written yet has nobody to read it
                    continue


class LocalLauncher:
    """Starts blocks on worker processes; see Launcher.

    Args:
        workers: processes; 0: as many as Numba may use threads.
    """

    def __init__(self, workers: int = 0) -> None:
        self._size = workers
        self._idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        self._started: list[Worker] = []
        self._lock = threading.Lock()
        self._closed = False
        self.repeated = self.bytes_sent = self.bytes_back = self.bytes_moved = 0
        self.busy_seconds = 0.0

    @property
    def process_ids(self) -> list[int]:
        """Return the system's numbers of the worker processes."""
        return [worker.process_id for worker in self._started]

    def launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        """Yield the number of each block once its part file is there, in any order; see Launcher.

        Args:
            tasks: the blocks to compute.
            inputs: their tables.
            parts: takes the part files.
        """
        tables = parts.folder.parent / _TABLES
        files = [self._write(arrays, inputs.digests, tables) for arrays in (inputs.rows, inputs.shared)]
        places = {"rows": files[0], "shared": files[1], "folder": str(parts.folder)}
        pool = ThreadPoolExecutor(min(self._count(), max(1, len(tasks))))
        try:
            running = {pool.submit(self._compute, {"task": task.as_json(), **places}): task for task in tasks}
            for done in as_completed(running):
                task, reply = running[done], done.result()
                parts.add(task.block, reply["sha"])
                self.busy_seconds += reply["seconds"]
                yield task.block
        except BaseException:
            self.close()
            raise
        finally:
            pool.shutdown(cancel_futures=True)

    def _write(self, arrays: Mapping[str, Any], digests: Mapping[str, str], folder: Path) -> dict[str, str]:
        """Write arrays for the workers to map; return where each lies."""
        places = {}
        for name, array in arrays.items():
            file = folder / f"{digests[name]}.npy"
            if not file.exists():
                storage.write_array(file, array)
                self.bytes_sent += array.nbytes
            places[name] = str(file.resolve())
        return places

    def _count(self) -> int:
        return self._size or get_num_threads()

    def _compute(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a block's hash and seconds; a worker that dies is replaced, and the block begun again."""
        for attempt in range(1, ATTEMPTS + 1):
            worker = self._take()
            try:
                reply = worker.call(request)
            except WorkerDiedError as died:
                worker.end()
                if self._closed:
                    raise
                if attempt == ATTEMPTS:
                    raise EngineError(
                        f"block {request['task']['block']} ended its worker {ATTEMPTS} times, at last {died}; "
                        "is there memory for one more worker? NUMBA_NUM_THREADS sets their number"
                    ) from died
                self.repeated += 1
                continue
            self._idle.put(worker)
            if "error" in reply:
                raise_from_worker(reply["error"], reply["text"], reply["trace"])
            return reply
        raise AssertionError("the loop returns or raises")

    def _take(self) -> Worker:
        """Return a worker that waits for work, or a new one."""
        try:
            return self._idle.get_nowait()
        except queue.Empty:
            with self._lock:
                if self._closed:
                    raise WorkerDiedError("the workers were ended") from None
                worker = Worker()
                self._started.append(worker)
            return worker

    def close(self) -> None:
        """End the workers at once."""
        with self._lock:
            self._closed = True
            for worker in self._started:
                worker.end()
            self._started = []

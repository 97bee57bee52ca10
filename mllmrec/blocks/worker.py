"""A worker process of this machine: tasks come in as lines of JSON, files and lines of JSON go out.

It ends when its input does. So it outlives neither the process that started it nor a kill of that process. Tables are
mapped from files, copy on write: all workers share one copy in memory, and nothing that a block does changes it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from mllmrec.blocks.execution import Executor, Task, hold_to_one_thread
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.work import Arrays
from mllmrec.foundation import digests


def serve(requests: IO[str], replies: IO[str]) -> None:
    """Answer requests until there are no more.

    Args:
        requests: one JSON value per line; see `local.request`.
        replies: takes one JSON value per line: the block's hash and its seconds, or the error.
    """
    hold_to_one_thread()
    executor = Executor()
    for line in requests:
        replies.write(json.dumps(_reply(executor, json.loads(line))) + "\n")
        replies.flush()


def _reply(executor: Executor, request: Mapping[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        task = Task.from_json(request["task"])
        rows, shared = (_open(request[name]) for name in ("rows", "shared"))
        data = executor.execute(task, rows, shared, whole=True)
        PartFiles(Path(request["folder"])).write(task.block, data)
    except Exception as error:  # whatever a block raises is the starter's to judge
        return {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
    return {"sha": digests.hash_bytes(data), "seconds": time.perf_counter() - began}


def _open(files: Mapping[str, str]) -> Arrays:
    """Return arrays of files, mapped copy on write; compiled code then takes them as it takes any array."""
    return {name: np.asarray(np.load(file, mmap_mode="c", allow_pickle=False)) for name, file in files.items()}


def main() -> None:
    """Serve standard input; what libraries print goes to the standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the starter's, who closes our input
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, replies)


if __name__ == "__main__":
    main()

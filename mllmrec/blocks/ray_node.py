"""One block on a node of a Ray cluster: arrays of the object store in, the bytes of a part file out."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mllmrec.blocks.execution import Executor, Task, hold_to_one_thread, shaping_versions
from mllmrec.blocks.work import Array, Arrays
from mllmrec.foundation import digests

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
    task: dict[str, Any], versions: Mapping[str, str], rows: Sequence[str], names: Sequence[str], *arrays: Array
) -> dict[str, Any]:
    """Compute one block on a node of the cluster.

    Args:
        task: as `Task.as_json` writes it.
        versions: of the packages where the run was started.
        rows: names of the flat arrays of the block's own rows.
        names: of the flat arrays of tables that are read whole.
        arrays: of rows, then of tables.

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
        own_rows, shared = _open(rows, arrays[: len(rows)]), _open(names, arrays[len(rows) :])
        data = _executor.execute(Task.from_json(task), own_rows, shared, whole=False)
    except Exception as error:  # whatever a block raises is the starter's to judge
        return {"error": type(error).__name__, "text": str(error), "trace": traceback.format_exc()}
    return {"data": data, "sha": digests.hash_bytes(data), "node": node, "seconds": time.perf_counter() - began}

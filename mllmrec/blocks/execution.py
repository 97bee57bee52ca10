"""One block in a worker, whoever started it: find the function, rebuild the tables, compute on one thread.

Sums of floats depend on how many threads share them. So every worker computes with one, on this machine and on a
cluster, and the bits are the same on both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from mllmrec.blocks.part_files import as_bytes
from mllmrec.blocks.work import Array, Block, Span, Table, cut, find_function, unflatten
from mllmrec.foundation.environment import versions

_SHAPING = ("mllmrec", "numba", "numpy", "scipy", "torch")  # packages whose versions decide a result's bits


@dataclass(frozen=True, slots=True)
class Task:
    """One block as a worker is given it, beside the tables.

    Attributes:
        work: key of the work.
        block: number of the block.
        function: module:name.
        span: first row, and one past the last.
        settings: of the work.
        gpu: it takes a GPU of a cluster's node.
    """

    work: str
    block: int
    function: str
    span: Span
    settings: Mapping[str, Any]
    gpu: bool = False

    def as_json(self) -> dict[str, Any]:
        """Return it JSON-like."""
        return asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Task:
        """Return what `as_json` was made from."""
        return Task(**{**value, "span": (int(value["span"][0]), int(value["span"][1]))})


class Executor:
    """Compute blocks; the tables of the work at hand are rebuilt once."""

    def __init__(self) -> None:
        self._work = ""
        self._shared: dict[str, Table] = {}
        self._kept: dict[str, Any] = {}

    def execute(self, task: Task, rows: Mapping[str, Array], shared: Mapping[str, Array], *, whole: bool) -> bytes:
        """Return the content of a block's part file.

        Args:
            task: the block.
            rows: flat arrays of the tables that are cut.
            shared: flat arrays of the tables that are read whole.
            whole: `rows` hold the rows of all blocks, and the block's own are to be cut from them.
        """
        if task.work != self._work:
            self._work, self._shared, self._kept = task.work, unflatten(shared), {}
        own = unflatten(cut(rows, task.span) if whole else rows)
        block = Block(*task.span, own, self._shared, task.settings, self._kept)
        return as_bytes(find_function(task.function)(block))


@cache
def hold_to_one_thread() -> None:
    """Let Numba, torch and BLAS use one thread from now on."""
    import numba
    import torch
    from threadpoolctl import threadpool_limits

    numba.set_num_threads(1)
    torch.set_num_threads(1)
    threadpool_limits(limits=1)


@cache
def shaping_versions() -> dict[str, str]:
    """Return the versions that must be the same on every machine of a cluster; they take 7 ms to find."""
    installed = versions()
    return {name: installed[name] for name in _SHAPING if name in installed}

"""Hold what every launcher of blocks offers, and handle errors of workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import mllmrec_kernels

from mllmrec import errors
from mllmrec.blocks.execution import Task
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.work import Array

ATTEMPTS = 5  # at a block whose worker dies


@dataclass(frozen=True, slots=True)
class Inputs:
    """The tables of a work as flat arrays.

    Attributes:
        rows: tables that are cut.
        shared: tables that are read whole.
        digests: SHA-256 of every array, by the name of the table; rows and shared have no name in common.
    """

    rows: Mapping[str, Array]
    shared: Mapping[str, Array]
    digests: Mapping[str, str]


class Launcher(Protocol):
    """Starts blocks on workers.

    Attributes:
        repeated: blocks that were started again because their worker died.
        bytes_sent: bytes of tables handed to workers.
        bytes_back: bytes of results that came back by a cluster.
        bytes_moved: of these and of tables, the bytes that went from one node to another.
        busy_seconds: time that workers spent in blocks, summed.
    """

    repeated: int
    bytes_sent: int
    bytes_back: int
    bytes_moved: int
    busy_seconds: float

    def launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        """Yield the number of each block once its part file is there, in any order.

        Args:
            tasks: the blocks to compute.
            inputs: their tables.
            parts: takes the part files.

        Raises:
            MllmrecError: a block refused its input, or the workers cannot go on.
        """
        ...

    def close(self) -> None:
        """End what was started."""
        ...


def raise_from_worker(name: str, text: str, trace: str) -> None:
    """Raise the error of a block as if it had been raised here.

    Args:
        name: of the error's class.
        text: of the error.
        trace: the worker's traceback, for an error that nobody raised on purpose.

    Raises:
        MllmrecError: an error of this name is one of ours.
        RuntimeError: any other; it is a bug.
    """
    for module in (errors, mllmrec_kernels):
        found = getattr(module, name, None)
        if isinstance(found, type) and issubclass(found, Exception):
            raise found(text)
    raise RuntimeError(f"a block failed with {name}: {text}\n{trace}")

"""A launcher that computes blocks in this process: what workers do, without the workers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from mllmrec.blocks.execution import Executor, Task
from mllmrec.blocks.launcher import Inputs
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import cut
from mllmrec.foundation.progress import silent


class InProcess:
    """Sends each block's own rows, as a cluster does; tables cannot be written to."""

    def __init__(self) -> None:
        self.tasks: list[str] = []  # as they were sent
        self.repeated = self.bytes_sent = self.bytes_back = self.bytes_moved = 0
        self.busy_seconds = 0.0

    def launch(self, tasks: Sequence[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        executor = Executor()
        for task in reversed(tasks):  # the order in which blocks end must not matter
            rows = {name: np.ascontiguousarray(array) for name, array in cut(inputs.rows, task.span).items()}
            self.tasks.append(json.dumps(task.as_json()))
            again = Task.from_json(json.loads(self.tasks[-1]))
            parts.write(task.block, executor.execute(again, rows, inputs.shared, whole=False))
            yield task.block

    def close(self) -> None:
        """Nothing was started."""


def blocks_in(folder: Path) -> Blocks:
    return Blocks(InProcess(), folder, silent, Counter())

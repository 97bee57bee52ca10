"""The blocks of a run's stages: what is finished is found again, the rest is computed, and both are counted."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mllmrec.blocks.execution import Task, shaping_versions
from mllmrec.blocks.launcher import Inputs, Launcher
from mllmrec.blocks.local import LocalLauncher
from mllmrec.blocks.part_files import PartFiles
from mllmrec.blocks.work import Array, Arrays, Work, array_digest, flatten
from mllmrec.errors import ConfigError, near_miss
from mllmrec.foundation import digests
from mllmrec.foundation.progress import Progress

ENGINES = ("local", "ray", "ray://HOST:PORT")


class _Digests:
    """SHA-256 of arrays; one that is used again is not read again."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Array], str]] = {}

    def of(self, array: Array) -> str:
        known = self._known.get(id(array))
        if known and known[0]() is array:
            return known[1]
        digest = array_digest(array)
        self._known[id(array)] = (weakref.ref(array), digest)
        return digest


@dataclass
class Blocks:
    """Computes the works of one stage in blocks.

    Attributes:
        launcher: starts blocks on workers.
        folder: takes the part files, one folder a work; they are removed with the stage's unfinished work.
        progress: called after each block.
        counts: works and blocks, how many blocks were computed, found, torn or begun again, bytes of tables and of
            results, and the milliseconds that workers spent.
    """

    launcher: Launcher
    folder: Path
    progress: Progress
    counts: Counter[str]
    _digests: _Digests = field(default_factory=_Digests)

    def run(self, work: Work, progress: Progress | None = None) -> Arrays:
        """Return the arrays of all blocks of a work, joined in order; finished blocks are not computed again.

        Args:
            work: the rows and what is done with them.
            progress: called after each block; None: that of the stage.

        Raises:
            MllmrecError: a block refused its input, or the workers cannot go on.
        """
        inputs, spans = self._inputs(work), work.spans
        settings, name = dict(work.settings), work.function_name
        key = digests.hash_value([name, settings, spans, dict(inputs.digests), shaping_versions()])
        parts = PartFiles(self.folder / key[:32])
        found = parts.find(len(spans))
        tasks = [Task(key, n, name, span, settings, work.gpu) for n, span in enumerate(spans) if n not in found]
        done = sum(spans[n][1] - spans[n][0] for n in found)
        self.counts.update(works=1, blocks=len(spans), blocks_found=len(found), blocks_torn=parts.torn)
        report = progress or self.progress
        report(work.label, done, work.total)
        for block in self._launch(tasks, inputs, parts):
            done += spans[block][1] - spans[block][0]
            self.counts["blocks_computed"] += 1
            report(work.label, done, work.total)
        result = parts.read()
        if not work.keep:
            parts.remove()
        return result

    def _inputs(self, work: Work) -> Inputs:
        rows, shared = flatten(work.rows), flatten(work.shared)
        return Inputs(rows, shared, {name: self._digests.of(array) for name, array in {**rows, **shared}.items()})

    def _launch(self, tasks: list[Task], inputs: Inputs, parts: PartFiles) -> Iterator[int]:
        """Start blocks, and count what the launcher did meanwhile."""
        before = _measure(self.launcher)
        if tasks:
            yield from self.launcher.launch(tasks, inputs, parts)
        self.counts.update({name: value - before[name] for name, value in _measure(self.launcher).items()})


def _measure(launcher: Launcher) -> dict[str, int]:
    return {
        "blocks_repeated": launcher.repeated,
        "bytes_sent": launcher.bytes_sent,
        "bytes_back": launcher.bytes_back,
        "bytes_moved": launcher.bytes_moved,
        "worker_milliseconds": round(1000 * launcher.busy_seconds),
    }


def check_engine(name: str) -> None:
    """Refuse what `--on` cannot mean, before anything is started.

    Raises:
        ConfigError: the name is none of `ENGINES`.
    """
    if name not in ("", "local", "ray") and not name.startswith("ray://"):
        hint = near_miss(name, ENGINES)
        raise ConfigError(f"there is no engine {name!r}{hint}; --on takes one of {', '.join(ENGINES)}")


@contextmanager
def open_launcher(name: str) -> Iterator[Launcher | None]:
    """Yield the launcher that `--on` names; None if there is none, and stages compute in this process.

    Args:
        name: "local", "ray", "ray://HOST:PORT", or nothing.

    Raises:
        ConfigError: the name is another, ray is not installed, or no cluster answers.
    """
    check_engine(name)
    if not name:
        yield None
        return
    launcher = LocalLauncher() if name == "local" else _ray_launcher(name)
    try:
        yield launcher
    finally:
        launcher.close()


def _ray_launcher(name: str) -> Launcher:
    from mllmrec.blocks.cluster import RayLauncher

    return RayLauncher(name)


def counted(counts: Mapping[str, int]) -> dict[str, int]:
    """Return counts as run.json keeps them; none where no work was in blocks."""
    return dict(counts) if any(counts.values()) else {}

"""The one long CSV: a line per measurement; tables and plots are made only from it."""

from __future__ import annotations

import csv
import importlib.metadata
import io
import os
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import cache
from pathlib import Path

from mllmrec.errors import InputError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.environment import VERSION, describe_machine
from mllmrec.foundation.tables import escape_formula

_PACKAGES = ("numpy", "numba", "torch", "scipy", "faiss-cpu", "sparse-dot-topn", "implicit")


@dataclass(frozen=True, slots=True)
class Result:
    """One measurement.

    Attributes:
        op: such as topk_cosine.
        backend: mllmrec, or a peer's name.
        case: the input.
        metric: "seconds"; "extra MiB" (timing.py); or "times mllmrec", a peer's seconds over mllmrec's, taken
            round by round.
        median, p20, p80: over the rounds.
        rounds: their number.
        machine: processor, cores, memory, and the threads in use.
        versions: of the packages that did the work.
        commit: of the sources (with a mark if they are changed), or the version that is installed.
    """

    op: str
    backend: str
    case: str
    metric: str
    median: float
    p20: float
    p80: float
    rounds: int
    machine: str
    versions: str
    commit: str

    @property
    def key(self) -> tuple[str, ...]:
        """Return everything but the numbers."""
        return (self.op, self.backend, self.case, self.metric, self.machine, self.versions, self.commit)


COLUMNS = tuple(field.name for field in fields(Result))
_NUMBERS = {"median": float, "p20": float, "p80": float, "rounds": int}


@dataclass(frozen=True, slots=True)
class Stamp:
    """The machine, versions and commit of a measurement: the last three columns."""

    machine: str
    versions: str
    commit: str

    @staticmethod
    def now(threads: int) -> Stamp:
        """Return those of this process, when it measures with so many threads."""
        return Stamp(_machine(threads), _versions(), _commit())


def append(path: Path, results: Sequence[Result]) -> None:
    """Add lines to the CSV, with its header if it is new; all of them in one write.

    Raises:
        InputError: the file is another kind of CSV.
        StorageError: it cannot be written.
    """
    if not results:
        return
    new = not path.exists() or path.stat().st_size == 0
    if not new:
        _check_header(path)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if new:
        writer.writerow(COLUMNS)
    writer.writerows(_cells(result) for result in results)
    with storage.storage_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", newline="") as file:
            file.write(text.getvalue())
            file.flush()
            os.fsync(file.fileno())


def read(path: Path) -> list[Result]:
    """Read all lines, in the order they were written.

    Raises:
        InputError: no such file, other columns, or a line that is none of ours; the text names it.
    """
    _check_header(path)
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        return [_parse(row, f"{path}:{reader.line_num}") for row in reader]


def newest(results: Iterable[Result]) -> list[Result]:
    """Return of lines with one key the last."""
    return list({result.key: result for result in results}.values())


def as_json(results: Iterable[Result]) -> list[dict[str, str | float | int]]:
    """Return lines as JSON-like values."""
    return [asdict(result) for result in results]


def _cells(result: Result) -> list[str]:
    return [escape_formula(value) if isinstance(value, str) else f"{value:.6g}" for value in astuple(result)]


def _parse(row: dict[str, str], where: str) -> Result:
    try:
        return Result(**{name: _NUMBERS.get(name, str)(row[name]) for name in COLUMNS})
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"{where} is no line of results ({error}); delete it, or name another file") from error


def _check_header(path: Path) -> None:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            header = next(csv.reader(file), [])
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; mllmrec bench --csv and mllmrec scale write such files") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is not a CSV of results: {error}") from error
    if tuple(header) != COLUMNS:
        raise InputError(f"{path} is not a CSV of results: its columns are {', '.join(header)[:200] or 'none'}")


def _machine(threads: int) -> str:
    facts = describe_machine()
    used = f"{threads} thread{'s' if threads > 1 else ''}"
    return f"{facts['processor']}, {facts['cores']} cores, {facts['memory_gib']} GiB, {used}"


@cache
def _versions() -> str:
    versions = []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return "; ".join(versions)


@cache
def _commit() -> str:
    """Return the commit of these sources, with a digest of their changes if there are any."""
    here = Path(__file__)
    commit = _git("log", "-1", "--format=%h", "--", here.name)
    if not commit:
        return f"mllmrec {VERSION}"
    head = _git("rev-parse", "--short", "HEAD")
    changes = _git("diff", "HEAD", "--", ":/mllmrec", ":/kernels")
    return f"{head} changed {digests.hash_bytes(changes.encode())[:8]}" if changes else head


def _git(*words: str) -> str:
    """Return git's output in the folder of this file; empty if there is no git, or no repository."""
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""

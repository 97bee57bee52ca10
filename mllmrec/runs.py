"""A run folder: one sub-folder a stage, each whole or not there, each knowing what it was made from.

A stage is fresh when its fingerprint (its config, its version, and the content of what it reads) is the one
in its `stage.json` and its files still hash to what is written there. A stage that is fresh is not run
again; so a killed run, started again, goes on at the stage that the kill hit.
"""

from __future__ import annotations

import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol, TypedDict, TypeVar, get_args

from mllmrec.config import LEAKY as LEAKY
from mllmrec.config import Config, to_toml
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError, MismatchError, StorageError
from mllmrec.foundation import storage
from mllmrec.foundation.environment import describe_machine, versions
from mllmrec.foundation.memory import PeakMemory

SCHEMA_VERSION = 1
Stage = Literal["describe", "profile", "encode", "graph", "train", "evaluate", "recommend"]
STAGES: tuple[Stage, ...] = get_args(Stage)


class StageRecord(TypedDict):
    """What run.json says of a stage: what it took when it last ran, and what it made.

    `peak_mib` is the highest resident memory of the whole process meanwhile, None where the system does not tell;
    `counts` are numbers of the work done, such as answers found in the cache.
    """

    seconds: float
    peak_mib: float | None
    counts: dict[str, int]
    reused: bool
    summary: str


class Artefact(Protocol):
    """What a stage makes."""

    @property
    def summary(self) -> str:
        """One line for a person."""
        ...

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write it, given a function from file name to path; the names of the files written."""
        ...

    @staticmethod
    def load(path: Callable[[str], Path]) -> Any:
        """Read what save wrote."""
        ...


A = TypeVar("A", bound=Artefact)


class Run:
    """An open run folder; one process at a time."""

    def __init__(self, folder: Path, dataset: Dataset, config: Config, command: str) -> None:
        self.folder = folder
        self.leaky = config.leaky
        self.stages: dict[str, StageRecord] = {}
        self._config = config
        self._record: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "dataset": dataset.name,
            "dataset_folder": str(dataset.folder.resolve()),
            "train_digest": dataset.train_digest,
            "dataset_digest": storage.hash_value(dict(dataset.manifest)),
            "leaky": config.leaky,
            "command": command,
            "seed": config.seed,
            "config": config.model_dump(mode="json"),
            "versions": versions(),
            "machine": describe_machine(),
        }

    def file(self, stage: str, name: str) -> Path:
        """Where a stage keeps one of its files; a leaky run says so in every name."""
        return stage_file(self.folder, stage, name, leaky=self.leaky)

    def step(
        self,
        stage: str,
        inputs: Mapping[str, Any],
        kind: type[A],
        compute: Callable[[Path], A],
        *,
        again: Callable[[A], bool] = lambda _: False,
        counts: Callable[[], dict[str, int]] = dict,
    ) -> A:
        """Run one stage, or load it where it is fresh.

        Args:
            stage: its name, also its folder's.
            inputs: everything that shapes the result, JSON-like.
            kind: what the stage makes.
            compute: makes it; may keep unfinished work in the folder it is given, which a rerun after a kill
                finds again, and which is removed at the end or when the inputs have changed.
            again: whether a fresh result is to be made once more all the same.
            counts: asked, once the result is made, for numbers of the work to be noted beside its time.
        """

        def path(name: str) -> Path:
            return self.file(stage, name)

        fingerprint = storage.hash_value({"stage": stage, "leaky": self.leaky, "inputs": dict(inputs)})
        if self._is_fresh(stage, fingerprint):
            earlier: A = kind.load(path)
            if not again(earlier):
                untold: StageRecord = {"seconds": 0.0, "peak_mib": None, "counts": {}, "reused": True, "summary": ""}
                before = untold | self.stages.get(stage, untold)
                self._note(stage, {**before, "reused": True, "summary": earlier.summary})
                return earlier
        memory, started = PeakMemory(), time.perf_counter()
        scratch = self._scratch(stage, fingerprint)
        artefact = compute(scratch)
        self._keep(stage, fingerprint, inputs, artefact.save(path))
        shutil.rmtree(scratch, ignore_errors=True)
        self._note(
            stage,
            {
                "seconds": round(time.perf_counter() - started, 3),
                "peak_mib": memory.total_mib(),
                "counts": counts(),
                "reused": False,
                "summary": artefact.summary,
            },
        )
        return artefact

    def _keep(self, stage: str, fingerprint: str, inputs: Mapping[str, Any], names: list[str]) -> None:
        """Seal a stage's files; whatever its last run wrote under other names is removed."""
        before = self._outputs(stage)
        files = [self.file(stage, name) for name in names]
        outputs = {file.name: storage.hash_file(file) for file in files}
        storage.write_json(
            self.folder / stage / "stage.json",
            {
                "stage": stage,
                "fingerprint": fingerprint,
                "leaky": self.leaky,
                "inputs": dict(inputs),
                "outputs": outputs,
            },
        )
        for stale in before.keys() - outputs.keys():
            (self.folder / stage / stale).unlink(missing_ok=True)

    def _note(self, stage: str, record: StageRecord) -> None:
        self.stages[stage] = record
        storage.write_json(self.folder / "run.json", {**self._record, "stages": self.stages})

    def _scratch(self, stage: str, fingerprint: str) -> Path:
        """Where a stage keeps unfinished work; that of other inputs is thrown away."""
        mine = self.folder / stage / f".unfinished-{fingerprint[:16]}"
        for old in (self.folder / stage).glob(".unfinished-*"):
            if old != mine:
                shutil.rmtree(old, ignore_errors=True)
        return mine

    def digest(self, stage: str) -> str:
        """Content hash of a finished stage's files: what the next stage's fingerprint holds."""
        return storage.hash_value(storage.read_json(self.folder / stage / "stage.json")["outputs"])

    def _outputs(self, stage: str) -> dict[str, str]:
        try:
            outputs: dict[str, str] = storage.read_json(self.folder / stage / "stage.json")["outputs"]
        except (InputError, KeyError, TypeError):
            return {}
        return outputs

    def _is_fresh(self, stage: str, fingerprint: str) -> bool:
        outputs = self._outputs(stage)
        if not outputs:
            return False
        if storage.read_json(self.folder / stage / "stage.json").get("fingerprint") != fingerprint:
            return False
        return storage.are_unchanged(self.folder / stage, outputs)

    def begin(self) -> None:
        """Take over the timings of an earlier start, or refuse what is not the same run.

        Raises:
            MismatchError: the folder holds a run of another dataset or split, or of another honesty.
        """
        path = self.folder / "run.json"
        if path.exists():
            earlier = storage.read_json(path)
            for key, what in (("train_digest", "another dataset or split"), ("leaky", "another honesty")):
                if earlier.get(key) != self._record[key]:
                    raise MismatchError(
                        f"{self.folder} holds a run of {what} ({key} {earlier.get(key)!r}, now "
                        f"{self._record[key]!r}); choose another --out"
                    )
            self.stages = earlier.get("stages", {})
        storage.write_json(path, {**self._record, "stages": self.stages})
        storage.write_text(self.folder / "config.toml", to_toml(self._config))


def stage_file(folder: Path, stage: str, name: str, *, leaky: bool) -> Path:
    """RUN/stage/name, or RUN/stage/name with LEAKY in it."""
    return folder / stage / marked(name, leaky=leaky)


def marked(name: str, *, leaky: bool) -> str:
    """A file's name, with LEAKY before its ending where that is so."""
    if not leaky:
        return name
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{LEAKY}{dot}{suffix}"


@contextmanager
def open_run(folder: Path, dataset: Dataset, config: Config, command: str) -> Iterator[Run]:
    """Open (or make) a run folder and hold its lock.

    Raises:
        StorageError: the folder cannot be written to, or another process holds it.
        MismatchError: it holds a run of another dataset.
    """
    storage.make_folder(folder)
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise StorageError(f"{folder} is in use by another mllmrec process; wait for it to end") from error
        run = Run(folder, dataset, config, command)
        run.begin()
        yield run


def read_run(folder: Path) -> dict[str, Any]:
    """The run.json of a run folder.

    Raises:
        InputError: `folder` is no run.
    """
    if not (folder / "run.json").is_file():
        what = "a dataset" if (folder / "manifest.json").is_file() else "it has no run.json"
        raise InputError(f"{folder} is not a run: {what}; make one with mllmrec run DATASET --out RUN")
    record: dict[str, Any] = storage.read_json(folder / "run.json")
    if record.get("schema_version") != SCHEMA_VERSION:
        raise MismatchError(
            f"{folder} was written with run schema {record.get('schema_version')}, this version reads "
            f"{SCHEMA_VERSION}; run it again into a new folder"
        )
    return record

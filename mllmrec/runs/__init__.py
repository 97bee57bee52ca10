"""A run folder: one sub-folder per stage, each whole or not there, each knowing what it was made from.

A stage is fresh when its fingerprint is the one in its `stage.json` and its files still hash to what is written there.
The fingerprint covers the stage's config, its version, and the content of what it reads. A fresh stage is not computed
again, so a killed run goes on at the stage that the kill hit.

A new run folder is closed to other users (mode 0700, files 0600), for it holds profiles of customers. Every run,
whoever made it, is opened through `foundation.folders.open_foreign`.
"""

from __future__ import annotations

import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mllmrec.config import Config
from mllmrec.dataset import Dataset, load
from mllmrec.errors import InputError, MismatchError, StorageError, first_line
from mllmrec.evaluation.evaluate import Evaluation
from mllmrec.features.encode import Features
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import open_foreign, remove_temporaries
from mllmrec.foundation.memory import PeakMemory
from mllmrec.graph.item_graph import ItemGraph
from mllmrec.models.base import Recommender
from mllmrec.models.fitting import read_model
from mllmrec.models.registry import read_settings
from mllmrec.reason.describe import Descriptions
from mllmrec.reason.profile import Profiles
from mllmrec.recommend import Recommendations
from mllmrec.runs.checks import SHAPE_ERRORS, check_artefact
from mllmrec.runs.record import (
    STAGES,
    A,
    Reader,
    Seal,
    Stage,
    StageRecord,
    begin_record,
    find_run_problems,
    marked,
    read_record,
    read_seal,
    seal_path,
)


class Run:
    """A run folder, read by anybody, written by one process at a time (see `open_run`).

    Args:
        folder: the run folder.
        record: the content of run.json if the caller is about to write it; by default it is read.

    Raises:
        InputError: `folder` is no run, or holds what no run holds.
        MismatchError: another version of mllmrec wrote it.
    """

    def __init__(self, folder: Path, record: dict[str, Any] | None = None) -> None:
        self.folder, self.record = folder, record or read_record(folder)

    @property
    def leaky(self) -> bool:
        """Tell whether the profiles saw held-out interactions."""
        return bool(self.record["leaky"])

    @property
    def earlier(self) -> str:
        """Return the folder of the run that this one goes on from; empty if there is none."""
        return str(self.record.get("earlier") or "")

    @property
    def stages(self) -> dict[str, StageRecord]:
        """Return what run.json says of each stage."""
        stages: dict[str, StageRecord] = self.record["stages"]
        return stages

    @property
    def go_on(self) -> str:
        """Return the command that finishes the run."""
        words = ["mllmrec", "run", self.record["dataset_folder"], "--out", str(self.folder)]
        return shlex.join([*words, "--config", str(self.folder / "config.toml")])

    @property
    def _remedy(self) -> str:
        """Return the command that finishes the run, and where its settings would send a key."""
        server = self.record["config"].get("server") or {}
        key, url = server.get("api_key_env"), server.get("base_url")
        return f"{self.go_on} (read that config first: it sends ${key} to {url})" if key else self.go_on

    @property
    def newest(self) -> int:
        """Return the number of a user's newest items that a profile was made from."""
        return int(self.record["config"]["profile"]["max_items"])

    def has(self, stage: str) -> bool:
        """Tell whether a stage is done."""
        return seal_path(self.folder, stage).exists()

    def file(self, stage: str, name: str) -> Path:
        """Return where a stage keeps one of its files; a leaky run says so in every name."""
        return self.folder / stage / marked(name, leaky=self.leaky)

    def digest(self, stage: str) -> str:
        """Return the content hash of a finished stage's files, which the next stage's fingerprint holds."""
        return digests.hash_value(read_seal(self.folder, stage).outputs)

    def load(self, stage: Stage, read: Reader[A]) -> A:
        """Read the artefact of a finished stage.

        Raises:
            InputError: the stage is not done, or its files are not those that it wrote.
        MismatchError: they do not belong to the run's dataset.
        """
        if not self.has(stage):
            raise InputError(f"{self.folder} has not finished {stage!r}; go on with {self._remedy}")
        if not digests.are_unchanged(self.folder / stage, read_seal(self.folder, stage).outputs):
            raise InputError(f"{self.folder / stage} was changed after it was written; redo it with {self._remedy}")
        return self._load(stage, read)

    def _load(self, stage: Stage, read: Reader[A]) -> A:
        try:
            artefact = read(lambda name: self.file(stage, name))
        except SHAPE_ERRORS as error:
            raise InputError(
                f"files in {self.folder / stage} are not in the format that {stage} writes "
                f"({type(error).__name__}: {first_line(error)}); delete the folder, then {self._remedy}"
            ) from error
        check_artefact(stage, artefact, self.dataset)
        return artefact

    @cached_property
    def dataset(self) -> Dataset:
        """Return the dataset that the run was made from.

        Raises:
            InputError: it lies there no more.
            MismatchError: another dataset or split lies there now.
        """
        folder = Path(self.record["dataset_folder"])
        moved = f"if it was moved: mllmrec run PLACE --out {shlex.quote(str(self.folder))}, with its place now"
        if not folder.is_dir():
            raise InputError(f"{self.folder} was made from the dataset {folder}, which is not there; {moved}")
        dataset = load(folder)
        if dataset.train_digest != self.record["train_digest"]:
            raise MismatchError(f"{folder} is not the dataset and split that {self.folder} was made from; {moved}")
        return dataset

    @cached_property
    def descriptions(self) -> Descriptions:
        """Return the descriptions of the items' pictures."""
        return self.load("describe", Descriptions.load)

    @cached_property
    def profiles(self) -> Profiles:
        """Return the users' profiles."""
        return self.load("profile", Profiles.load)

    @cached_property
    def features(self) -> Features:
        """Return the vectors of items and users."""
        return self.load("encode", Features.load)

    @cached_property
    def graph(self) -> ItemGraph:
        """Return the refined item graph."""
        return self.load("graph", ItemGraph.load)

    @cached_property
    def fitted(self) -> Recommender:
        """Return the fitted model."""
        return self.load("train", partial(read_model, read_settings(self.record["config"]["model"]))).model

    @cached_property
    def evaluation(self) -> Evaluation:
        """Return the model's evaluation beside the baselines."""
        return self.load("evaluate", Evaluation.load)

    @cached_property
    def recommendations(self) -> Recommendations:
        """Return what users are recommended."""
        return self.load("recommend", Recommendations.load)

    def step(
        self,
        stage: Stage,
        inputs: Mapping[str, Any],
        read: Reader[A],
        compute: Callable[[Path], A],
        *,
        again: Callable[[A], bool] = lambda _: False,
        counts: Callable[[], dict[str, int]] = dict,
    ) -> A:
        """Run one stage, or load it if it is fresh.

        Args:
            stage: its name, also its folder's.
            inputs: everything that shapes the result, JSON-like.
            read: reads the result of an earlier start.
            compute: returns the result. It may keep unfinished work in the folder it is given: a rerun after a kill
                finds it again. The folder is removed at the end, or when the inputs have changed.
            again: tells of a fresh result whether to compute it once more all the same.
            counts: returns numbers of the work done, noted beside its time; called once the result is there.
        """
        fingerprint = digests.hash_value({"stage": stage, "leaky": self.leaky, "inputs": dict(inputs)})
        if self._is_fresh(stage, fingerprint):
            earlier = self._load(stage, read)
            if not again(earlier):
                unknown: StageRecord = {"seconds": 0.0, "peak_mib": None, "counts": {}, "reused": True, "summary": ""}
                before = unknown | self.stages.get(stage, unknown)
                self._note(stage, {**before, "reused": True, "summary": earlier.summary})
                return earlier
        memory, started = PeakMemory(), time.perf_counter()
        scratch = self._scratch(stage, fingerprint)
        artefact = compute(scratch)
        self._keep(stage, fingerprint, inputs, artefact.save(lambda name: self.file(stage, name)))
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

    def _keep(self, stage: Stage, fingerprint: str, inputs: Mapping[str, Any], names: list[str]) -> None:
        """Seal a stage's files; whatever its last run wrote under other names is removed."""
        before = self._seal(stage)
        files = [self.file(stage, name) for name in names]
        outputs = dict(zip((file.name for file in files), digests.hash_files(files), strict=True))
        seal = Seal(stage=stage, fingerprint=fingerprint, leaky=self.leaky, inputs=dict(inputs), outputs=outputs)
        storage.write_json(seal_path(self.folder, stage), seal.model_dump())
        if before:
            with storage.open_folder(self.folder / stage) as folder:
                for stale in before.outputs.keys() - outputs.keys():  # only bare names: read_seal refuses others
                    storage.remove(stale, folder)

    def _note(self, stage: Stage, record: StageRecord) -> None:
        self.stages[stage] = record
        storage.write_json(self.folder / "run.json", self.record)

    def _scratch(self, stage: str, fingerprint: str) -> Path:
        """Return where a stage keeps unfinished work; that of other inputs is removed."""
        scratch = self.folder / stage / f".unfinished-{fingerprint[:16]}"
        for old in (self.folder / stage).glob(".unfinished-*"):
            if old != scratch:
                shutil.rmtree(old, ignore_errors=True)
        return scratch

    def _seal(self, stage: str) -> Seal | None:
        """Return a stage's seal; a damaged one counts as none, and the stage is computed again."""
        try:
            return read_seal(self.folder, stage)
        except InputError:
            return None

    def _is_fresh(self, stage: str, fingerprint: str) -> bool:
        seal = self._seal(stage)
        if seal is None or not seal.outputs or seal.fingerprint != fingerprint:
            return False
        return digests.are_unchanged(self.folder / stage, seal.outputs)


@contextmanager
def open_run(
    folder: Path, dataset: Dataset, config: Config, command: str, earlier: Path | str | None = None
) -> Iterator[Run]:
    """Open or create a run folder to write, and hold its lock.

    Args:
        folder, dataset, config, command, earlier: see begin_record; the folder is made if it is not there.

    Raises:
        InputError: the folder holds what no run holds.
        StorageError: the folder cannot be written to, or another process holds it.
        MismatchError: it holds a run of another dataset or split, or a LEAKY run where this one is not.
    """
    storage.make_folder(folder, private=True)
    open_foreign(folder, find_run_problems)
    with ExitStack() as stack:
        try:
            stack.enter_context(storage.open_lock(folder / ".lock", wait=False))
        except BlockingIOError as error:
            raise StorageError(f"{folder} is in use by another mllmrec process; wait for it to end") from error
        for place in (folder, *(folder / stage for stage in STAGES if (folder / stage).is_dir())):
            remove_temporaries(place)
        run = Run(folder, begin_record(folder, dataset, config, command, earlier))
        run.__dict__["dataset"] = dataset
        yield run

"""Define run.json and stage.json, and refuse a run folder whose files are not as `mllmrec run` writes them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, TypedDict, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from mllmrec.config import LEAKY, Config, to_toml
from mllmrec.dataset import Dataset
from mllmrec.errors import InputError, MismatchError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.environment import describe_machine, versions
from mllmrec.foundation.folders import open_foreign

SCHEMA_VERSION = 1
Stage = Literal["describe", "profile", "encode", "graph", "train", "evaluate", "recommend"]
STAGES: tuple[Stage, ...] = get_args(Stage)
# The attribute of Run that reads the artefact of each stage.
_ARTEFACTS = ("descriptions", "profiles", "features", "graph", "fitted", "evaluation", "recommendations")
READERS: Mapping[Stage, str] = dict(zip(STAGES, _ARTEFACTS, strict=True))
_SEAL = "stage.json"
_OUTPUT = re.compile(r"[a-z0-9_]+(\.LEAKY)?\.(parquet|npy|json|jsonl|safetensors|csv|svg)")
_SHA = re.compile(r"[0-9a-f]{64}")
_STRICT = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)
_Scalar = str | int | float | bool | None
# Settings that readers of a run look up; what else is there may come from another version.
_READ = {"model": "kind", "profile": "max_items", "graph": "threshold", "evaluate": "mask_validation"}


class StageRecord(TypedDict):
    """One stage in run.json: the cost of its last computation, and its result in a line.

    `peak_mib` is the highest resident memory of the process during the stage, or None. `counts` are of the work done.
    """

    seconds: float
    peak_mib: float | None
    counts: dict[str, int]
    reused: bool
    summary: str


class _StageShape(BaseModel):
    model_config = _STRICT
    seconds: Annotated[float, Field(ge=0)]
    peak_mib: Annotated[float, Field(ge=0)] | None = None
    counts: dict[str, Annotated[int, Field(ge=0)]] = {}
    reused: bool
    summary: str


def _having(*names: str) -> AfterValidator:
    def check(found: Mapping[str, Any]) -> Mapping[str, Any]:
        if missing := [name for name in names if name not in found]:
            raise ValueError(f"there is no {', '.join(missing)}")
        return found

    return AfterValidator(check)


class _RecordShape(BaseModel):
    """run.json: what a run was made from, with which settings and versions, and how far it is."""

    model_config = _STRICT
    schema_version: int
    dataset: str
    dataset_folder: str
    train_digest: str
    dataset_digest: str
    leaky: bool
    command: str
    seed: int
    config: dict[str, Any]
    versions: Annotated[dict[str, str], _having("mllmrec", "python", "torch")]
    machine: Annotated[dict[str, str | int], _having("system", "processor", "cores")]
    stages: dict[Stage, _StageShape]
    earlier: str = ""


class Seal(BaseModel):
    """stage.json: the inputs of a stage, their fingerprint, and the SHA-256 of each file that it wrote."""

    model_config = _STRICT
    stage: Stage
    fingerprint: str
    leaky: bool
    inputs: dict[str, Any]
    outputs: dict[str, str]


def seal_path(folder: Path, stage: str) -> Path:
    """Return the path of a stage's seal."""
    return folder / stage / _SEAL


def marked(name: str, *, leaky: bool) -> str:
    """Return a file's name, with LEAKY before its ending if the file was made with held-out interactions."""
    if not leaky:
        return name
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}.{LEAKY}{dot}{suffix}"


def check_record(value: Any) -> dict[str, Any]:
    """Return the content of run.json, or refuse it.

    Raises:
        InputError: it has another format; the line names the first key that is wrong.
    """
    try:
        _RecordShape.model_validate(value)
    except ValidationError as error:
        raise InputError(f"run.json is not in the format of a run: {_first(error)}") from error
    if problem := next(_config_problems(value["config"]), None):
        raise InputError(f"run.json is not in the format of a run: config.{problem}")
    record: dict[str, Any] = value
    return record


def read_seal(folder: Path, stage: str) -> Seal:
    """Read a stage's seal.

    Raises:
        InputError: it is missing, is not JSON, has another format, or names files that no stage writes.
    """
    value = storage.read_json(seal_path(folder, stage))
    try:
        seal = Seal.model_validate(value)
    except ValidationError as error:
        raise InputError(f"{stage}/{_SEAL} is not in the format of a stage: {_first(error)}") from error
    if seal.stage != stage:
        raise InputError(f"{stage}/{_SEAL} is the seal of stage {seal.stage!r}")
    for key in ("config", "model"):
        if not isinstance(seal.inputs.get(key, {}), dict):
            raise InputError(f"{stage}/{_SEAL} is not in the format of a stage: inputs.{key} is no table of settings")
    if problem := next(_output_problems(seal.outputs), None):
        raise InputError(f"{stage}/{_SEAL} {problem}")
    return seal


def find_run_problems(folder: Path) -> Iterator[str]:
    """Yield one line for each part of run.json and the seals that is not as `mllmrec run` writes it.

    A seal that is cut or is no JSON is no problem: its stage counts as not done.
    """
    if (folder / "run.json").exists():
        try:
            check_record(storage.read_json(folder / "run.json"))
        except InputError as error:
            yield str(error)
    for stage in STAGES:
        try:
            value = storage.read_json(seal_path(folder, stage))
        except InputError:
            continue
        outputs = value.get("outputs") if isinstance(value, dict) else None
        if isinstance(outputs, dict):
            yield from (f"{stage}/{_SEAL} {problem}" for problem in _output_problems(outputs))


def read_record(folder: Path) -> dict[str, Any]:
    """Read the run.json of a run folder, after everything in the folder was checked.

    Raises:
        InputError: `folder` is no run, or holds what no run holds.
        MismatchError: another version of mllmrec wrote it.
    """
    if not (folder / "run.json").is_file():
        content = "a dataset" if (folder / "manifest.json").is_file() else "it has no run.json"
        raise InputError(f"{folder} is not a run: {content}; make one with mllmrec run DATASET --out RUN")
    open_foreign(folder, _find_problems_of_version)  # before run.json is read: it may be a link
    return check_record(storage.read_json(folder / "run.json"))


def _find_problems_of_version(folder: Path) -> Iterator[str]:
    """Yield as `find_run_problems` does, if the run has this version's schema.

    Raises:
        MismatchError: it has another.
    """
    value = storage.read_json(folder / "run.json")
    found = value.get("schema_version") if isinstance(value, dict) else None
    if isinstance(found, int) and found != SCHEMA_VERSION:
        raise MismatchError(
            f"{folder} was written with run schema {found}, this version reads {SCHEMA_VERSION}; "
            "run it again into a new folder"
        )
    yield from find_run_problems(folder)


def begin_record(
    folder: Path, dataset: Dataset, config: Config, command: str, earlier_run: Path | str | None = None
) -> dict[str, Any]:
    """Write run.json and config.toml; what an earlier start of the same run says of its stages is kept.

    Args:
        folder: the run folder, locked by the caller.
        dataset: the dataset that the run is made from.
        config: all settings.
        command: the command line, to be written down.
        earlier_run: folder of the run that this one goes on from; None: the one that the folder names, if any.

    Raises:
        MismatchError: the folder holds a run of another dataset or split, or a LEAKY run where this one is not.
    """
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "dataset": dataset.name,
        "dataset_folder": str(dataset.folder.resolve()),
        "train_digest": dataset.train_digest,
        "dataset_digest": digests.hash_value(dict(dataset.manifest)),
        "leaky": config.leaky,
        "command": command,
        "seed": config.seed,
        "config": config.model_dump(mode="json"),
        "versions": versions(),
        "machine": describe_machine(),
        "stages": {},
    }
    path = folder / "run.json"
    if path.exists():
        earlier = read_record(folder)
        if earlier["train_digest"] != record["train_digest"]:
            raise MismatchError(
                f"{folder} holds a run of another dataset or split (train_digest {earlier['train_digest']!r}, now "
                f"{record['train_digest']!r}); choose another --out"
            )
        if earlier["leaky"] != record["leaky"]:
            kinds = ("a LEAKY run; this one is not", "a run that is not LEAKY; this one is")
            raise MismatchError(f"{folder} holds {kinds[record['leaky']]}; choose another --out")
        record["stages"] = earlier["stages"]
        if earlier_run is None:
            earlier_run = earlier.get("earlier") or None
    if earlier_run is not None:
        record["earlier"] = str(Path(earlier_run).resolve())
    storage.write_json(path, record)
    storage.write_text(folder / "config.toml", to_toml(config))
    return record


def _output_problems(outputs: Mapping[str, Any]) -> Iterator[str]:
    for name, sha in outputs.items():
        if not _OUTPUT.fullmatch(name) or name == _SEAL:
            yield f"names {name[:200]!r} as an output, which no stage writes"
        elif not isinstance(sha, str) or not _SHA.fullmatch(sha):
            yield f"gives {name} a hash that is no SHA-256"


def _config_problems(config: Mapping[str, Any]) -> Iterator[str]:
    defaults = Config.model_construct().model_dump(mode="json")
    for section, key in _READ.items():
        if not isinstance(config.get(section), dict) or key not in config[section]:
            yield f"{section}.{key} is missing"
        elif key == "kind" and not isinstance(config[section][key], str):
            yield f"{section}.{key} has the wrong type"
    for section, value in config.items():
        default = defaults.get(section)
        if isinstance(value, dict):
            known = default if isinstance(default, dict) else {}
            yield from (f"{section}.{key} has the wrong type" for key in value if not _fits(value[key], known.get(key)))
        elif isinstance(default, dict) or not _fits(value, default):
            yield f"{section} has the wrong type"


def _fits(value: Any, default: Any) -> bool:
    """Tell whether a setting has the type of its default; a setting without a default may be any scalar or list."""
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, int | float):
        return isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, str | list):
        return isinstance(value, str | list | None)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return all(isinstance(one, _Scalar) for one in inner)


def _first(error: ValidationError) -> str:
    detail = error.errors(include_url=False, include_input=False)[0]
    return f"{'.'.join(str(part)[:80] for part in detail['loc']) or 'the whole'}: {detail['msg']}"


class Artefact(Protocol):
    """The result of a stage."""

    @property
    def summary(self) -> str:
        """Return one line for a person."""
        ...

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write it, given a function from file name to path; return the names of the files written."""
        ...


A = TypeVar("A", bound=Artefact)
Reader = Callable[[Callable[[str], Path]], A]  # given a function from file name to path

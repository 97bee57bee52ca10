"""The shape of run.json and stage.json, and what is refused of a run folder that somebody else may have made."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from mllmrec.config import Config
from mllmrec.errors import InputError
from mllmrec.foundation import storage

SCHEMA_VERSION = 1
Stage = Literal["describe", "profile", "encode", "graph", "train", "evaluate", "recommend"]
STAGES: tuple[Stage, ...] = get_args(Stage)
_SEAL = "stage.json"
_OUTPUT = re.compile(r"[a-z0-9_]+(\.LEAKY)?\.(parquet|npy|json|jsonl|safetensors|csv|svg)")
_SHA = re.compile(r"[0-9a-f]{64}")
_STRICT = ConfigDict(strict=True)
_Scalar = str | int | float | bool | None
# Settings that readers of a run look up; what else is there may come from another version.
_READ = {"model": "kind", "profile": "max_items", "graph": "threshold", "evaluate": "mask_validation"}


class StageRecord(TypedDict):
    """One stage in run.json: the cost of its last computation, and its result in a line.

    `peak_mib` is the highest resident memory of the process during the stage, or None where the system gives no figure.
    `counts` hold numbers of the work done, such as answers found in the cache.
    """

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    seconds: float
    peak_mib: NotRequired[float | None]
    counts: NotRequired[dict[str, int]]
    reused: bool
    summary: str


class RunRecord(TypedDict):
    """run.json: what a run was made from, with which settings and versions, and how far it is."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    schema_version: int
    dataset: str
    dataset_folder: str
    train_digest: str
    dataset_digest: str
    leaky: bool
    command: str
    seed: int
    config: dict[str, Any]
    versions: dict[str, str]
    machine: dict[str, str | int]
    stages: dict[Stage, StageRecord]


class Seal(TypedDict):
    """stage.json: the inputs of a stage, their fingerprint, and the SHA-256 of each file that it wrote."""

    __pydantic_config__ = _STRICT  # type: ignore[misc]
    stage: Stage
    fingerprint: str
    leaky: bool
    inputs: dict[str, Any]
    outputs: dict[str, str]


_RECORD, _STAGE_SEAL = TypeAdapter(RunRecord), TypeAdapter(Seal)


def seal_path(folder: Path, stage: str) -> Path:
    """Return the path of a stage's seal."""
    return folder / stage / _SEAL


def check_record(value: Any) -> RunRecord:
    """Return the content of run.json, or refuse it.

    Raises:
        InputError: it has another shape; the line names the first key that is wrong.
    """
    try:
        record = _RECORD.validate_python(value)
    except ValidationError as error:
        raise InputError(f"run.json has another shape: {_first(error)}") from error
    if problem := next(_config_problems(record["config"]), None):
        raise InputError(f"run.json has another shape: config.{problem}")
    return record


def read_seal(folder: Path, stage: str) -> Seal:
    """Read a stage's seal.

    Raises:
        InputError: it is missing, is not JSON, has another shape, or names files that no stage writes.
    """
    value = storage.read_json(seal_path(folder, stage))
    try:
        seal = _STAGE_SEAL.validate_python(value)
    except ValidationError as error:
        raise InputError(f"{stage}/{_SEAL} has another shape: {_first(error)}") from error
    if seal["stage"] != stage:
        raise InputError(f"{stage}/{_SEAL} is the seal of stage {seal['stage']!r}")
    for problem in _output_problems(seal["outputs"]):
        raise InputError(f"{stage}/{_SEAL} {problem}")
    return seal


def find_run_problems(folder: Path) -> Iterator[str]:
    """Yield one line for each part of run.json and the seals that is not as `mllmrec run` writes it.

    A seal that is cut or is no JSON is no problem: its stage counts as not done.
    """
    path = folder / "run.json"
    if path.exists():
        try:
            check_record(storage.read_json(path))
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

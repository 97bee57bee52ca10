"""Convert models for OpenVINO or ONNX Runtime, or from GGUF, and keep the results in a cache.

A conversion depends on the model, on the backend and on the versions that made it; all three are in its key. It is
written beside its place and renamed when it is whole, so a kill leaves no half of one.
"""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from mllmrec.errors import EngineError, first_line
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import atomic_folder, user_cache_folder

Backend = Literal["openvino", "onnx"]
Converter = Literal["openvino", "onnx", "gguf"]
_COMPANION: Mapping[Converter, str] = {"openvino": "optimum-intel", "onnx": "optimum-onnx", "gguf": "gguf"}
_RUNTIME: Mapping[Converter, str] = {"openvino": "openvino", "onnx": "onnxruntime", "gguf": "transformers"}
_MODULE: Mapping[Converter, str] = {
    "openvino": "optimum.intel.openvino",
    "onnx": "optimum.onnxruntime",
    "gguf": "gguf",
}
_LOGGERS = ("optimum", "transformers", "sentence_transformers", "nncf", "openvino", "onnxruntime")


def missing(backend: Converter) -> str:
    """Return why models cannot be converted for a backend here, with the fix; empty if they can.

    Nothing heavy is imported before versions are known to fit.
    """
    fix = f"pip install 'mllmrec[{backend}]'"
    for package in (_COMPANION[backend], _RUNTIME[backend]):
        if not _version(package):
            return f"needs {package}, which is not installed; {fix}"
    if clash := _clash(_COMPANION[backend]):
        return f"{clash}; {fix}, in an environment of its own if others need newer versions"
    try:
        importlib.import_module(_MODULE[backend])
    except Exception as error:  # a build for another torch or transformers raises what it likes
        return f"needs {_COMPANION[backend]}, which does not import ({first_line(error)}); {fix}"
    return ""


def require(backend: Backend, setting: str) -> None:
    """Refuse a backend that cannot run here.

    Args:
        backend: the runtime that the config names.
        setting: the config key that names it.

    Raises:
        EngineError: a package is missing, broken, or of a version that does not fit the others.
    """
    if why := missing(backend):
        raise EngineError(f'{setting} = "{backend}": {why}')


def converted(backend: Converter, model: Mapping[str, Any], convert: Callable[[Path], None]) -> Path:
    """Return the folder of a converted model; convert it if the cache lacks it.

    Args:
        backend: the runtime.
        model: the key of this conversion, beside backend and versions; JSON-like.
        convert: writes the converted model into the folder that it is given.
    """
    key = {"backend": backend, "versions": _versions(backend), **model}
    folder = cache_folder() / digests.hash_value(key)[:32]
    if folder.is_dir():
        return folder
    storage.make_folder(folder.parent, private=True)
    with storage.open_lock(folder.parent / f".{folder.name}.lock"):  # a second process waits, and then finds it done
        if not folder.is_dir():
            with atomic_folder(folder) as temporary:
                convert(temporary)
                storage.write_json(temporary / "converted.json", key)
            gc.collect()  # the converter's own copy of the weights, in memory and in a temporary folder
    return folder


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the converters' own logs, except for errors."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def cache_folder() -> Path:
    """Return the folder of converted models, one for all runs of a user."""
    return user_cache_folder() / "converted"


def _versions(backend: Converter) -> dict[str, str]:
    packages = ("torch", "transformers", "optimum", _COMPANION[backend], _RUNTIME[backend])
    return {package: _version(package) for package in packages}


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _clash(package: str) -> str:
    """Return the installed version that a package's own requirements exclude; empty if there is none."""
    from packaging.requirements import Requirement

    for line in importlib.metadata.requires(package) or ():
        requirement = Requirement(line)
        there = _version(requirement.name)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if there and applies and not requirement.specifier.contains(there, prereleases=True):
            return (
                f"{package} {_version(package)} wants {requirement.name} {requirement.specifier}, "
                f"and {requirement.name} {there} is installed"
            )
    return ""

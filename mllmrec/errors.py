"""Every error that mllmrec raises on purpose.

    MllmrecError
    ├── InputError      a file, a row or an argument has another form than expected
    │   └── NotFittedError  a model is used before fit()
    ├── ConfigError     a setting is unknown or out of range
    ├── LeakError       held-out interactions would reach training, a profile, a graph or a statistic
    ├── MismatchError   two artefacts do not belong together
    ├── StorageError    a file cannot be read or written
    ├── EngineError     a generation or encoding engine cannot start
    └── TrainingError   training cannot go on

The text of each is one line for a person: what, where, what was wanted, and the fix. The command line
prints it and exits with 1; anything else that escapes is a bug.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable


class MllmrecError(Exception):
    """Root of the tree."""


class InputError(MllmrecError):
    """A file, a row or an argument has another form than expected."""


class NotFittedError(InputError):
    """A model is used before fit()."""

    def __init__(self) -> None:
        super().__init__("this model is not fitted; call fit() first")


class ConfigError(MllmrecError):
    """A setting is unknown or out of range."""


class LeakError(MllmrecError):
    """Held-out interactions would reach training, a profile, a graph or a statistic."""


class MismatchError(MllmrecError):
    """Two artefacts do not belong together."""


class StorageError(MllmrecError):
    """A file cannot be read or written."""


class EngineError(MllmrecError):
    """A generation or encoding engine cannot start."""


class TrainingError(MllmrecError):
    """Training cannot go on."""


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return ' (did you mean X?)' for the known name nearest to `name`, or nothing."""
    close = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""


def first_line(error: BaseException) -> str:
    """Return an error's text in one line of bounded length."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def require_extra(module: str, extra: str, purpose: str) -> None:
    """Refuse to go on without a package of an extra.

    Args:
        module: top-level name of the package as it is imported.
        extra: the extra of mllmrec that brings it.
        purpose: what needs it, as the subject of the error.

    Raises:
        ConfigError: the package is not installed.
    """
    if importlib.util.find_spec(module) is None:
        raise ConfigError(f"{purpose} needs {module}, which is not installed; pip install 'mllmrec[{extra}]'")

"""Packages that only some verbs need: each is part of an extra, and its absence is one line."""

from __future__ import annotations

import importlib.util

from mllmrec.errors import ConfigError


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

"""Read settings from TOML files, `stage.key=value` assignments and environment variables."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from mllmrec.errors import ConfigError, near_miss


def read_toml(file: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error


def assign(values: dict[str, Any], assignment: str, *, texts: Collection[str], lists: Collection[str]) -> None:
    """Set one `stage.key=value` in nested settings.

    The value is read as TOML, or taken as text if it is no TOML. If the key holds text, 007 and 1e5 stay text. A list
    may be written without brackets: u001,u002.

    Args:
        values: nested settings; changed.
        assignment: as in --set.
        texts: keys that hold text, or a list of texts.
        lists: keys that hold a list.

    Raises:
        ConfigError: the assignment cannot be read.
    """
    key, equals, text = assignment.partition("=")
    key = key.strip()
    *stages, name = key.split(".")
    if not equals or not name:
        raise ConfigError(f"cannot read --set {assignment!r}; write it as stage.key=value")
    for stage in stages:
        values = values.setdefault(stage, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {stage!r} is a value, not a stage")
    value = _parse(text)
    if key in lists and not isinstance(value, list):
        parts = [value] if isinstance(value, str) and value != text else text.split(",")
        value = [part if key in texts else _parse(part) for part in map(str.strip, parts) if part]
    elif key in lists and key in texts:
        value = [str(part) if type(part) is int else part for part in value]
    elif key in texts and not isinstance(value, str):
        value = text.strip()
    values[name] = value


def _parse(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return `values` with `changes` on top, stage by stage."""
    merged = dict(values)
    for key, value in changes.items():
        before = merged.get(key)
        merged[key] = merge(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def check_variables(variables: Iterable[str], prefix: str, known: Collection[str]) -> None:
    """Refuse environment variables that look like settings but are none.

    Args:
        variables: names in the environment.
        prefix: of the settings, such as MLLMREC_.
        known: names after the prefix, in capitals.

    Raises:
        ConfigError: a name is not known; the text says the nearest one that is.
    """
    for variable in sorted(variables):
        name = variable.upper().removeprefix(prefix)
        if not variable.upper().startswith(prefix) or name in known:
            continue
        hint = near_miss(name.lower(), [other.lower() for other in known])
        if hint or "__" in name:
            named = hint.replace(" (did you mean '", "").removesuffix("'?)").upper()
            fix = f"did you mean {prefix}{named}?" if hint else f"settings are named {prefix}STAGE__KEY; unset it"
            raise ConfigError(f"the environment variable {variable} is no setting; {fix}")


def toml_lines(values: Mapping[str, Any]) -> list[str]:
    """Return settings as lines of TOML, those without a stage first."""
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    for stage, settings in values.items():
        if isinstance(settings, dict):
            lines += ["", f"[{stage}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    return lines

"""The settings of runs: what differs from the defaults, and between runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mllmrec.config import default_values


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the config: its value, the default, and whether they differ."""

    key: str
    value: str
    default: str

    @property
    def changed(self) -> bool:
        """Whether somebody set it."""
        return self.value != self.default

    @property
    def pair(self) -> tuple[str, str]:
        """Key and value."""
        return self.key, self.value


@dataclass(frozen=True, slots=True)
class Difference:
    """A key that not all runs agree on: its value in each, and whether that differs from the first run's."""

    key: str
    values: tuple[tuple[str, bool], ...]


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Every key of a run's config."""
    defaults = flat(default_values(config["model"]["kind"]))
    return [Setting(key, value, defaults.get(key, "")) for key, value in flat(config).items()]


def differences(records: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Where runs differ: settings, dataset, and what they were made with."""
    told = [
        {"dataset": record["dataset"], "split and catalogue": record["dataset_digest"][:12]}
        | flat(record["config"])
        | flat({"version": record["versions"], "machine": record["machine"]})
        for record in records
    ]
    keys = dict.fromkeys(key for one in told for key in one)
    rows = {key: [one.get(key, "absent") for one in told] for key in keys}
    return [
        Difference(key, tuple((value, value != values[0]) for value in values))
        for key, values in rows.items()
        if len(set(values)) > 1
    ]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as stage.key -> value, written as in a config file."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = (
                value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
            )
    return found

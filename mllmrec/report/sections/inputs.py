"""The inputs of a run: the dataset with its split and activity, and the settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from mllmrec.config import default_values
from mllmrec.dataset import Dataset, Statistics, statistics
from mllmrec.report.figures import Plot, histogram

_BINS = 24


@dataclass(frozen=True, slots=True)
class DataSection:
    """A dataset in numbers.

    Attributes:
        numbers: its statistics.
        split: (name, interactions, share) of each split.
        plots: caption and plot.
        warnings: of `prepare`.
    """

    numbers: Statistics
    split: Sequence[tuple[str, int, float]]
    plots: Sequence[Plot]
    warnings: Sequence[str]


def data_section(dataset: Dataset) -> DataSection:
    """Count a dataset; held-out interactions are counted apart."""
    numbers = statistics(dataset)
    names = ("training", "validation", "test")
    split = [(name, n, n / max(1, numbers.interactions)) for name, n in zip(names, numbers.splits, strict=True)]
    users, items = (
        np.bincount(dataset.interactions[side].to_numpy(), minlength=n)
        for side, n in (("user", dataset.n_users), ("item", dataset.n_items))
    )
    plots = [
        ("Activity of users, all splits together.", _activity(users, "user")),
        ("Popularity of items, all splits together.", _activity(items, "item")),
    ]
    return DataSection(numbers, split, plots, list(dataset.manifest["warnings"]))


def _activity(counts: NDArray[np.int64], side: str) -> Markup:
    """Draw a histogram over bins that grow, for activity has a long tail."""
    most = max(2, int(counts.max(initial=0)))
    edges = np.unique(np.geomspace(1, most + 1, _BINS).round()) - 0.5
    return histogram(
        {"": counts},
        xlabel=f"interactions of {'a user' if side == 'user' else 'an item'}",
        ylabel=f"{side}s",
        name=f"{side} activity",
        bins=list(edges),
        log=True,
    )


@dataclass(frozen=True, slots=True)
class Setting:
    """One key of the config: its value and the default."""

    key: str
    value: str
    default: str

    @property
    def changed(self) -> bool:
        """Return whether the value is not the default."""
        return self.value != self.default

    @property
    def pair(self) -> tuple[str, str]:
        """Return key and value."""
        return self.key, self.value


@dataclass(frozen=True, slots=True)
class SettingDifference:
    """A key whose value differs between runs: its value in each run, and if that is not the first run's."""

    key: str
    values: tuple[tuple[str, bool], ...]


def settings(config: Mapping[str, Any]) -> list[Setting]:
    """Return every key of a run's config."""
    defaults = flat(default_values(config["model"]["kind"]))
    return [Setting(key, value, defaults.get(key, "")) for key, value in flat(config).items()]


def setting_differences(records: Sequence[Mapping[str, Any]]) -> list[SettingDifference]:
    """Return the differences of runs: settings, dataset, versions and machine."""
    facts = [
        {"dataset": record["dataset"], "split and catalogue": record["dataset_digest"][:12]}
        | flat(record["config"])
        | flat({"version": record["versions"], "machine": record["machine"]})
        for record in records
    ]
    keys = dict.fromkeys(key for one in facts for key in one)
    rows = {key: [one.get(key, "absent") for one in facts] for key in keys}
    return [
        SettingDifference(key, tuple((value, value != values[0]) for value in values))
        for key, values in rows.items()
        if len(set(values)) > 1
    ]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested settings as stage.key -> value, written as in a config file."""
    pairs: dict[str, str] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            pairs |= flat(value, f"{prefix}{key}.")
        else:
            text = value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)
            pairs[f"{prefix}{key}"] = text
    return pairs

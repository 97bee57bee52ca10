"""What the shell offers beside verbs and options: names that only the library knows."""

from __future__ import annotations


def settings(incomplete: str) -> list[str]:
    """Keys of the config, as --set takes them."""
    from mllmrec.config import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Names of models to compare, after the last comma."""
    from mllmrec.experiments.entries import ENTRIES

    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{entry.name}" for entry in ENTRIES if entry.name.startswith(last)]

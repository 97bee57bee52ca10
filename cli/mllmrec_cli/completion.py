"""Complete names in the shell that only the library knows."""

from __future__ import annotations


def settings(incomplete: str) -> list[str]:
    """Return keys of the config, as --set takes them."""
    from mllmrec.config import keys

    return [f"{key}=" for key in keys() if key.startswith(incomplete)]


def models(incomplete: str) -> list[str]:
    """Return names of models to compare, after the last comma."""
    from mllmrec.experiments.entries import GROUP, all_entries

    before, comma, last = incomplete.rpartition(",")
    names = [*(entry.name for entry in all_entries()), GROUP]
    return [f"{before}{comma}{name}" for name in names if name.startswith(last)]

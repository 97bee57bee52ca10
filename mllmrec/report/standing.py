"""Which stages of a run are there, and still what the run's config and earlier stages say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from mllmrec.errors import InputError
from mllmrec.foundation import storage
from mllmrec.runs import STAGES, Stage
from mllmrec.views import RunView

Standing = Literal["done", "missing", "outdated", "damaged"]


def standings(view: RunView) -> dict[Stage, Standing]:
    """How each stage of a run stands.

    "outdated" is a stage that was made under another config or from an earlier stage that has since been made
    anew; "damaged" one whose files are not those that it sealed.
    """
    found: dict[Stage, Standing] = {}
    seals: dict[str, Mapping[str, Any]] = {}
    for stage in STAGES:
        folder = view.folder / stage
        try:
            seals[stage] = storage.read_json(folder / "stage.json")
        except InputError:
            found[stage] = "missing" if not (folder / "stage.json").exists() else "damaged"
            continue
        outputs = seals[stage].get("outputs", {})
        if not outputs or not storage.are_unchanged(folder, outputs):
            found[stage] = "damaged"
        else:
            found[stage] = "done" if _current(view, stage, seals, found) else "outdated"
    return found


def _current(
    view: RunView, stage: Stage, seals: Mapping[str, Mapping[str, Any]], found: Mapping[Stage, Standing]
) -> bool:
    inputs, config = seals[stage].get("inputs", {}), view.record["config"]
    made_by = {stage: inputs.get("config", {})} | ({"model": inputs["model"]} if "model" in inputs else {})
    same = all(config[section].get(key) == value for section, made in made_by.items() for key, value in made.items())
    same &= inputs.get("seed", view.record["seed"]) == view.record["seed"]
    read = [earlier for earlier in STAGES if earlier in inputs]
    return same and all(
        found[earlier] == "done" and storage.hash_value(seals[earlier]["outputs"]) == inputs[earlier]
        for earlier in read
    )

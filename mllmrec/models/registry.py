"""Every kind of model: its name, and the class that fits it.

To add one, write a file in this folder and a line in MODELS. `run`, `compare`, `export`, the report and
`mllmrec config` read only this table. A model is imported when it is first used.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from mllmrec.errors import ConfigError, near_miss

if TYPE_CHECKING:
    from mllmrec.config import ModelConfig
    from mllmrec.models.base import Recommender

MODELS: dict[str, str] = {
    "ensemble": "mllmrec.models.ensemble:Ensemble",
    "mllmrec": "mllmrec.models.mllmrec:MLLMRec",
    "ridge": "mllmrec.models.ridge:ItemGraphRidge",
    "ease": "mllmrec.models.ease:EASE",
    "ials": "mllmrec.models.ials:IALS",
    "item-knn": "mllmrec.models.item_knn:ItemKNN",
    "l3ae": "mllmrec.models.l3ae:L3AE",
    "additive-ease": "mllmrec.models.l3ae:AdditiveEASE",
    "edlae": "mllmrec.models.ease:EDLAE",
    "mrf": "mllmrec.models.mrf:MRF",
    "gf-cf": "mllmrec.models.gfcf:GFCF",
    "turbo-cf": "mllmrec.models.turbo_cf:TurboCF",
    "mm-gf": "mllmrec.models.turbo_cf:MMGF",
    "sansa": "mllmrec.models.sansa:SANSA",
    "elsa": "mllmrec.models.elsa:ELSA",
    "alpharec": "mllmrec.models.alpharec:AlphaRec",
    "transitions": "mllmrec.models.transitions:Transitions",
    "sasrec": "mllmrec.models.sasrec:SASRec",
    "rival-ensemble": "mllmrec.models.rival_ensemble:RivalEnsemble",
    "bpr": "mllmrec.models.bpr:BPR",
    "vbpr": "mllmrec.models.vbpr:VBPR",
    "lightgcn": "mllmrec.models.lightgcn:LightGCN",
    "freedom": "mllmrec.models.freedom:FREEDOM",
    "content": "mllmrec.models.content:Content",
    "ease-neighbors": "mllmrec.models.ease:EASENeighbors",
    "clcrec": "mllmrec.models.clcrec:CLCRec",
}
DEFAULT = "ensemble"

_RENAMED_KINDS = {"blend": "ensemble"}
_RENAMED_SETTINGS = {
    "neighbours": "n_neighbors",
    "rank": "factors",
    "regularisation": "regularization",
    "shrinkage": "regularization",
    "sweeps": "iterations",
    "unobserved": "unobserved_weight",
}
_NAMED = 3  # unknown settings that an error names before it counts the rest


def kinds() -> tuple[str, ...]:
    """Return the name of every kind, as `model.kind` takes it."""
    return tuple(MODELS)


def find(kind: str) -> type[Recommender]:
    """Return the class of a kind.

    Raises:
        ConfigError: there is no such kind.
    """
    if kind in _RENAMED_KINDS:
        raise ConfigError(f"model.kind={kind} is now model.kind={_RENAMED_KINDS[kind]}")
    if kind not in MODELS:
        raise ConfigError(
            f"there is no model.kind {kind!r}{near_miss(str(kind), MODELS)}; there are {', '.join(MODELS)}"
        )
    return _load(MODELS[kind])


@cache
def _load(path: str) -> type[Recommender]:
    module, _, name = path.partition(":")
    found: type[Recommender] = getattr(importlib.import_module(module), name)
    return found


def title(kind: str) -> str:
    """Return the name that tables print."""
    return find(kind).title


def reads(kind: str) -> frozenset[str]:
    """Return what a fit of a kind looks at beside the interactions: "items", "users", "graph"."""
    return find(kind).reads


def class_paths() -> dict[str, str]:
    """Return class name -> module of every model."""
    return {name: module for module, _, name in (path.partition(":") for path in MODELS.values())}


def settings_names() -> list[str]:
    """Return every setting of any kind, each once."""
    return list(dict.fromkeys(name for kind in MODELS for name in find(kind).Config.model_fields))


def read_settings(values: Any) -> ModelConfig:
    """Check the settings of a model against those of its kind.

    Args:
        values: mapping with "kind" (by default the ensemble) and settings of that kind; or a config, returned as it is.

    Raises:
        ConfigError: there is no such kind, the kind has no such setting, or a value does not fit.
    """
    from mllmrec.config import ModelConfig, explain_errors

    if isinstance(values, ModelConfig):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"config key 'model': wanted settings such as model.kind; got {values!r}")
    kind = str(values.get("kind", DEFAULT))
    config_class = find(kind).Config
    unknown = [key for key in values if key not in config_class.model_fields]
    if unknown:
        more = f"; and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise ConfigError("; ".join(_explain_unknown(kind, key) for key in unknown[:_NAMED]) + more)
    with explain_errors("model."):
        return config_class.model_validate({"kind": kind, **values})


def _explain_unknown(kind: str, key: str) -> str:
    known = find(kind).Config.model_fields
    new = _RENAMED_SETTINGS.get(key)
    if new in known:
        return f"config key 'model.{key}' is now 'model.{new}'"
    owners = [other for other in MODELS if key in find(other).Config.model_fields]
    hint = f"; {', '.join(owners)} {'has' if len(owners) == 1 else 'have'} it" if owners else near_miss(key, known)
    return f"unknown config key 'model.{key}' of model.kind={kind}{hint}"

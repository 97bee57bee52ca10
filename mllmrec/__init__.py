"""Multimodal recommendation by MLLM reasoning, leak-free by construction.

    import mllmrec

    mllmrec.prepare("shop", "dataset")
    run = mllmrec.run("dataset", "run")
    run.evaluate.means["test"]

    from mllmrec.models import EASE

    ids, scores = EASE().fit(user_items).recommend([0], 10)  # user_items: a sparse matrix of scipy

Importing this package loads neither torch nor transformers; a name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllmrec.config import Config, load_config
    from mllmrec.dataset import Dataset, Histories, PrepareOptions, load, prepare, statistics, update
    from mllmrec.errors import MllmrecError
    from mllmrec.evaluation.evaluate import evaluate_models
    from mllmrec.features.encode import encode_texts
    from mllmrec.graph.item_graph import build_graph
    from mllmrec.models.fitting import fit_model
    from mllmrec.pipeline import run
    from mllmrec.reason.describe import describe_items
    from mllmrec.reason.profile import profile_users
    from mllmrec.recommend import recommend_items

_HOME = {
    "Config": "mllmrec.config",
    "Dataset": "mllmrec.dataset",
    "Histories": "mllmrec.dataset",
    "MllmrecError": "mllmrec.errors",
    "PrepareOptions": "mllmrec.dataset",
    "build_graph": "mllmrec.graph.item_graph",
    "describe_items": "mllmrec.reason.describe",
    "encode_texts": "mllmrec.features.encode",
    "evaluate_models": "mllmrec.evaluation.evaluate",
    "fit_model": "mllmrec.models.fitting",
    "load": "mllmrec.dataset",
    "load_config": "mllmrec.config",
    "prepare": "mllmrec.dataset",
    "profile_users": "mllmrec.reason.profile",
    "recommend_items": "mllmrec.recommend",
    "run": "mllmrec.pipeline",
    "statistics": "mllmrec.dataset",
    "update": "mllmrec.dataset",
}

__version__ = "0.1.0"
__all__ = [
    "Config",
    "Dataset",
    "Histories",
    "MllmrecError",
    "PrepareOptions",
    "build_graph",
    "describe_items",
    "encode_texts",
    "evaluate_models",
    "fit_model",
    "load",
    "load_config",
    "prepare",
    "profile_users",
    "recommend_items",
    "run",
    "statistics",
    "update",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mllmrec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

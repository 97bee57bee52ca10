"""Multimodal recommendation by MLLM reasoning: catalogue in, recommendations out, leak-free by construction.

    import mllmrec

    dataset = mllmrec.prepare("shop", "dataset")
    run = mllmrec.run(dataset, "run", mllmrec.load_config())
    run.evaluate.means["test"]

Importing this package pulls in neither torch nor transformers; a name is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mllmrec.config import Config, load_config
    from mllmrec.dataset import Dataset, Histories, PrepareOptions, load, prepare, statistics
    from mllmrec.errors import MllmrecError
    from mllmrec.evaluation.evaluate import evaluate_models
    from mllmrec.features.encode import encode_texts
    from mllmrec.graph.item_graph import build_graph
    from mllmrec.pipeline import run
    from mllmrec.reason.describe import describe_items
    from mllmrec.reason.profile import profile_users
    from mllmrec.recommend import recommend_items
    from mllmrec.training.trainer import train_model

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
    "load": "mllmrec.dataset",
    "load_config": "mllmrec.config",
    "prepare": "mllmrec.dataset",
    "profile_users": "mllmrec.reason.profile",
    "recommend_items": "mllmrec.recommend",
    "run": "mllmrec.pipeline",
    "statistics": "mllmrec.dataset",
    "train_model": "mllmrec.training.trainer",
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
    "load",
    "load_config",
    "prepare",
    "profile_users",
    "recommend_items",
    "run",
    "statistics",
    "train_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mllmrec' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])

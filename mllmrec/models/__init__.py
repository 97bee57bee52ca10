"""Models: `EASE().fit(user_items).recommend([0], 10)`. A class is imported when it is first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mllmrec.models.registry import class_paths

if TYPE_CHECKING:
    from mllmrec.models.base import FitContext as FitContext
    from mllmrec.models.base import Recommender as Recommender
    from mllmrec.models.bpr import BPR as BPR
    from mllmrec.models.clcrec import CLCRec as CLCRec
    from mllmrec.models.content import Content as Content
    from mllmrec.models.ease import EASE as EASE
    from mllmrec.models.ease import EASENeighbors as EASENeighbors
    from mllmrec.models.ensemble import Ensemble as Ensemble
    from mllmrec.models.freedom import FREEDOM as FREEDOM
    from mllmrec.models.ials import IALS as IALS
    from mllmrec.models.item_knn import ItemKNN as ItemKNN
    from mllmrec.models.lightgcn import LightGCN as LightGCN
    from mllmrec.models.mllmrec import MLLMRec as MLLMRec
    from mllmrec.models.ridge import ItemGraphRidge as ItemGraphRidge
    from mllmrec.models.vbpr import VBPR as VBPR

_CONTRACT = {"FitContext": "mllmrec.models.base", "Recommender": "mllmrec.models.base"}


def __getattr__(name: str) -> Any:
    modules = _CONTRACT | class_paths()
    if name not in modules:
        raise AttributeError(f"module 'mllmrec.models' has no attribute {name!r}")
    return getattr(importlib.import_module(modules[name]), name)


def __dir__() -> list[str]:
    return sorted(_CONTRACT | class_paths())

"""Each item's nearest others, by vectors (method 2.5) and by audiences (method 2.6), on the device that is at hand.

Every kernel gives the same lists to the bit, so where they were computed does not show in what is built on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mllmrec_kernels import CSR, available, cooccurrence_topk, topk_cosine
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors

Lists = tuple[NDArray[np.int32], NDArray[np.float32]]
_PAYS = 20_000  # items from which a GPU is worth its start: Triton compiles for some seconds


def by_vectors(vectors: Vectors, k: int, device: torch.device, **options: Any) -> Lists:
    """topk_cosine of the rows of `vectors`, float32 [I, d], on `device`; its ids and scores, [I, k]."""
    if device.type == "cpu" or len(vectors) < _PAYS:
        return topk_cosine(vectors, k, **options)
    ids, scores = topk_cosine(torch.from_numpy(vectors).to(device), k, **options)
    return ids.cpu().numpy(), scores.cpu().numpy()


def by_audiences(user_items: CSR, k: int, device: torch.device, **options: Any) -> Lists:
    """cooccurrence_topk by Jaccard, by CuPy where `device` is a GPU and it is installed; ids and scores, [I, k]."""
    on_gpu = device.type == "cuda" and user_items.n_columns >= _PAYS and available()["cupy"]
    return cooccurrence_topk(user_items, k, measure="jaccard", backend="cupy" if on_gpu else "auto", **options)

"""Each item's nearest others, by vectors and by shared users, on the device that is there.

Every kernel gives the same lists to the bit, so the device does not show in what is built on them.
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
    """Return the k nearest rows of each row by cosine, on `device`.

    Args:
        vectors: float32 [I, d].
        k: neighbors per item.
        device: where neighbors are searched.
        options: further arguments of topk_cosine.

    Returns:
        ids int32 [I, k] and cosines float32 [I, k].
    """
    if device.type == "cpu" or len(vectors) < _PAYS:
        return topk_cosine(vectors, k, **options)
    ids, scores = topk_cosine(torch.from_numpy(vectors).to(device), k, **options)
    return ids.cpu().numpy(), scores.cpu().numpy()


def by_users(user_items: CSR, k: int, device: torch.device, **options: Any) -> Lists:
    """Return the k nearest items of each item by the Jaccard of their users; by CuPy on a GPU where it is installed.

    Args:
        user_items: binary [U, I].
        k: neighbors per item.
        device: where neighbors are searched.
        options: further arguments of cooccurrence_topk.

    Returns:
        ids int32 [I, k] and Jaccards float32 [I, k].
    """
    on_gpu = device.type == "cuda" and user_items.n_columns >= _PAYS and available()["cupy"]
    return cooccurrence_topk(user_items, k, measure="jaccard", backend="cupy" if on_gpu else "auto", **options)

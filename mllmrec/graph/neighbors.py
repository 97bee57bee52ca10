"""Each item's nearest others, by vectors and by shared users, on the device that is there.

Every kernel gives the same lists to the bit, so the device does not show in what is built on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mllmrec_kernels import CSR, available, cooccurrence_topk, topk_cosine
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work, rows_a_block
from mllmrec.features.encode import Vectors

Lists = tuple[NDArray[np.int32], NDArray[np.float32]]
_ROWS = 1 << 14  # rows whose lists a worker searches at once
CPU = torch.device("cpu")
_PAYS = 20_000  # items from which a GPU is worth its start: Triton compiles for some seconds


def by_vectors(
    vectors: Vectors, k: int, device: torch.device, *, blocks: Blocks | None = None, **options: Any
) -> Lists:
    """Return the k nearest rows of each row by cosine, on `device`.

    Args:
        vectors: float32 [I, d].
        k: neighbors per item.
        device: where neighbors are searched.
        blocks: workers that search instead, on their processors; None: this process does.
        options: further arguments of topk_cosine.

    Returns:
        ids int32 [I, k] and cosines float32 [I, k].
    """
    if blocks and len(vectors):
        settings = {"k": k, **options}
        size = rows_a_block(len(vectors), _ROWS)
        work = Work(vectors_block, "neighbors by vectors", len(vectors), size, {}, {"vectors": vectors}, settings)
        found = blocks.run(work)
        return found["ids"], found["scores"]
    if device.type == "cpu" or len(vectors) < _PAYS:
        return topk_cosine(vectors, k, **options)
    ids, scores = topk_cosine(torch.from_numpy(vectors).to(device), k, **options)
    return ids.cpu().numpy(), scores.cpu().numpy()


def vectors_block(block: Block) -> Arrays:
    """Return the lists of the block's rows among all rows: k + 1 of each, the row itself then left out."""
    vectors, settings = block.array("vectors"), dict(block.settings)
    k, include_self = settings.pop("k"), settings.pop("include_self", False)
    own = np.arange(block.start, block.stop)[:, None]
    ids, scores = topk_cosine(vectors, k + (not include_self), queries=vectors[block.start : block.stop], **settings)
    if include_self:
        return {"ids": ids, "scores": scores}
    left_out = ids == own
    left_out[~left_out.any(axis=1), -1] = True  # of more equal rows than places, the row itself may not be listed
    return {"ids": ids[~left_out].reshape(-1, k), "scores": scores[~left_out].reshape(-1, k)}


def by_users(user_items: CSR, k: int, device: torch.device, *, blocks: Blocks | None = None, **options: Any) -> Lists:
    """Return the k nearest items of each item by the Jaccard of their users; by CuPy on a GPU where it is installed.

    Args:
        user_items: binary [U, I].
        k: neighbors per item.
        device: where neighbors are searched.
        blocks: workers that count instead, on their processors; None: this process does.
        options: further arguments of cooccurrence_topk.

    Returns:
        ids int32 [I, k] and Jaccards float32 [I, k].
    """
    if blocks and user_items.n_columns:
        times = options.pop("times", None)
        shared = {"user_items": user_items} | ({} if times is None else {"times": times})
        total = user_items.n_columns
        settings = {"k": k, **options}
        size = rows_a_block(total, _ROWS)
        found = blocks.run(Work(users_block, "neighbors by users", total, size, {}, shared, settings))
        return found["ids"], found["scores"]
    on_gpu = device.type == "cuda" and user_items.n_columns >= _PAYS and available()["cupy"]
    return cooccurrence_topk(user_items, k, measure="jaccard", backend="cupy" if on_gpu else "auto", **options)


def users_block(block: Block) -> Arrays:
    """Return the lists of the block's items among all items."""
    times = block.array("times") if "times" in block.shared else None
    ids, scores = cooccurrence_topk(
        block.matrix("user_items"), measure="jaccard", times=times, items=(block.start, block.stop), **block.settings
    )
    return {"ids": ids, "scores": scores}

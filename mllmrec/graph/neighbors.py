"""Find each item's nearest items, by vectors and by shared users, on the CPU or a GPU.

Every kernel gives the same lists to the bit, so the device does not show in what is built on them. After some rows
changed, `grow_lists` gives the lists that a search from scratch would. With N the new or changed rows,

    a row of N                                  is searched among all
    a row whose list named a changed row        is searched among all, for another may follow in its place
    any other row                               joins its list with its best of N

A search from scratch costs I² pairs, this |N| I and the second kind. Lists by shared users are counted again: that
is one pass over the interactions.

A user of n items costs n² steps of the count of shared users. So of a user with more than MOST_ITEMS, only so many
count, spread evenly over their items in the order of the catalogue. The count is then at most MOST_ITEMS steps an
interaction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from mllmrec_kernels import CSR, available, cooccurrence_topk, topk_cosine
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work, rows_a_block
from mllmrec.features.encode import Vectors
from mllmrec.foundation.progress import Progress

if TYPE_CHECKING:
    import torch

Lists = tuple[NDArray[np.int32], NDArray[np.float32]]
MOST_ITEMS = 10_000  # of a user that are counted
_ROWS, _PARTS = 1 << 14, 8  # rows whose lists a worker searches at once, parts of few: each block encodes all rows
_SHARD = 1 << 20  # rows that a worker holds to search among
_PAYS = 20_000  # at least so many items are worth a GPU's start: Triton compiles for some seconds
_MANY = 0.5  # if a larger share of rows is searched, a search from scratch is cheaper


class WideLists:
    """Lists that a graph and a model both read, searched once, as long as the longer ones.

    The first entries of a list do not depend on its length, so the shorter lists are cut from the longer ones.

    Args:
        by_vectors: length of the longest list by vectors; 0: there is none.
        by_users: the same, by shared users.
    """

    def __init__(self, by_vectors: int = 0, by_users: int = 0) -> None:
        self._widths = {"vectors": by_vectors, "users": by_users}
        self._held: dict[str, tuple[object, Lists]] = {}

    def of_vectors(
        self,
        vectors: Vectors,
        k: int,
        device: torch.device | None,
        threshold: float | None = None,
        blocks: Blocks | None = None,
    ) -> Lists:
        """Return what by_vectors does.

        Args:
            vectors: float32 [I, d].
            k: neighbors per item.
            device: where neighbors are searched; None: on the CPU.
            threshold: neighbors of a lower cosine are dropped; None: none are.
            blocks: workers that search instead.
        """
        ids, cosines = self._cut("vectors", vectors, k, lambda width: by_vectors(vectors, width, device, blocks=blocks))
        if threshold is not None:
            far = cosines < np.float32(threshold)
            ids[far], cosines[far] = -1, -np.inf
        return ids, cosines

    def of_users(self, user_items: CSR, k: int, device: torch.device | None, blocks: Blocks | None = None) -> Lists:
        """Return what by_users does.

        Args:
            user_items: binary [U, I].
            k: neighbors per item.
            device: where neighbors are searched; None: on the CPU.
            blocks: workers that search instead.
        """
        return self._cut("users", user_items, k, lambda width: by_users(user_items, width, device, blocks=blocks))

    def forget(self) -> None:
        """Drop the lists, which nobody reads any more."""
        self._held.clear()

    def _cut(self, kind: str, source: object, k: int, search: Callable[[int], Lists]) -> Lists:
        held, lists = self._held.get(kind, (None, None))
        if lists is None or held is not source or lists[0].shape[1] < k:
            lists = search(max(k, self._widths[kind]))
            self._held[kind] = source, lists
        return lists[0][:, :k].copy(), lists[1][:, :k].copy()


def by_vectors(
    vectors: Vectors, k: int, device: torch.device | None, *, blocks: Blocks | None = None, **options: Any
) -> Lists:
    """Return the k nearest rows of each row by cosine, on `device`.

    Args:
        vectors: float32 [I, d].
        k: neighbors per item.
        device: where neighbors are searched; None: on the CPU.
        blocks: workers that search instead, on their processors; None: this process does.
        options: further arguments of topk_cosine.

    Returns:
        ids int32 [I, k] and cosines float32 [I, k].
    """
    if blocks and len(vectors):
        return _vectors_in_blocks(vectors, {"k": k, **options}, blocks)
    if device is None or device.type == "cpu" or len(vectors) < _PAYS:
        return topk_cosine(vectors, k, **options)
    import torch

    ids, scores = topk_cosine(torch.from_numpy(vectors).to(device), k, **options)
    return ids.cpu().numpy(), scores.cpu().numpy()


def _vectors_in_blocks(vectors: Vectors, settings: dict[str, Any], blocks: Blocks) -> Lists:
    """Return what by_vectors does; of many rows, among a shard of them after the other, the lists merged."""
    n, label = len(vectors), "neighbors by vectors"
    size = rows_a_block(n, _ROWS, parts=_PARTS)
    if n <= _SHARD:
        found = blocks.run(Work(vectors_block, label, n, size, {}, {"vectors": vectors}, settings))
        return found["ids"], found["scores"]
    lists: Lists = np.empty((n, 0), np.int32), np.empty((n, 0), np.float32)
    for start in range(0, n, _SHARD):
        shard = {"shard": vectors[start : start + _SHARD]}
        found = blocks.run(Work(shard_block, label, n, size, {"rows": vectors}, shard, {**settings, "first": start}))
        merged = [
            _join((lists[0][at], lists[1][at]), (found["ids"][at], found["scores"][at]), settings["k"])
            for at in (slice(first, first + _ROWS) for first in range(0, n, _ROWS))
        ]
        lists = np.concatenate([ids for ids, _ in merged]), np.concatenate([cosines for _, cosines in merged])
    return lists


def shard_block(block: Block) -> Arrays:
    """Return the lists of the block's rows among a shard of all rows, which starts at row `first`."""
    settings = dict(block.settings)
    k, first, include_self = settings.pop("k"), settings.pop("first"), settings.pop("include_self", False)
    shard, rows = block.array("shard"), block.array("rows")
    ids, scores = topk_cosine(shard, k + (not include_self), queries=rows, **settings)
    lists = np.where(ids >= 0, ids + np.int32(first), -1).astype(np.int32), scores
    own = np.arange(block.start, block.stop)[:, None]
    ids, scores = lists if include_self else _without_self(lists, own, k)
    return {"ids": ids, "scores": scores}


def vectors_block(block: Block) -> Arrays:
    """Return the lists of the block's rows among all rows: k + 1 of each, the row itself then left out."""
    vectors, settings = block.array("vectors"), dict(block.settings)
    k, include_self = settings.pop("k"), settings.pop("include_self", False)
    own = np.arange(block.start, block.stop)[:, None]
    lists = topk_cosine(vectors, k + (not include_self), queries=vectors[block.start : block.stop], **settings)
    ids, scores = lists if include_self else _without_self(lists, own, k)
    return {"ids": ids, "scores": scores}


def by_users(
    user_items: CSR, k: int, device: torch.device | None, *, blocks: Blocks | None = None, **options: Any
) -> Lists:
    """Return the k nearest items of each item by the Jaccard of their users; by CuPy on a GPU if it is installed.

    Of a user with more than MOST_ITEMS, so many count; see the module.

    Args:
        user_items: binary [U, I].
        k: neighbors per item.
        device: where neighbors are searched; None: on the CPU.
        blocks: workers that count instead, on their processors; None: this process does.
        options: further arguments of cooccurrence_topk.

    Returns:
        ids int32 [I, k] and Jaccards float32 [I, k].
    """
    user_items, times = _limited(user_items, options.pop("times", None))
    if blocks and user_items.n_columns:
        shared = {"user_items": user_items} | ({} if times is None else {"times": times})
        total = user_items.n_columns
        settings = {"k": k, **options}
        size = rows_a_block(total, _ROWS)
        found = blocks.run(Work(users_block, "neighbors by users", total, size, {}, shared, settings))
        return found["ids"], found["scores"]
    on_gpu = device is not None and device.type == "cuda" and user_items.n_columns >= _PAYS and available()["cupy"]
    backend = "cupy" if on_gpu else "auto"
    return cooccurrence_topk(user_items, k, measure="jaccard", backend=backend, times=times, **options)


def note_power_users(indptr: NDArray[np.int64], progress: Progress) -> None:
    """Say how many users have more than MOST_ITEMS, if any; `indptr` are the offsets of their histories."""
    if count := int((np.diff(indptr) > MOST_ITEMS).sum()):
        progress(f"{count:,} users have more than {MOST_ITEMS:,} items; so many of each count as shared", 1, 1)


def _limited(user_items: CSR, times: NDArray[Any] | None) -> tuple[CSR, NDArray[Any] | None]:
    """Return the interactions that count, and their times where there are any."""
    lengths = np.diff(user_items.indptr)
    if lengths.max(initial=0) <= MOST_ITEMS:
        return user_items, times
    kept = np.ones(user_items.nnz, bool)
    for user in np.flatnonzero(lengths > MOST_ITEMS).tolist():
        start, stop = user_items.indptr[user : user + 2].tolist()
        kept[start:stop] = False
        kept[np.linspace(start, stop - 1, MOST_ITEMS).astype(np.int64)] = True
    indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.minimum(lengths, MOST_ITEMS))])
    limited = CSR(indptr, user_items.indices[kept], None, user_items.n_columns)
    return limited, None if times is None else times[kept]


def users_block(block: Block) -> Arrays:
    """Return the lists of the block's items among all items."""
    times = block.array("times") if "times" in block.shared else None
    ids, scores = cooccurrence_topk(
        block.matrix("user_items"), measure="jaccard", times=times, items=(block.start, block.stop), **block.settings
    )
    return {"ids": ids, "scores": scores}


def grow_lists(
    vectors: Vectors,
    earlier: Lists,
    changed: NDArray[np.bool_],
    k: int,
    device: torch.device | None,
    threshold: float | None = None,
) -> Lists:
    """Return the k nearest rows of each row by cosine, from the lists of an earlier table.

    Args:
        vectors: float32 [I, d].
        earlier: ids int32 [J, k] and cosines float32 [J, k] of the first J <= I rows, as by_vectors gave them.
        changed: bool [I], rows that are new or whose vector changed; all from J on are.
        k: neighbors per item.
        device: where neighbors are searched from scratch, if much changed; None: on the CPU.
        threshold: lowest cosine of a list, as in the earlier search; None: any.

    Returns:
        ids int32 [I, k] and cosines float32 [I, k], the same bits as by_vectors.
    """
    before, n = len(earlier[0]), len(vectors)
    named_changed = (earlier[0] >= 0) & changed[np.maximum(earlier[0], 0)]
    stale = changed.copy()
    stale[:before] |= named_changed.any(axis=1)
    if stale.sum() > _MANY * n:
        return by_vectors(vectors, k, device, threshold=threshold)
    ids, cosines = np.full((n, k), -1, np.int32), np.full((n, k), -np.inf, np.float32)
    ids[:before], cosines[:before] = earlier
    rows, others, new = np.flatnonzero(stale), np.flatnonzero(~stale), np.flatnonzero(changed)
    if len(rows):
        ids[rows], cosines[rows] = search_rows(vectors, rows, k, threshold)
    if len(others) and len(new):
        found, near = topk_cosine(vectors[new], k, queries=vectors[others], threshold=threshold)
        named = np.where(found >= 0, new[found], -1).astype(np.int32)
        ids[others], cosines[others] = _join((ids[others], cosines[others]), (named, near), k)
    return ids, cosines


def search_rows(vectors: Vectors, rows: NDArray[np.int64], k: int, threshold: float | None = None) -> Lists:
    """Return the k nearest of some rows among all, themselves left out; see by_vectors.

    Args:
        vectors: float32 [I, d].
        rows: int64 [n], whose lists are searched.
        k: neighbors per row.
        threshold: neighbors of a lower cosine are dropped; None: none are.
    """
    lists = topk_cosine(vectors, k + 1, queries=vectors[rows], threshold=threshold)
    return _without_self(lists, rows[:, None], k)


def _without_self(lists: Lists, rows: NDArray[np.int64], k: int) -> Lists:
    """Return lists of k + 1 without the row itself, else without their last."""
    ids, scores = lists
    left_out = ids == rows
    left_out[~left_out.any(axis=1), -1] = True  # of more equal rows than places, the row itself may not be listed
    return ids[~left_out].reshape(-1, k), scores[~left_out].reshape(-1, k)


def _join(left: Lists, right: Lists, k: int) -> Lists:
    """Return the k best of two lists that share nothing, by cosine falling and id rising; -1 stands for none."""
    ids, cosines = (np.concatenate(pair, axis=1) for pair in zip(left, right, strict=True))
    last = np.where(ids >= 0, ids, np.iinfo(np.int32).max)
    order = np.lexsort((last, -cosines), axis=1)[:, :k]
    return np.take_along_axis(ids, order, axis=1), np.take_along_axis(cosines, order, axis=1)

"""Build the item graph from item vectors and training interactions (docs/method.md, section 2).

A semantic edge joins items whose vectors are among each other's nearest and closer than the threshold ("denoising"). A
co-occurrence edge joins items that training users have together ("enhancement"). Both come from exact top-K kernels, so
nothing of size I x I is held.

Two modes, both with ties to the lower item index:

- `fixed`: an item is never its own neighbor. An edge that either end names is an edge: the graph is symmetric, so
  D^-1/2 A D^-1/2 has a spectral norm of at most 1. An item without any edge keeps its own vector.
- `paper`: as the public code does it (docs/method.md, section 10). The item counts among its own K_s and keeps the
  self-loop. Every Jaccard of exactly 1 is deleted, but items with a single user keep theirs (0.9999999, by the 1e-7 in
  the denominator), the diagonal included. The graph stays directed, and row sums scale both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, normalize
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from mllmrec.blocks.stage import Blocks
from mllmrec.config import GraphConfig
from mllmrec.dataset import Histories
from mllmrec.errors import InputError, MismatchError
from mllmrec.features.encode import Vectors
from mllmrec.foundation import digests, storage
from mllmrec.foundation.environment import find_gpu
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph import neighbors
from mllmrec.graph.neighbors import Lists, WideLists, grow_lists

if TYPE_CHECKING:
    import torch

    Device = torch.device | None  # None: the CPU

_LONE = np.float32(1) / (np.float32(1) + np.float32(1e-7))  # the public code's Jaccard of items with one same user


@dataclass(frozen=True, slots=True)
class GraphStatistics:
    """Counts of a graph.

    Attributes:
        edges: directed entries of A.
        semantic: entries that only vectors name.
        cooccurrence: entries that only shared users name.
        both: entries that both name.
        isolated: items without any edge.
    """

    edges: int
    semantic: int
    cooccurrence: int
    both: int
    isolated: int


@dataclass(frozen=True, slots=True)
class ItemGraph:
    """The refined item graph.

    Attributes:
        adjacency: A, [I, I]: 1 for a semantic edge, plus J for a co-occurrence edge.
        normalized: D^-1/2 A D^-1/2, the same pattern.
        histories: digest of the training histories behind the co-occurrences.
        statistics: where the edges come from.
        lists: each item's nearest by vectors, ids int32 [I, K_s] and cosines float32 [I, K_s], which a grown dataset
            goes on from; None in paper mode, and of files that do not have them.
    """

    adjacency: CSR
    normalized: CSR
    histories: str
    statistics: GraphStatistics
    lists: Lists | None = None

    @property
    def summary(self) -> str:
        """One line about the graph."""
        counts = self.statistics
        return (
            f"{counts.edges:,} edges: {counts.semantic:,} semantic, {counts.cooccurrence:,} co-occurrence, "
            f"{counts.both:,} both; {counts.isolated:,} isolated items"
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the normalized matrix; graphs that propagate the same have the same digest."""
        arrays = self.normalized.indptr, self.normalized.indices, self.normalized.values()
        return digests.hash_value([digests.hash_bytes(np.ascontiguousarray(array).tobytes()) for array in arrays])

    def check(self, histories: Histories) -> None:
        """Refuse a graph of another split or size.

        Raises:
            MismatchError: it was not made from these training histories.
        """
        if self.histories != histories.digest or self.adjacency.n_rows != histories.n_items:
            raise MismatchError(
                "the item graph was made from other training interactions than the split in use; "
                "make it again with mllmrec graph"
            )

    def save(self, path: Callable[[str], Path]) -> list[str]:
        """Write graph.safetensors and graph.json, and lists.safetensors if there are lists."""
        tensors: dict[str, NDArray[Any]] = {
            "indptr": self.adjacency.indptr,
            "indices": self.adjacency.indices,
            "weights": self.adjacency.values(),
            "normalised": self.normalized.values(),
        }
        with storage.atomic(path("graph.safetensors")) as temporary:
            save_file(tensors, temporary)
        storage.write_json(path("graph.json"), {"histories": self.histories, "statistics": asdict(self.statistics)})
        if self.lists is None:
            return ["graph.safetensors", "graph.json"]
        with storage.atomic(path("lists.safetensors")) as temporary:
            save_file(dict(zip(("ids", "cosines"), map(np.ascontiguousarray, self.lists), strict=True)), temporary)
        return ["graph.safetensors", "graph.json", "lists.safetensors"]

    @staticmethod
    def load(path: Callable[[str], Path]) -> ItemGraph:
        """Read what save wrote."""
        tensors, notes = load_file(path("graph.safetensors")), storage.read_json(path("graph.json"))
        indptr, indices = tensors["indptr"], tensors["indices"]
        adjacency, normalized = (
            CSR(indptr, indices, tensors[name], len(indptr) - 1) for name in ("weights", "normalised")
        )
        statistics, lists = GraphStatistics(**notes["statistics"]), None
        if path("lists.safetensors").exists():
            held = load_file(path("lists.safetensors"))
            lists = held["ids"], held["cosines"]
        return ItemGraph(adjacency, normalized, notes["histories"], statistics, lists)


@dataclass(frozen=True, slots=True)
class EarlierGraph:
    """The graph that a grown dataset goes on from.

    Attributes:
        graph: of the first J items, with the same config.
        vectors: float32 [J, d], of these items.
    """

    graph: ItemGraph
    vectors: Vectors


def build_graph(
    vectors: Vectors,
    histories: Histories,
    config: GraphConfig,
    progress: Progress = silent,
    earlier: EarlierGraph | None = None,
    *,
    blocks: Blocks | None = None,
    wide: WideLists | None = None,
) -> ItemGraph:
    """Build the refined item graph.

    Args:
        vectors: float32 [I, d], item features.
        histories: training histories; co-occurrence is counted in them.
        config: neighbors, threshold, mode.
        progress: called after each of the two searches.
        earlier: whose lists by vectors are brought up to date; the graph is the same to the bit.
        blocks: workers that search instead of this process.
        wide: lists that the model reads as well; None: the graph searches its own.

    Raises:
        LeakError: the histories hold held-out interactions.
        ConfigError: graph.device asks for a GPU that is not there.
        InputError: the vectors do not fit the catalogue, or hold NaN; a window is set and there are no times.
    """
    histories.require_training("the item graph")
    if len(vectors) != histories.n_items:
        raise InputError(f"there are {len(vectors)} item vectors for {histories.n_items} items")
    progress("item graph", 0, 2)
    device = find_gpu(config.device, "graph.device")
    lists = _semantic_lists(vectors, config, device, earlier, blocks, wide)
    semantic = _empty(len(vectors)) if lists is None else _from_lists(lists[0], np.ones(lists[0].shape, np.float32))
    progress("item graph", 1, 2)
    neighbors.note_power_users(histories.indptr, progress)
    cooccurrence = _cooccurrence(histories, config, device, blocks, wide)
    progress("item graph", 2, 2)
    if config.mode == "fixed":
        semantic, cooccurrence = _either_way(semantic), _either_way(cooccurrence)
    adjacency, kept = CSR.from_scipy(semantic + cooccurrence), lists if config.mode == "fixed" else None
    return ItemGraph(adjacency, normalize(adjacency), histories.digest, _count(semantic, cooccurrence, adjacency), kept)


def _semantic_lists(
    vectors: Vectors,
    config: GraphConfig,
    device: Device,
    earlier: EarlierGraph | None,
    blocks: Blocks | None,
    wide: WideLists | None,
) -> Lists | None:
    """Return each item's nearest neighbors of cosine >= alpha; None for no neighbors."""
    if (k := config.semantic_neighbors) == 0:
        return None
    threshold, include_self = config.threshold, config.mode == "paper"
    if earlier is not None and earlier.graph.lists is not None and config.mode == "fixed":
        lists, before = earlier.graph.lists, len(earlier.vectors)
        if lists[0].shape == (before, k) and before <= len(vectors) and earlier.vectors.shape[1] == vectors.shape[1]:
            changed = np.ones(len(vectors), bool)
            changed[:before] = (vectors[:before] != earlier.vectors).any(axis=1)
            return grow_lists(vectors, lists, changed, k, device, threshold)
    if wide and not include_self:
        return wide.of_vectors(vectors, k, device, threshold, blocks)
    return neighbors.by_vectors(vectors, k, device, blocks=blocks, threshold=threshold, include_self=include_self)


def _cooccurrence(
    histories: Histories, config: GraphConfig, device: Device, blocks: Blocks | None, wide: WideLists | None
) -> sp.csr_array:
    """Return C: the Jaccard of each item's nearest items by shared users."""
    k, user_items = config.cooccurrence_neighbors, histories.user_items()
    if k == 0:
        return _empty(user_items.n_columns)
    window, times = (config.window, histories.times_by_item()) if config.window else (None, None)
    if window and times is None:
        raise InputError(
            "graph.window needs the time of every training interaction, and this dataset lacks them; prepare it "
            "with --column timestamp=NAME, or leave graph.window at 0"
        )
    if wide and not window and config.mode == "fixed":
        return _from_lists(*wide.of_users(user_items, k, device, blocks))
    search = partial(neighbors.by_users, user_items, device=device, blocks=blocks, window=window, times=times)
    if config.mode == "fixed":
        return _from_lists(*search(k))
    return _paper_cooccurrence(user_items, k, search)


def _paper_cooccurrence(user_items: CSR, k: int, search: Callable[[int], Lists]) -> sp.csr_array:
    """Return C as the public code has it: Jaccards of 1 deleted before the top-K, those of lone users kept.

    Deleted entries must not take up places among the K. So the search finds as many more neighbors as the largest group
    of items with the same users can delete.
    """
    degrees = np.bincount(user_items.indices, minlength=user_items.n_columns)
    ids, scores = search(k + _largest_twin_group(user_items))
    rows = np.broadcast_to(np.arange(len(ids))[:, None], ids.shape)
    same_users = (scores == 1) & (ids >= 0)
    lone = degrees == 1
    scores = np.where(same_users, np.where(lone[rows], _LONE, 0), scores)
    # The diagonal, which the kernel leaves out, belongs to the items with one user.
    ids = np.concatenate([ids, np.where(lone, np.arange(len(ids)), -1)[:, None]], axis=1)
    scores = np.concatenate([scores, np.where(lone, _LONE, 0)[:, None]], axis=1)
    order = np.lexsort((ids, -scores), axis=1)[:, :k]
    kept_ids, kept = np.take_along_axis(ids, order, axis=1), np.take_along_axis(scores, order, axis=1)
    return _from_lists(np.where(kept > 0, kept_ids, -1).astype(np.int32), kept.astype(np.float32))


def _largest_twin_group(user_items: CSR) -> int:
    """Return the size of the largest group of items with the same users."""
    item_users = user_items.transpose()
    twins: dict[bytes, int] = {}
    for item in range(item_users.n_rows):
        if key := item_users.row(item).tobytes():
            twins[key] = twins.get(key, 0) + 1
    return max(twins.values(), default=0)


def _either_way(directed: sp.csr_array) -> sp.csr_array:
    """Return the edges that either end names; an edge's weight is the same from both ends."""
    return directed.maximum(directed.T).tocsr()


def _from_lists(ids: NDArray[np.int32], weights: NDArray[np.float32]) -> sp.csr_array:
    """Return neighbor lists [I, k], padded with -1, as a sparse matrix."""
    kept = ids >= 0
    rows = np.nonzero(kept)[0]
    return sp.csr_array((weights[kept], (rows, ids[kept])), shape=(len(ids), len(ids)))


def _empty(n: int) -> sp.csr_array:
    return sp.csr_array((n, n), dtype=np.float32)


def _count(semantic: Any, cooccurrence: Any, adjacency: CSR) -> GraphStatistics:
    both = int(semantic.astype(bool).multiply(cooccurrence.astype(bool)).nnz)
    return GraphStatistics(
        edges=adjacency.nnz,
        semantic=int(semantic.nnz) - both,
        cooccurrence=int(cooccurrence.nnz) - both,
        both=both,
        isolated=int((np.diff(adjacency.indptr) == 0).sum()),
    )

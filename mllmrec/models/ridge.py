"""Item-graph ridge: each item regressed only on its neighbors (docs/method.md, section 7).

The support S_j of item j is its K_c nearest items by shared users (Jaccard) and its K_s nearest by cosine. With
G = R^T R + w V V^T over interactions R [U, I] and item vectors V [I, d], column j of W is, on S_j,

    W[S_j, j] = (G[S_j, S_j] + lambda I)^-1 G[S_j, j],

and 0 elsewhere; score_u = R_u W. With all items in S_j it is EASE. Memory: I x (K_c + K_s).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR, RidgeSystems
from numpy.typing import NDArray
from pydantic import Field

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Table, Work, rows_a_block
from mllmrec.config import Count, ModelConfig
from mllmrec.features.encode import Vectors
from mllmrec.foundation.environment import find_gpu
from mllmrec.foundation.progress import Progress, silent
from mllmrec.graph import neighbors
from mllmrec.graph.neighbors import WideLists
from mllmrec.models.base import Candidate, FitData
from mllmrec.models.item_weight_model import ItemWeightModel
from mllmrec.models.recency import HalfLives

if TYPE_CHECKING:
    import torch


Strengths = Sequence[tuple[float, float]]  # w and lambda
_SINGLE = 20_000  # items whose vectors are multiplied in float64, at most
_BLOCK = 4096  # items solved between two calls of progress


def strength_candidates(*strengths: tuple[int, int]) -> tuple[Candidate, ...]:
    """Return pairs of content weight and regularization, for `Recommender.candidates`."""
    return tuple((f"model.content_weight={w}", f"model.regularization={lam}") for w, lam in strengths)


class RidgeConfig(ModelConfig):
    """Settings of the item-graph ridge."""

    kind: Literal["ridge"] = "ridge"
    cooccurrence_support: Count = 100  # K_c, neighbors by Jaccard
    semantic_support: Count = 100  # K_s, neighbors by cosine
    content_weight: Annotated[float, Field(ge=0)] = 20.0  # w
    regularization: Annotated[float, Field(gt=0)] = 50.0  # lambda
    half_lives: HalfLives = (0.0,)  # of a user's items; of several, validation chooses


class ItemGraphRidge(ItemWeightModel):
    """See the module; without item features, neighbors are those by shared users."""

    Config = RidgeConfig
    config: RidgeConfig
    title = "item-graph ridge"
    reads = frozenset({"items"})
    candidates = strength_candidates((20, 50), (20, 100), (40, 100))

    def _fit(self, data: FitData) -> None:
        """Fit W.

        Raises:
            ConfigError: train.device asks for a GPU that is not there.
            KernelError: lambda is too small beside w for float64.
        """
        R, config, progress, blocks = data.user_items, self.config, self.context.progress, self.context.blocks
        device = find_gpu(self.context.train.device, "train.device")
        V = data.items_or_zeros()
        progress("search neighbors", 0, 1)
        widths = config.cooccurrence_support, config.semantic_support
        support = ridge_support(V, R, *widths, device, blocks, self.context.wide)
        progress("search neighbors", 1, 1)
        strengths = [(config.content_weight, config.regularization)]
        (W,) = ridge_weights(V, R, support, strengths, device, progress, blocks)
        self.choose_rows(data, W, self.config.half_lives)


def ridge_weights(
    vectors: Vectors,
    user_items: CSR,
    support: CSR,
    strengths: Strengths,
    device: torch.device | None = None,
    progress: Progress = silent,
    blocks: Blocks | None = None,
) -> list[CSR]:
    """Return W for each (w, lambda), all on the same support.

    Args:
        vectors: V, float32 [I, d].
        user_items: R, binary [U, I].
        support: binary [I, I]; row j is S_j.
        strengths: w and lambda.
        device: where the regressions are solved; None: on the CPU.
        progress: called after each block of items.
        blocks: workers that solve instead, on their processors.
    """
    solved = solve_ridges([vectors], user_items, support, strengths, device, progress, blocks)
    return list(map(OwnedItems(support), solved[0]))


class OwnedItems:
    """Turns weights on a support into W [I, I], whose row i is what owning item i adds.

    Where the values of an item's regression lie in W is found once, and all W share their columns.

    Args:
        support: binary [I, I]; row j is S_j.
    """

    def __init__(self, support: CSR) -> None:
        places = np.arange(support.nnz, dtype=np.int32 if support.nnz < 2**31 else np.int64)
        turned = sp.csr_array((places, support.indices, support.indptr), shape=support.shape).T.tocsr()
        self._pattern = CSR.from_scipy(turned, binary=True)
        self._places: NDArray[np.integer] = turned.data

    def __call__(self, values: NDArray[np.float32]) -> CSR:
        """Return W of values in the order of the support's entries."""
        pattern = self._pattern
        return CSR(pattern.indptr, pattern.indices, values[self._places], pattern.n_columns)


def solve_ridges(
    tables: Sequence[Vectors],
    user_items: CSR,
    support: CSR,
    strengths: Strengths,
    device: torch.device | None = None,
    progress: Progress = silent,
    blocks: Blocks | None = None,
) -> NDArray[np.float32]:
    """Return the weights on several tables of vectors, float32 [tables, strengths, support.nnz].

    Args:
        tables: V of each, float32 [I, d].
        user_items: R, binary [U, I].
        support: binary [I, I]; row j is S_j.
        strengths: w and lambda.
        device: where the regressions are solved; None: on the CPU.
        progress: called after each block of items.
        blocks: workers that solve instead, on their processors.
    """
    n = support.n_rows
    label = "fit ridge" if len(tables) == 1 else f"fit ridges on {len(tables)} tables"
    if blocks and n:
        return _in_blocks(tables, user_items, support, strengths, label, blocks)
    systems = RidgeSystems(user_items, _on_device(tables, device), support, single=_is_large(support))
    values = np.empty((len(tables), len(strengths), support.nnz), np.float32)
    progress(label, 0, n)
    for start in range(0, n, _BLOCK):
        stop = min(start + _BLOCK, n)
        values[:, :, support.indptr[start] : support.indptr[stop]] = systems.solve(strengths, start, stop)
        progress(label, stop, n)
    return values


def _is_large(support: CSR) -> bool:
    """Tell whether there are so many items that vectors are multiplied in float32."""
    return support.n_rows > _SINGLE


def _on_device(tables: Sequence[Vectors], device: torch.device | None) -> Sequence[Any]:
    """Return tables as the kernel takes them: on the CPU as they are, without loading torch."""
    if device is None or device.type == "cpu":
        return tables
    import torch

    return [torch.from_numpy(V).to(device) for V in tables]


def _in_blocks(
    tables: Sequence[Vectors], user_items: CSR, support: CSR, strengths: Strengths, label: str, blocks: Blocks
) -> NDArray[np.float32]:
    """Return the weights; see solve_ridges.

    Args:
        tables: V of each, float32 [I, d].
        user_items: R, binary [U, I].
        support: binary [I, I].
        strengths: w and lambda.
        label: name of the work to `progress`.
        blocks: workers that solve.
    """
    shared: dict[str, Table] = {f"vectors {n}": V for n, V in enumerate(tables)}
    shared["item_users"] = user_items.transpose()
    settings = {"strengths": [list(pair) for pair in strengths], "tables": len(tables), "single": _is_large(support)}
    size = rows_a_block(support.n_rows, _BLOCK)
    solved = blocks.run(Work(ridge_block, label, support.n_rows, size, {"support": support}, shared, settings))
    values = [solved[str(n)] for n in range(len(tables) * len(strengths))]
    return np.stack(values).reshape(len(tables), len(strengths), support.nnz)


def ridge_block(block: Block) -> Arrays:
    """Return the weights of the block's items for each table and strength, in the order of their support's entries."""
    rows, strengths = block.matrix("support"), block.settings["strengths"]
    before, after = np.zeros(block.start, np.int64), np.full(rows.n_columns - block.stop, rows.nnz, np.int64)
    support = CSR(np.concatenate([before, rows.indptr, after]), rows.indices, None, rows.n_columns)
    tables = [block.array(f"vectors {n}") for n in range(block.settings["tables"])]
    single = block.settings["single"]
    systems = RidgeSystems(block.matrix("item_users"), tables, support, by_item=True, single=single)
    solved = systems.solve(strengths, block.start, block.stop)
    return {str(n): values for n, values in enumerate(solved.reshape(-1, rows.nnz))}


def ridge_support(
    vectors: Vectors,
    user_items: CSR,
    cooccurrence: int,
    semantic: int,
    device: torch.device | None = None,
    blocks: Blocks | None = None,
    wide: WideLists | None = None,
) -> CSR:
    """Return the items that each item is regressed on, binary [I, I]; row j is S_j.

    Args:
        vectors: V, float32 [I, d].
        user_items: R, binary [U, I].
        cooccurrence: K_c; 0: none.
        semantic: K_s; 0: none.
        device: where neighbors are searched; None: on the CPU.
        blocks: workers that search instead.
        wide: lists that a graph has searched as well.
    """
    return join_lists(neighbor_lists(vectors, user_items, cooccurrence, semantic, device, blocks, wide), len(vectors))


def neighbor_lists(
    vectors: Vectors,
    user_items: CSR,
    cooccurrence: int,
    semantic: int,
    device: torch.device | None = None,
    blocks: Blocks | None = None,
    wide: WideLists | None = None,
) -> list[NDArray[np.int32]]:
    """Return the lists of each kind of neighbor, int32 [I, K], nearest first, padded with -1.

    Args:
        vectors: V, float32 [I, d].
        user_items: R, binary [U, I].
        cooccurrence: K_c; 0: no such list.
        semantic: K_s; 0: no such list.
        device: where neighbors are searched; None: on the CPU.
        blocks: workers that search instead.
        wide: lists that a graph has searched as well.
    """
    given = (wide.of_users, wide.of_vectors) if wide is not None else (neighbors.by_users, neighbors.by_vectors)
    search_users, search_vectors = (partial(search, blocks=blocks) for search in given)
    lists = []
    if cooccurrence:
        lists.append(search_users(user_items, cooccurrence, device)[0])
    if semantic:
        lists.append(search_vectors(vectors, semantic, device)[0])
    return lists


def join_lists(lists: Sequence[NDArray[np.int32]], n_items: int) -> CSR:
    """Return what is on any list of a row, binary [B, I].

    Args:
        lists: int32 [B, K] each, padded with -1; of none, every item has an empty row.
        n_items: I.
    """
    indptr, indices, n_rows = [np.zeros(1, np.int64)], [np.empty(0, np.int32)], len(lists[0]) if lists else n_items
    for start in range(0, n_rows if lists else 0, _BLOCK):
        ids = np.concatenate([of_kind[start : start + _BLOCK] for of_kind in lists], axis=1)
        ids.sort(axis=1)
        first = ids >= 0
        first[:, 1:] &= ids[:, 1:] != ids[:, :-1]
        indptr.append(np.cumsum(first.sum(axis=1)) + indptr[-1][-1])
        indices.append(ids[first])
    if not lists:
        indptr.append(np.zeros(n_items, np.int64))
    return CSR(np.concatenate(indptr), np.concatenate(indices), None, n_items)

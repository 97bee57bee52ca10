"""Ranks and lists on the GPU: the same scorers, with kernels that compute there.

The kernels define a score to the bit, so a GPU gives the lists, and the ranks up to a limit, that the CPU gives. A
scorer that is none of those below computes on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
from mllmrec_kernels import CSR, available
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.config import TrainConfig
from mllmrec.evaluation.groups import FittedRanker, ItemRanker, Ranker
from mllmrec.foundation.environment import find_gpu
from mllmrec.foundation.progress import Progress, silent
from mllmrec.models.base import Recommender
from mllmrec.models.baselines import UntrainedContent
from mllmrec.models.scorer_model import ScorerModel
from mllmrec.models.scoring import USERS, Lists, VectorScorer
from mllmrec.models.user_blocks import RankedPart, in_blocks, part_in_blocks
from mllmrec.models.weight_scorers import StandardizedScorer, SumScorer, WeightsScorer

if TYPE_CHECKING:
    import torch

PAYS = 20_000  # at least so many items are worth a GPU's start: Triton compiles for some seconds
NARROW = 8  # vectors of fewer columns stay on the CPU: items of one score, as by popularity, overflow a GPU's lists
P = TypeVar("P")
_OnGpu: TypeAlias = VectorScorer | UntrainedContent | WeightsScorer | StandardizedScorer | SumScorer


def gpu_of(config: TrainConfig) -> torch.device | None:
    """Return the GPU that ranks and lists, or None; the result is the CPU's, so train.device=cuda may miss one."""
    return find_gpu("cpu" if config.device == "cpu" else "auto", "train.device")


def on_gpu(part: P, device: torch.device | None) -> P:
    """Return a scorer whose kernels compute on the current GPU; as it is where that does not pay.

    It does not for the CPU, few items, narrow vectors, or another scorer.

    Args:
        part: a scorer.
        device: the GPU; None: the CPU.
    """
    scorer: Any = part
    if device is None or not isinstance(scorer, _OnGpu):
        return part
    is_narrow = isinstance(scorer, VectorScorer) and scorer.items.shape[1] < NARROW
    if is_narrow or _n_items(scorer) < PAYS or not available()["triton"]:
        return part
    there: Any = replace(scorer, backend="triton")
    return cast("P", there)


def place_part(part: RankedPart, device: torch.device | None, blocks: Blocks | None) -> RankedPart:
    """Return a part as workers rank and list by it, or a GPU, or this process.

    Args:
        part: of a model.
        device: the GPU; None: the CPU.
        blocks: workers, on their processors; None: there are none.
    """
    return part_in_blocks(part, blocks) if blocks else on_gpu(part, device)


def _n_items(scorer: _OnGpu) -> int:
    if isinstance(scorer, VectorScorer | UntrainedContent):
        return len(scorer.items)
    weights = scorer.weights
    return int((weights.weights if isinstance(weights, WeightsScorer) else weights).shape[1])


@dataclass(frozen=True, slots=True)
class GpuRanker:
    """Ranks by a model whose scorer computes on the GPU.

    Attributes:
        model: a fitted model, or a scorer.
        device: the GPU.
    """

    model: Ranker
    device: torch.device

    def ranks(
        self, exclude: CSR, heldout: CSR, *, limit: int | None = None, progress: Progress = silent
    ) -> NDArray[np.int32]:
        """Return the rank of each held-out item; see Recommender.ranks.

        Args:
            exclude: [U, I], items that are not ranked.
            heldout: [U, I], items to rank.
            limit: ranks of `limit` or more may come out as any number from `limit` on.
            progress: called after each block of users.
        """
        scorer = self.model.scorer if isinstance(self.model, ScorerModel) else self.model
        ranker: Ranker = on_gpu(scorer, self.device)
        if ranker is scorer:  # a model may rank in its own way
            ranker = self.model
        return ranker.ranks(exclude, heldout, limit=limit, progress=progress)

    def among(self, items: NDArray[np.int64]) -> ItemRanker:
        """Return the ranker of only some items; see Recommender.among."""
        return self.model.among(items)

    def release(self) -> None:
        """Drop what ranks derived from the fitted arrays; see FittedRanker."""
        if isinstance(self.model, FittedRanker):
            self.model.release()


def rankers(models: Mapping[str, Ranker], device: torch.device | None, blocks: Blocks | None) -> Mapping[str, Ranker]:
    """Return models as they rank in blocks, or on a GPU; as they are if there is neither.

    Args:
        models: by name.
        device: the GPU; None: the CPU.
        blocks: workers, on their processors; None: there are none.
    """
    if blocks:
        return in_blocks(models, blocks)
    return models if device is None else {name: GpuRanker(model, device) for name, model in models.items()}


def _lister(model: Recommender, device: torch.device | None) -> Callable[[NDArray[np.int64], int, CSR], Lists]:
    """Return what lists the k best items of users [B] but their rows of a matrix [B, I]; see Recommender.recommend.

    Args:
        model: a fitted model.
        device: the GPU that lists; None: the CPU does.
    """
    if device is not None and isinstance(model, ScorerModel):
        scorer = on_gpu(model.scorer, device)
        if scorer is not model.scorer:
            return scorer.top
    return lambda users, k, exclude: model.recommend(users, k, exclude=exclude)


def list_users(
    model: Recommender,
    users: NDArray[np.int64],
    k: int,
    known: CSR,
    device: torch.device | None,
    progress: Progress = silent,
) -> Lists:
    """Return the top-k of each user, a block of users at a time.

    Args:
        model: a fitted model.
        users: int64 [B].
        k: items per user.
        known: [B, I], items not to list.
        device: the GPU that lists; None: the CPU does.
        progress: called after each block of users.
    """
    top = _lister(model, device)
    ids, scores = np.full((len(users), k), -1, np.int32), np.full((len(users), k), -np.inf, np.float32)
    progress("recommend to users", 0, len(users))
    for start in range(0, len(users), USERS):
        rows = np.arange(start, min(start + USERS, len(users)))
        ids[rows], scores[rows] = top(users[rows], k, known.take_rows(rows))
        progress("recommend to users", int(rows[-1]) + 1, len(users))
    return ids, scores

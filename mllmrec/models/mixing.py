"""How much each part of a mixture counts: weights that validation chooses.

Parts are put on one scale for each user (the spread of their scores over the catalogue is 1), so that a weight
can be a constant. The first part weighs 1. The others start at 0 and are searched one after another over a small
grid, twice, for the highest NDCG@20 of the validation items; of equal weights the lower one stays.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from torch import Tensor

from mllmrec import metrics
from mllmrec.models.scorer import BlockScorer, Scorer, VectorScorer, block_rows

CUTOFF = 20
GRID = (0.0, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6)
_SWEEPS = 2
_SEARCH_BYTES = 1 << 30  # of the scores that the search holds; where all users do not fit, users are sampled evenly
_COMPARED = 1 << 24  # scores compared at once


def validation_ndcg(model: Scorer, train: CSR, valid: CSR) -> float:
    """NDCG@20 of a model, averaged over the users with validation and training items."""
    return _mean(model.ranks(train, valid), train, valid)


def standardised(part: VectorScorer) -> VectorScorer:
    """The part with each user's vector over the spread of their scores.

    The spread over the catalogue is that of an inner product, sqrt(p^T Cov(items) p), in float64. The scores'
    mean is the same for all items of a user and left in. A user whose scores are all equal gets zeros.
    """
    items = part.items.astype(np.float64)
    items -= items.mean(axis=0)
    covariance = items.T @ items / max(1, len(items))
    users = part.users.astype(np.float64)
    variance = np.maximum(((users @ covariance) * users).sum(axis=1, keepdims=True), 0)
    # below what the float32 tables themselves can tell, a spread is rounding
    flat = variance <= 1e-12 * (users**2).sum(axis=1, keepdims=True) * np.trace(covariance)
    scaled = np.divide(users, np.sqrt(variance), out=np.zeros_like(users), where=~flat)
    return VectorScorer(scaled.astype(np.float32), part.items)


def choose_weights(parts: Sequence[BlockScorer], train: CSR, valid: CSR) -> tuple[float, ...]:
    """The weight of each part, 1 for the first.

    Args:
        parts: standardised.
        train: [U, I] items that are not ranked.
        valid: [U, I] items to rank high.
    """
    users = _sample(train, valid, len(parts))
    held = valid.take_rows(users)
    scores = [_scores(part, users, train.n_columns) for part in parts]
    for row, user in enumerate(users):
        scores[0][row, train.row(int(user))] = -torch.inf
    weights, total = [1.0, *(0.0 for _ in parts[1:])], scores[0].clone()
    for _ in range(_SWEEPS):
        for k in range(1, len(parts)):
            total -= weights[k] * scores[k]
            reached = [_reached(total + weight * scores[k], held) for weight in GRID]
            weights[k] = GRID[int(np.argmax(reached))]
            total += weights[k] * scores[k]
    return tuple(weights)


def _sample(train: CSR, valid: CSR, parts: int) -> NDArray[np.int64]:
    """Users to search on, spread evenly over those with validation and training items."""
    judged = np.flatnonzero((np.diff(valid.indptr) > 0) & (np.diff(train.indptr) > 0))
    most = max(1, _SEARCH_BYTES // (4 * (parts + 2) * max(1, train.n_columns)))
    if len(judged) <= most:
        return judged
    return judged[np.linspace(0, len(judged) - 1, most).astype(np.int64)]


def _scores(part: BlockScorer, users: NDArray[np.int64], n_items: int) -> Tensor:
    """The part's scores of the named users, float32 [B, I]."""
    scores = np.empty((len(users), n_items), np.float32)
    for start in range(0, len(users), step := block_rows(n_items)):
        named = users[start : start + step]
        first, last = int(named[0]), int(named[-1])
        if last - first < 2 * len(named):
            scores[start : start + step] = part.scores(first, last + 1)[named - first]
        else:  # far apart: most of a block would be thrown away
            scores[start : start + step] = np.concatenate([part.scores(int(u), int(u) + 1) for u in named])
    return torch.from_numpy(scores)


def _reached(scores: Tensor, held: CSR) -> float:
    """NDCG@20 of the held-out items in dense scores [B, I]; of equal scores a held-out item's ranks last."""
    rows, items = torch.from_numpy(held.rows()), torch.from_numpy(held.indices.astype(np.int64))
    own = scores[rows, items]
    step = max(1, _COMPARED // max(1, scores.shape[1]))
    ranks = torch.empty(len(rows), dtype=torch.int64)
    for start in range(0, len(rows), step):
        at = slice(start, start + step)
        ranks[at] = (scores[rows[at]] >= own[at, None]).sum(dim=1) - 1
    values = metrics.per_user(ranks.numpy(), held.indptr, (CUTOFF,))
    return metrics.mean(values)[f"ndcg@{CUTOFF}"]


def _mean(ranks: NDArray[np.int32], train: CSR, valid: CSR) -> float:
    values = metrics.per_user(ranks, valid.indptr, (CUTOFF,))[f"ndcg@{CUTOFF}"]
    values = np.where(np.diff(train.indptr) > 0, values, np.nan)
    return metrics.mean({"ndcg": values})["ndcg"]

"""What a trained model or a baseline is to the evaluation: something that scores every item for a user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from mllmrec_kernels import CSR, rank_heldout
from numpy.typing import NDArray

_BLOCK_BYTES = 64 << 20  # of a block of scores, where a model has no vectors


class Scorer(Protocol):
    """A model that can be judged by full ranking."""

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """0-based rank of each held-out item among the user's items that are not excluded.

        Ties go to the lower item index.

        Args:
            exclude: [U, I] items that a user cannot be shown; disjoint from `heldout`.
            heldout: [U, I] items to rank; ranks come in its order, int32 [heldout.nnz].
        """
        ...


@dataclass(frozen=True, slots=True)
class VectorScorer:
    """Scores that are inner products.

    Attributes:
        users: float32 [U, d].
        items: float32 [I, d].
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]

    def ranks(self, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
        """See Scorer."""
        ranks: NDArray[np.int32] = rank_heldout(self.users, self.items, exclude, heldout)
        return ranks


class BlockScorer(Protocol):
    """A model that has no vectors, but scores a block of users at once."""

    def scores(self, start: int, stop: int) -> NDArray[np.float32]:
        """Scores of users start..stop-1 for every item, float32 [stop - start, I]."""
        ...


def ranks_by_block(model: BlockScorer, exclude: CSR, heldout: CSR) -> NDArray[np.int32]:
    """The ranks of a model without vectors, a block of users at a time."""
    block = max(1, _BLOCK_BYTES // (4 * max(1, heldout.n_columns)))
    ranks = np.empty(heldout.nnz, dtype=np.int32)
    for start in range(0, heldout.n_rows, block):
        stop = min(start + block, heldout.n_rows)
        scores = model.scores(start, stop)
        for user in range(start, stop):
            row = scores[user - start]
            row[exclude.row(user)] = -np.inf
            at = slice(int(heldout.indptr[user]), int(heldout.indptr[user + 1]))
            ranks[at] = [_rank(row, item) for item in heldout.indices[at]]
    return ranks


def _rank(scores: NDArray[np.float32], item: int) -> int:
    return int((scores > scores[item]).sum() + (scores[:item] == scores[item]).sum())

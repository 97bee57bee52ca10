"""The contract of rank_heldout: score every pair, count.

rank(u, h) = #{ i not excluded : s(u, i) > s(u, h)  or  s(u, i) = s(u, h) and i < h }
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.exact.score import dot_reference


def rank_heldout(
    user_vectors: NDArray[np.float32], item_vectors: NDArray[np.float32], exclude: CSR, heldout: CSR
) -> NDArray[np.int32]:
    """Return the 0-based rank of each held-out item, int32 [heldout.nnz].

    Args:
        user_vectors: float32 [U, d].
        item_vectors: float32 [I, d].
        exclude: [U, I], items that are not candidates.
        heldout: [U, I], items to rank.
    """
    scores = dot_reference(user_vectors, item_vectors).astype(np.float32)  # [U, I]
    ids = np.arange(len(item_vectors))
    ranks = []
    for u in range(heldout.n_rows):
        allowed = np.ones(len(ids), dtype=bool)
        allowed[exclude.row(u)] = False
        for h in heldout.row(u):
            ahead = (scores[u] > scores[u, h]) | ((scores[u] == scores[u, h]) & (ids < h))
            ranks.append(np.count_nonzero(ahead & allowed))
    return np.array(ranks, dtype=np.int32)

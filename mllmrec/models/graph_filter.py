"""A low-pass filter of the user-item graph: the smoothest part of what a user bought, spread over all items.

With R~ = D_U^-1/2 R D_I^-1/2 and V its leading right singular vectors (Shen et al., How Powerful is Graph
Convolution for Recommendation?, CIKM 2021, the ideal low-pass filter):

    f_u = R_u D_I^-1/2 V V^T D_I^1/2                         [I]

which is an inner product of R_u D_I^-1/2 V and D_I^1/2 V, rank numbers a user and an item.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from mllmrec.models.scorer import VectorScorer


def low_pass(user_items: CSR, rank: int) -> VectorScorer:
    """The filter of `user_items`, binary [U, I]; columns in falling order of their singular values.

    The rank is lowered to what the matrix can have, a column of zeros where that is none. The start vector is
    fixed, so the same interactions give the same filter.
    """
    R = user_items.to_scipy().astype(np.float64)
    scaled, by_item = normalised(R)
    rank = min(rank, min(R.shape) - 1)
    if rank < 1:
        return VectorScorer(np.zeros((R.shape[0], 1), np.float32), np.zeros((R.shape[1], 1), np.float32))
    _, values, basis = svds(scaled, k=rank, v0=np.ones(min(R.shape)), return_singular_vectors="vh")
    V = basis[np.argsort(-values, kind="stable")].T  # [I, rank]
    users = np.ascontiguousarray(R @ (V / by_item[:, None] ** 0.5), np.float32)
    return VectorScorer(users, np.ascontiguousarray(V * by_item[:, None] ** 0.5, np.float32))


def normalised(R: sp.csr_array) -> tuple[sp.csr_array, NDArray[np.floating]]:
    """R~ = D_U^-1/2 R D_I^-1/2 of a binary R [U, I], and D_I [I]; 1 stands for the degree of who has none."""
    by_user, by_item = (np.maximum(np.asarray(R.sum(axis=axis)).ravel(), 1) for axis in (1, 0))
    return (sp.diags_array(by_user**-0.5) @ R @ sp.diags_array(by_item**-0.5)).tocsr(), by_item


def narrowed(filtered: VectorScorer, rank: int) -> VectorScorer:
    """The filter of a lower rank."""
    users, items = (np.ascontiguousarray(side[:, :rank]) for side in (filtered.users, filtered.items))
    return VectorScorer(users, items)

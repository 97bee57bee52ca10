"""GF-CF's linear filter: a low-pass filter of the user-item graph.

Shen et al., How Powerful is Graph Convolution for Recommendation?, CIKM 2021, the ideal low-pass filter. With
R~ = D_U^-1/2 R D_I^-1/2 and V [I, r] its leading right singular vectors,

    score_u = R_u D_I^-1/2 V V^T D_I^1/2,

the inner product of R_u D_I^-1/2 V and D_I^1/2 V: r numbers per user and per item.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray
from scipy.sparse.linalg import svds

from mllmrec.models.scoring import VectorScorer


def graph_filter(user_items: CSR, factors: int) -> VectorScorer:
    """Return the filter of an interaction matrix; columns in falling order of their singular values.

    The start vector is fixed, and empty rows and columns are left out of the decomposition: where the matrix has fewer
    dimensions than factors, ARPACK goes on from random vectors. So the same interactions give the same filter.

    Args:
        user_items: R, binary [U, I].
        factors: r; lowered to what the matrix can have, a column of zeros where that is none.
    """
    R = user_items.to_scipy().astype(np.float64)
    scaled, by_item = normalize_bipartite(R)
    bought = np.diff(scaled.tocsc().indptr) > 0
    filled = scaled[np.diff(scaled.indptr) > 0][:, bought]
    factors = min(factors, min(filled.shape) - 1)
    if factors < 1:
        return VectorScorer(np.zeros((R.shape[0], 1), np.float32), np.zeros((R.shape[1], 1), np.float32))
    _, values, basis = svds(filled, k=factors, v0=np.ones(min(filled.shape)), return_singular_vectors="vh")
    V = np.zeros((R.shape[1], factors))
    V[bought] = basis[np.argsort(-values, kind="stable")].T
    users = np.ascontiguousarray(R @ (V / by_item[:, None] ** 0.5), np.float32)
    return VectorScorer(users, np.ascontiguousarray(V * by_item[:, None] ** 0.5, np.float32))


def normalize_bipartite(R: sp.csr_array) -> tuple[sp.csr_array, NDArray[np.floating]]:
    """Return R~ = D_U^-1/2 R D_I^-1/2 of a binary R [U, I], and D_I [I]; a degree of 0 counts as 1."""
    by_user, by_item = (np.maximum(np.asarray(R.sum(axis=axis)).ravel(), 1) for axis in (1, 0))
    return (sp.diags_array(by_user**-0.5) @ R @ sp.diags_array(by_item**-0.5)).tocsr(), by_item


def narrow(filtered: VectorScorer, factors: int) -> VectorScorer:
    """Return the filter with fewer factors."""
    users, items = (np.ascontiguousarray(side[:, :factors]) for side in (filtered.users, filtered.items))
    return VectorScorer(users, items)

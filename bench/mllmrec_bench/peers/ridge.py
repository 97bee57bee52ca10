"""ridge_weights beside NumPy and scipy: the Gram matrix made once, a system solved for each item."""

from __future__ import annotations

from collections.abc import Callable

import mllmrec_kernels as kernels
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec_bench.peers.case import Case, Peer, scipy_peer, sizes

_WEIGHT, _REGULARISATION = 20.0, 50.0  # the defaults of the models
_DENSE_BYTES = 2**30
_BATCH = 512


def ridge_weights(user_items: CSR, vectors: Vectors, support: CSR, *, data: str, alone: bool = False) -> Case:
    """Each item regressed on its neighbours.

    Args:
        user_items: binary [U, I].
        vectors: float32 [I, d].
        support: [I, I], the neighbours of each item, none its own.
        data: what they are, for the case's name.
        alone: without peers, which would take minutes over many items.
    """
    users, items = user_items.shape
    named = sizes(U=users, I=items, nnz=user_items.nnz, d=vectors.shape[1], neighbours=support.nnz)
    return Case(
        "ridge_weights",
        f"{data} {named}",
        lambda: kernels.ridge_weights(
            user_items, vectors, support, content_weight=_WEIGHT, regularization=_REGULARISATION
        ),
        () if alone else _peers(user_items, vectors, support),
    )


def _peers(user_items: CSR, vectors: Vectors, support: CSR) -> tuple[Peer, ...]:
    peers = [scipy_peer("scipy R.T @ R, numpy solve a row", lambda: _by_row(user_items, vectors, support))]
    if 8 * user_items.n_columns**2 <= _DENSE_BYTES:  # beyond that it is no way to do it
        peers.append(scipy_peer("NumPy, dense G, solve in batches", lambda: _dense(user_items, vectors, support)))
    return tuple(peers)


def _by_row(user_items: CSR, vectors: Vectors, support: CSR) -> Callable[[], NDArray[np.float32]]:
    matrix = sp.csr_array(user_items.to_scipy())

    def run() -> NDArray[np.float32]:
        shared = (matrix.T @ matrix).tocsr()
        weights = np.empty(support.nnz, np.float32)
        for item in range(support.n_rows):
            near = support.row(item)
            rows = np.append(near, item)
            own = vectors[rows].astype(np.float64)
            G = shared[rows][:, rows].toarray() + _WEIGHT * (own @ own.T)
            system = G[:-1, :-1] + _REGULARISATION * np.eye(len(near))
            weights[support.indptr[item] : support.indptr[item + 1]] = np.linalg.solve(system, G[:-1, -1])
        return weights

    return run


def _dense(user_items: CSR, vectors: Vectors, support: CSR) -> Callable[[], NDArray[np.float32]]:
    matrix = sp.csr_array(user_items.to_scipy().astype(np.float64))
    lengths = np.diff(support.indptr)

    def run() -> NDArray[np.float32]:
        G = (matrix.T @ matrix).toarray()
        wide = vectors.astype(np.float64)
        G += _WEIGHT * (wide @ wide.T)
        weights = np.empty(support.nnz, np.float32)
        for length in np.unique(lengths):  # NumPy stacks systems of one size
            alike = np.flatnonzero(lengths == length)
            for items in np.split(alike, range(_BATCH, len(alike), _BATCH)):
                entries = support.indptr[items, None] + np.arange(length)
                near = support.indices[entries]  # [b, length]
                systems = G[near[:, :, None], near[:, None, :]] + _REGULARISATION * np.eye(length)
                weights[entries] = np.linalg.solve(systems, G[near, items[:, None]][:, :, None])[:, :, 0]
        return weights

    return run

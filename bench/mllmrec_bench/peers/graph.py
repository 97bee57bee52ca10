"""propagate and ridge_weights beside torch's and scipy's CSR products and NumPy's solver."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mllmrec_kernels as kernels
import numpy as np
import scipy.sparse as sp
from mllmrec_kernels import CSR
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors
from mllmrec_bench.peers.case import Case, Peer, sizes


def one_layer(graph: CSR, features: Vectors, *, data: str) -> Case:
    """Compare A E: one product.

    Args:
        graph: normalized, float32 [N, N].
        features: float32 [N, d].
        data: their name, for the case.
    """
    return Case(
        "propagate",
        f"{_name(graph, features, data)} one layer",
        lambda: kernels.propagate(graph, features, layers=1, combine="last"),
        (
            Peer("torch CSR int32", "torch", lambda: _torch_layer(graph, features)),
            Peer("scipy CSR", "scipy", lambda: _scipy_layer(graph, features)),
        ),
    )


def propagate(graph: CSR, features: Vectors, *, data: str) -> Case:
    """Compare the normalization of A, then E + A E + A A E.

    Args:
        graph: float32 [N, N], not normalized.
        features: float32 [N, d].
        data: their name, for the case.
    """
    return Case(
        "propagate",
        f"{_name(graph, features, data)} normalise, 2 layers, sum",
        lambda: kernels.propagate(kernels.normalize(graph), features, layers=2),
        (
            Peer("torch CSR int32", "torch", lambda: _torch_all(graph, features)),
            Peer("scipy CSR", "scipy", lambda: _scipy_all(graph, features)),
        ),
    )


def with_gradient(graph: CSR, features: Vectors, *, data: str) -> Case:
    """Compare E + A E + A A E and the gradient of its squares' sum with respect to E, on a normalized graph.

    The torch peer multiplies by a transpose that was made beforehand, as it stands ready in mllmrec too.

    Args:
        graph: normalized, float32 [N, N].
        features: float32 [N, d].
        data: their name, for the case.
    """
    import torch

    leaf = torch.from_numpy(features).clone().requires_grad_()

    def run() -> Any:
        output = kernels.propagate(graph, leaf, layers=2)
        return torch.autograd.grad(output.square().sum(), leaf)[0]

    return Case(
        "propagate",
        f"{_name(graph, features, data)} 2 layers, sum, with gradient",
        run,
        (Peer("torch CSR int32", "torch", lambda: _torch_gradient(graph, features)),),
    )


def _name(graph: CSR, features: Vectors, data: str) -> str:
    return f"{data} {sizes(N=graph.n_rows, edges=graph.nnz, d=features.shape[1])}"


def _torch_layer(graph: CSR, features: Vectors) -> Callable[[], Any]:
    import torch

    matrix, rows = _torch_csr(graph, torch.from_numpy(graph.values())), torch.from_numpy(features)
    return lambda: matrix @ rows


def _torch_all(graph: CSR, features: Vectors) -> Callable[[], Any]:
    import torch

    rows, weights = torch.from_numpy(features), torch.from_numpy(graph.values())
    counts, columns = torch.from_numpy(np.diff(graph.indptr)), torch.from_numpy(graph.indices)

    def run() -> Any:
        owner = torch.repeat_interleave(torch.arange(graph.n_rows), counts)
        scale = torch.zeros(graph.n_rows).index_add_(0, owner, weights).rsqrt()
        scale[torch.isinf(scale)] = 0
        matrix = _torch_csr(graph, scale[owner] * weights * scale[columns])
        first = matrix @ rows
        return rows + first + matrix @ first

    return run


def _torch_gradient(graph: CSR, features: Vectors) -> Callable[[], Any]:
    import torch

    transposed = graph.transpose()
    forth = _torch_csr(graph, torch.from_numpy(graph.values()))
    back = _torch_csr(transposed, torch.from_numpy(transposed.values()))

    class Product(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, rows: Any) -> Any:
            return forth @ rows

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return back @ grads[0]

    leaf = torch.from_numpy(features).clone().requires_grad_()

    def run() -> Any:
        first = Product.apply(leaf)  # type: ignore[no-untyped-call]
        output = leaf + first + Product.apply(first)  # type: ignore[no-untyped-call]
        return torch.autograd.grad(output.square().sum(), leaf)[0]

    return run


def _torch_csr(graph: CSR, weights: Any) -> Any:
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR is "in beta", and its checks are off: both known
        indptr, columns = torch.from_numpy(graph.indptr.astype(np.int32)), torch.from_numpy(graph.indices)
        return torch.sparse_csr_tensor(indptr, columns, weights, graph.shape, check_invariants=False)


def _scipy_layer(graph: CSR, features: Vectors) -> Callable[[], Any]:
    matrix = _scipy_csr(graph, graph.values())
    return lambda: matrix @ features


def _scipy_all(graph: CSR, features: Vectors) -> Callable[[], Any]:
    matrix = _scipy_csr(graph, graph.values())

    def run() -> Any:
        degrees = np.asarray(matrix.sum(axis=1)).ravel()
        scale = np.divide(1, np.sqrt(degrees), out=np.zeros_like(degrees), where=degrees > 0)
        side = sp.diags_array(scale)
        scaled = side @ matrix @ side
        first = scaled @ features
        return features + first + scaled @ first

    return run


def _scipy_csr(graph: CSR, weights: Any) -> Any:
    return sp.csr_array((weights, graph.indices, graph.indptr.astype(np.int32)), shape=graph.shape)


_WEIGHT, _REGULARIZATION = 20.0, 50.0  # the defaults of the models
_DENSE_BYTES = 2**30
_BATCH = 512


def ridge_weights(user_items: CSR, vectors: Vectors, support: CSR, *, data: str, without_peers: bool = False) -> Case:
    """Compare the regression of each item on its neighbors.

    Args:
        user_items: binary [U, I].
        vectors: float32 [I, d].
        support: [I, I], the neighbors of each item, none its own.
        data: their name, for the case.
        without_peers: leave peers out, which would take minutes over many items.
    """
    users, items = user_items.shape
    named = sizes(U=users, I=items, nnz=user_items.nnz, d=vectors.shape[1], n_neighbors=support.nnz)
    return Case(
        "ridge_weights",
        f"{data} {named}",
        lambda: kernels.ridge_weights(
            user_items, vectors, support, content_weight=_WEIGHT, regularization=_REGULARIZATION
        ),
        () if without_peers else _peers(user_items, vectors, support),
    )


def _peers(user_items: CSR, vectors: Vectors, support: CSR) -> tuple[Peer, ...]:
    peers = [Peer("scipy R.T @ R, numpy solve a row", "scipy", lambda: _by_row(user_items, vectors, support))]
    if 8 * user_items.n_columns**2 <= _DENSE_BYTES:  # beyond that it is no way to do it
        peers.append(Peer("NumPy, dense G, solve in batches", "scipy", lambda: _dense(user_items, vectors, support)))
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
            system = G[:-1, :-1] + _REGULARIZATION * np.eye(len(near))
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
                systems = G[near[:, :, None], near[:, None, :]] + _REGULARIZATION * np.eye(length)
                weights[entries] = np.linalg.solve(systems, G[near, items[:, None]][:, :, None])[:, :, 0]
        return weights

    return run

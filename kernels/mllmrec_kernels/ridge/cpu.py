"""A batch of small ridge regressions in Numba: one item a task, its Gram matrix built and solved in cache.

For the support S of an item j, with k = |S|, one matrix of k + 1 rows is made (the last is j itself):

    shared users   each user who is met keeps a chain of the rows that hold them; a new row walks the chain and adds
                   one to each pair: sum of the items' users + sum over users of c_u² steps, not k² merges
    content        k (k + 1) / 2 products of d columns, four rows at a time so that each load serves four
    a strength     the sum of both, weighted; several strengths share what stands above
    Cholesky       k³ / 6 multiply-adds by rows, which are contiguous; then two triangular solves

Counts are exact integers. Products and solve run in float64, where products of float32 vectors are exact to 1e-15.
The difference to the reference is then the conditioning of the system alone, at most 1 + trace(G) / lambda. Each item
belongs to one thread: the number of threads changes no bit.

Bytes per thread: 3 (k + 1)² 8 + (k + 1) d 8 + 4 U, and 8 for each user of the support's items. Bound by the
products (k² d).
"""

from __future__ import annotations

import numpy as np
from numba import get_num_threads, njit, prange
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.ridge.reference import Strengths, count_members

# Sums may be reordered to fill vector registers; the order is fixed when the code is compiled.
_FAST = {"contract", "reassoc"}


@njit(cache=True, nogil=True)
def _count_shared(
    rows: Int32Array, indptr: Int64Array, users: Int32Array, last: Int32Array, before: Int32Array, owner: Int32Array,
    G: Float64Array,
) -> None:  # fmt: skip
    """Add the number of shared users to each pair of `rows`; `last` holds -1 on entry and on return."""
    n = 0
    for a in range(len(rows)):
        for e in range(indptr[rows[a]], indptr[rows[a] + 1]):
            u = users[e]
            link = last[u]
            before[n], owner[n], last[u] = link, a, n
            G[a, a] += 1
            while link >= 0:
                G[a, owner[link]] += 1
                link = before[link]
            n += 1
    for a in range(len(rows)):
        for e in range(indptr[rows[a]], indptr[rows[a] + 1]):
            last[users[e]] = -1


@njit(cache=True, nogil=True, fastmath=_FAST)
def _products(X: Float64Array, G: Float64Array) -> None:
    """G = X X^T, its lower triangle."""
    d = X.shape[1]
    for a in range(len(X)):
        x = X[a]
        whole = (a + 1) - (a + 1) % 4
        for b in range(0, whole, 4):
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            y0, y1, y2, y3 = X[b], X[b + 1], X[b + 2], X[b + 3]
            for c in range(d):
                s0 += x[c] * y0[c]
                s1 += x[c] * y1[c]
                s2 += x[c] * y2[c]
                s3 += x[c] * y3[c]
            G[a, b] = s0
            G[a, b + 1] = s1
            G[a, b + 2] = s2
            G[a, b + 3] = s3
        for b in range(whole, a + 1):
            s0 = 0.0
            for c in range(d):
                s0 += x[c] * X[b, c]
            G[a, b] = s0


@njit(cache=True, nogil=True, fastmath=_FAST, error_model="numpy")
def _solve(G: Float64Array, k: int, out: Float32Array) -> None:
    """Solve G[:k, :k] b = G[k, :k] by Cholesky in the lower triangle of G, which is overwritten; NaN where it fails.

    Row k is taken through the same elimination as the rows above it, which is the forward solve.
    """
    for a in range(k + 1):
        for b in range(min(a + 1, k)):
            total = G[a, b]
            for c in range(b):
                total -= G[a, c] * G[b, c]
            G[a, b] = np.sqrt(total) if a == b else total / G[b, b]
    for a in range(k - 1, -1, -1):
        value = G[k, a] / G[a, a]
        out[a] = value
        for b in range(a):
            G[k, b] -= G[a, b] * value


@njit(cache=True, nogil=True)
def _system(shared: Float64Array, content: Float64Array, weight: float, regularization: float, G: Float64Array) -> None:
    """G = shared + weight content + regularization I, lower triangles; without the last in row k."""
    k = len(G) - 1
    for a in range(k + 1):
        for b in range(a + 1):
            G[a, b] = shared[a, b] + weight * content[a, b]
    for a in range(k):
        G[a, a] += regularization


@njit(cache=True, nogil=True, parallel=True)
def _all_rows(
    support: Int64Array, columns: Int32Array, indptr: Int64Array, users: Int32Array, vectors: Float32Array,
    strengths: Float64Array, last: Int32Array, longest: int, widest: int, out: Float32Array,
) -> None:  # fmt: skip
    n_threads, any_content = len(last), strengths[:, 0].max() > 0
    for thread in prange(n_threads):
        before, owner = np.empty(longest, np.int32), np.empty(longest, np.int32)
        squares = np.zeros((3, widest + 1, widest + 1), np.float64)
        features = np.empty((widest + 1, vectors.shape[1]), np.float64)
        rows = np.empty(widest + 1, np.int32)
        for j in range(thread, len(support) - 1, n_threads):
            k = support[j + 1] - support[j]
            if k == 0:
                continue
            rows[:k] = columns[support[j] : support[j + 1]]
            rows[k] = j
            shared, content, G = (
                squares[0, : k + 1, : k + 1], squares[1, : k + 1, : k + 1], squares[2, : k + 1, : k + 1],
            )  # fmt: skip
            shared[:] = 0.0
            _count_shared(rows[: k + 1], indptr, users, last[thread], before, owner, shared)
            if any_content:
                X = features[: k + 1]
                for a in range(k + 1):
                    X[a] = vectors[rows[a]]
                _products(X, content)
            for n in range(len(strengths)):
                _system(shared, content, strengths[n, 0], strengths[n, 1], G)
                _solve(G, k, out[n, support[j] : support[j + 1]])


def ridge_weights(
    item_users: CSR, vectors: NDArray[np.float32], support: CSR, strengths: Strengths
) -> NDArray[np.float32]:
    """Return the weights in the order of `support`'s entries, float32 [len(strengths), support.nnz].

    Args:
        item_users: R^T, [I, U], the pattern.
        vectors: V, float32 [I, d].
        support: [I, I], the pattern.
        strengths: pairs (w, lambda).
    """
    longest = int(count_members(np.diff(item_users.indptr), support).max(initial=0))
    widest = int(np.diff(support.indptr).max(initial=0))
    last = np.full((get_num_threads(), item_users.n_columns), -1, np.int32)
    out = np.empty((len(strengths), support.nnz), np.float32)
    _all_rows(
        support.indptr, support.indices, item_users.indptr, item_users.indices, vectors,
        np.array(strengths, np.float64), last, longest, widest, out,
    )  # fmt: skip
    return out

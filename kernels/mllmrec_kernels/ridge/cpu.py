"""A batch of small ridge regressions on the CPU: one item after the other on each thread, its Gram matrix in cache.

For the support S of an item j, with k = |S|, one matrix of k + 1 rows is made (the last is j itself):

    shared users   each user who is met keeps a chain of the rows that hold them; a new row walks the chain and adds
                   one to each pair: sum of the items' users + sum over users of c_u² steps, not k² merges
    content        X X^T of k + 1 rows and d columns, by NumPy's BLAS, once for all strengths
    a strength     the sum of both, weighted
    Cholesky       by LAPACK, in place; row k of the factor is the forward solve, one triangle is left

Counts are exact integers. Products and solve run in float64, where products of float32 vectors are exact to 1e-15; in
float32, on demand, products take 0.6 of the time and are off by some 1e-7.
The difference to the reference is then only the conditioning of the system, at most 1 + trace(G) / lambda. Each item
belongs to one thread, and BLAS runs on one thread in each: the number of threads changes no bit.

At 200 neighbors and 384 columns, BLAS takes 0.33 ms for the products, 0.19 in float32, and a strength 0.13; loops in
Numba took 0.68 and 0.26 ms (one thread of an AMD EPYC, beside other work).

Bytes per thread: 3 (k + 1)² 8 + (k + 1) d 12 + 4 U, and 8 for each user of the support's items.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

from mllmrec_kernels.base.arrays import Float32Array, Float64Array, Int32Array, Int64Array
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.parallel import chunks, parallel_for
from mllmrec_kernels.ridge.reference import Strengths, count_members

Products: TypeAlias = NDArray[np.floating[Any]]
_ITEMS = 64  # of one piece of work
_FLOAT64, _UPPER = ord("d"), ord("U")
_cholesky: Any = (
    types.ExternalFunction(  # LAPACK's potrf by Numba's name: kind, triangle, n, matrix, its leading dimension
        "numba_xxpotrf", types.intc(types.char, types.char, types.intp, types.CPointer(types.float64), types.intp)
    )
)


class _Room(NamedTuple):
    """Working memory of a thread.

    Attributes:
        last: int32 [U], -1 between items.
        before, owner: int32 [users of the longest support], the chains.
    """

    last: Int32Array
    before: Int32Array
    owner: Int32Array


def ridge_weights(
    item_users: CSR,
    tables: Sequence[NDArray[np.float32]],
    support: CSR,
    strengths: Strengths,
    start: int,
    stop: int,
    *,
    single: bool = False,
) -> NDArray[np.float32]:
    """Return the weights of some items, in the order of their entries of `support`.

    Args:
        item_users: R^T, [I, U], the pattern.
        tables: V of each, float32 [I, d].
        support: [I, I], the pattern.
        strengths: pairs (w, lambda).
        start: the first item.
        stop: the item after the last.
        single: multiply vectors in float32.

    Returns:
        float32 [tables, strengths, entries].
    """
    scales = np.array(strengths, np.float64)
    before = int(support.indptr[start])
    longest = int(count_members(np.diff(item_users.indptr), support, start, stop).max(initial=0))
    out = np.empty((len(tables), len(strengths), int(support.indptr[stop]) - before), np.float32)
    reads_content = scales[:, 0].any()

    def _work(first_item: int, end: int) -> None:
        chain = np.empty(longest, np.int32), np.empty(longest, np.int32)
        room = _Room(np.full(item_users.n_columns, -1, np.int32), *chain)
        for j in range(start + first_item, start + end):
            first, last = int(support.indptr[j]), int(support.indptr[j + 1])
            if first == last:
                continue
            rows = np.append(support.indices[first:last], np.int32(j))
            shared = np.zeros((len(rows), len(rows)))
            _count_shared(rows, item_users.indptr, item_users.indices, room.last, room.before, room.owner, shared)
            for vectors, weights in zip(tables, out, strict=True):
                X = np.take(vectors if reads_content else vectors[:, :0], rows, axis=0)
                X = X if single else X.astype(np.float64)
                _fit_item(shared, X @ X.T, scales, weights[:, first - before : last - before])

    parallel_for(_work, chunks(stop - start, _ITEMS))
    return out


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


@njit(cache=True, nogil=True, error_model="numpy")
def _fit_item(shared: Float64Array, content: Products, strengths: Float64Array, out: Float32Array) -> None:
    """Write the weights of an item on its neighbors, float32 [strengths, k]; NaN if float64 cannot solve.

    Args:
        shared: float64 [k + 1, k + 1], the lower triangle: users of each pair, the item last.
        content: float64 or float32 [k + 1, k + 1], products of their vectors.
        strengths: float64 [n, 2], pairs (w, lambda).
        out: written.
    """
    system = np.empty_like(shared)
    for n in range(len(strengths)):
        _build_system(shared, content, strengths[n, 0], strengths[n, 1], system)
        # By columns, as LAPACK reads it, the lower triangle is the upper one.
        if _cholesky(_FLOAT64, _UPPER, len(system), system.ctypes, len(system)) == 0:
            _solve_triangle(system, out[n])
        else:
            out[n] = np.nan


@njit(cache=True, nogil=True)
def _build_system(
    shared: Float64Array, content: Products, weight: float, regularization: float, out: Float64Array
) -> None:
    """Write shared + weight content + regularization I, the lower triangle."""
    for a in range(len(out)):
        for b in range(a + 1):
            out[a, b] = shared[a, b] + weight * content[a, b]
        out[a, a] += regularization


@njit(cache=True, nogil=True, error_model="numpy")
def _solve_triangle(L: Float64Array, out: Float32Array) -> None:
    """Solve L[:k, :k]^T b = L[k, :k] for b [k]; L [k + 1, k + 1] is lower, and its row k overwritten."""
    k = len(L) - 1
    right = L[k]
    for a in range(k - 1, -1, -1):
        value = right[a] / L[a, a]
        out[a] = value
        row = L[a]
        for b in range(a):
            right[b] -= row[b] * value

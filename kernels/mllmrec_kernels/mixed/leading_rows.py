"""Vectors on their leading axes, in two bytes per coordinate: a first bound of an inner product.

With the m principal axes A of a sample of the items, w = A p and z = A q as float32, and r what they leave,

    r_p^2 = |p|^2 - |w|^2,   r_q^2 = |q|^2 - |z|^2,   |p.q - w.z| <= r_p r_q      (Cauchy and Schwarz)

Axes in float64 are orthogonal to 1e-12. So w and z are off by their rounding to float32, which `ROUNDED` of |p| |q|
bounds. The codes of coded_rows.py bound w.z. Item vectors have a steep spectrum: of 100,000 items that a list does not
take, such a bound from 64 of 450 coordinates leaves a hundred.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mllmrec_kernels.base.jit import jit
from mllmrec_kernels.base.parallel import chunks, parallel_for, single_threaded_blas
from mllmrec_kernels.mixed.coded_rows import CodedRows, encode, encode_user

AXES = 64
BYTES = 2 * AXES + 40  # of an item
_LEAST_WIDTH = 2 * AXES  # columns, below which the axes save nothing
_SAMPLE = 8_192  # rows that the axes are taken from, at most
_ROWS = 4_096  # multiplied at a time, by a thread
ROUNDED = 2.0**-21
_TINY = 2.0**-120  # of a norm, for coordinates that float32 rounds to a multiple of its least number
_LARGEST = 1e30  # of a norm whose coordinates float32 surely holds; a longer vector is not bounded
_ALL = 1 << 62  # bytes: rows are encoded whatever they take


class LeadingRows(NamedTuple):
    """Items on their leading axes; a tuple, because compiled code takes it as it is.

    Attributes:
        rows: z, encoded; no rows where the vectors are narrow.
        left: float64 [I, 2], bounds of r_q and |q|.
        axes: A, float64 [m, d].
    """

    rows: CodedRows
    left: NDArray[np.float64]
    axes: NDArray[np.float64]


class LeadingUsers(NamedTuple):
    """Users on the axes of items.

    Attributes:
        codes: int16 [U, width], w encoded.
        bounds: float64 [U, 3], of each code.
        left: float64 [U, 2], bounds of r_p and of the rounding over |q|.
    """

    codes: NDArray[np.int16]
    bounds: NDArray[np.float64]
    left: NDArray[np.float64]


def lead_items(vectors: NDArray[np.float32], max_bytes: int = _ALL) -> LeadingRows:
    """Return item vectors, float32 [I, d], on their leading axes; on none where that takes more than `max_bytes`."""
    n, d = vectors.shape
    axes = np.zeros((0, d))
    if n and d >= _LEAST_WIDTH and n * BYTES <= max_bytes:
        sample = vectors[:: -(-n // _SAMPLE)].astype(np.float64)
        with single_threaded_blas():  # so that no number of threads changes a bit
            axes = np.ascontiguousarray(np.linalg.eigh(sample.T @ sample)[1][:, : -AXES - 1 : -1].T)
    leading, left = _project(vectors if len(axes) else vectors[:0], axes)
    return LeadingRows(encode(leading, _ALL), left, axes)


def lead_users(vectors: NDArray[np.float32], items: LeadingRows) -> LeadingUsers:
    """Return user vectors, float32 [U, d], on the axes of items; of width 0 where these have none."""
    width = items.rows.codes.shape[1]  # 0 without axes
    users = LeadingUsers(np.zeros((len(vectors), width), np.int16), np.zeros((len(vectors), 3)), np.zeros((0, 2)))
    if width == 0:
        return users
    leading, left = _project(vectors, items.axes)
    _encode_users(leading, items.rows.sizes, users.codes, users.bounds)
    left[:, 1] *= ROUNDED
    return users._replace(left=left)


def _project(
    vectors: NDArray[np.float32], axes: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Return coordinates on the axes, float32 [n, m], and bounds of what is left and of the norm, float64 [n, 2]."""
    leading, left = np.empty((len(vectors), len(axes)), np.float32), np.empty((len(vectors), 2))

    def _work(start: int, stop: int) -> None:
        wide = vectors[start:stop].astype(np.float64)
        norms = np.sqrt(np.einsum("nd,nd->n", wide, wide)) * (1 + 1e-9) + _TINY
        holds = norms < _LARGEST
        part = np.where(holds[:, None], wide @ axes.T, 0).astype(np.float32)
        inside = np.einsum("nm,nm->n", part, part, dtype=np.float64)
        leading[start:stop], left[start:stop, 1] = part, norms
        outside = np.sqrt(np.maximum(norms**2 - inside, 0) + ROUNDED * norms**2)
        left[start:stop, 0] = np.where(holds, outside, np.inf)

    parallel_for(_work, chunks(len(vectors), _ROWS))
    return leading, left


@jit
def _encode_users(leading: Any, sizes: Any, codes: Any, bounds: Any) -> None:
    for u in range(len(leading)):
        encode_user(leading, u, sizes, codes, bounds, u)


@jit
def bound_leading(
    users: Any, u: Any, items: Any, ids: Any, start: Any, n: Any, centers: Any, radii: Any
) -> None:  # fmt: skip
    """Write centers and radii: the inner product of user u and item ids[start + t] is at most radii[t] off centers[t].

    Args:
        users: of `lead_users`.
        u: the user.
        items: of `lead_items`.
        ids: int32, of items.
        start: place of the first.
        n: the number of items.
        centers: float64 [n], written.
        radii: float64 [n], written.
    """
    codes, bounds, left, own = items.rows.codes, items.rows.bounds, items.left, users.codes
    step, error, norm = users.bounds[u, 0], users.bounds[u, 1], users.bounds[u, 2]
    outside, rounded = users.left[u, 0], users.left[u, 1]
    for t in range(n):
        i, total = ids[start + t], np.int32(0)  # each step cast, or Numba would widen it
        for j in range(AXES):
            total = np.int32(total + np.int32(np.int32(own[u, j]) * np.int32(codes[i, j])))
        centers[t] = total
    for t in range(n):
        i = ids[start + t]
        center = step * bounds[i, 0] * centers[t]
        radius = norm * bounds[i, 1] + error * (bounds[i, 2] + bounds[i, 1]) + abs(center) * ROUNDED
        centers[t], radii[t] = center, radius + outside * left[i, 0] + rounded * left[i, 1]

"""Products of tall tables on all threads, with the bits of one thread.

A sum over rows is cut into blocks of one size. Threads make the parts, and these are added in the order of the blocks.
Where a table's columns are shared instead, each number of the product is one sum, made by one thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from mllmrec_kernels.base.parallel import chunks, parallel_for
from numpy.typing import NDArray

from mllmrec.features.encode import Vectors

ROWS = 1 << 14  # of a block, in float64 at once
_COLUMNS = 96  # of a piece of a product
_WAITING = 16  # parts that wait to be added
Table = NDArray[np.float64]


def parts_in_order(make: Callable[[int, int], Table], total: int) -> Iterator[Table]:
    """Yield make(start, stop) of each block of rows, made on all threads, in the order of the blocks.

    Args:
        make: returns a block's part of a sum.
        total: rows.
    """
    spans = chunks(total, ROWS)
    for first in range(0, len(spans), _WAITING):
        parts = dict[int, Table]()

        def _work(start: int, stop: int, parts: dict[int, Table] = parts) -> None:
            parts[start] = make(start, stop)

        parallel_for(_work, spans[first : first + _WAITING])
        yield from (parts[start] for start in sorted(parts))


def gram_of(X: Vectors, mean: Vectors | Table | None = None) -> Table:
    """Return X^T X of X [I, d] in float64, [d, d], of X less a mean [d] where there is one."""

    def make(start: int, stop: int) -> Table:
        x = X[start:stop].astype(np.float64) if mean is None else X[start:stop] - mean
        return np.asarray(x.T @ x)

    total = np.zeros((X.shape[1], X.shape[1]))
    for part in parts_in_order(make, len(X)):
        total += part
    return total


def turned_product(X: Vectors, table: Vectors) -> Vectors:
    """Return X^T times a table [I, r], float32 [d, r]."""
    product = np.empty((X.shape[1], table.shape[1]), np.float32)

    def _work(start: int, stop: int) -> None:
        product[start:stop] = X[:, start:stop].T @ table

    parallel_for(_work, chunks(len(product), _COLUMNS))
    return product

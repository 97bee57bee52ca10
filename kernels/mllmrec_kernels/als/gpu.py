"""als_factors in batches of torch operations, on the device of the factors.

The systems are those of cpu.py, in the eigenvectors of a Q^T Q and of the smaller of a row's two sizes. A batch is b
rows of similar length, padded to the n entries of its longest row:

    short rows    near = Q_S, zeros for padding [b, n, r]; K = I + near D near^T [b, n, n], and 1 - l Q_S D m, 0 for
                  padding: such an entry has the row and the column of the identity, and adds nothing
    longer rows   diag(s + l) + near^T near [b, r, r], whatever n is: entries are added SPAN at a time

Products and factors are float32, as on the CPU, and never TF32. A row's result depends on its entries and, by the
library's order of additions, on its batch. So two devices differ by the rounding of float32 times the condition of a
system, which is at most 1 + trace / regularization.

Bytes: both tables twice, and a batch of BUDGET.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mllmrec_kernels.base import device_cache
from mllmrec_kernels.base.csr import CSR
from mllmrec_kernels.base.device_cache import DeviceCSR

BUDGET = 2**30  # bytes of a batch
ROWS = 2**15  # of a batch at most: batched CUDA routines number their matrices in a grid's 65,535
SPAN = 1 << 10  # entries of longer rows that are multiplied at once


def als_factors(
    rows: CSR, factors: Tensor, gram: NDArray[np.float32], regularization: NDArray[np.floating], prior: Tensor | None
) -> Tensor:
    """Return the factors of each row, float32 [R, r], on the device of `factors`; not finite where a system fails.

    Args:
        rows: [R, C], the pattern.
        factors: Q, float32 [C, r].
        gram: a Q^T Q, float32 [r, r].
        regularization: floating [R].
        prior: float32 [R, r], on that device; None: rows shrink to 0.
    """
    device, rank = factors.device, factors.shape[1]
    values, axes = np.linalg.eigh(gram.astype(np.float64))
    spectrum = torch.from_numpy(np.maximum(values, 0).astype(np.float32)).to(device)
    V = torch.from_numpy(axes.astype(np.float32)).to(device)
    Q, shrink = factors @ V, torch.from_numpy(regularization.astype(np.float32)).to(device)
    solved = torch.zeros((rows.n_rows, rank), device=device) if prior is None else prior @ V
    entries, lengths = device_cache.on_device(rows, device), np.diff(rows.indptr)
    order = np.argsort(lengths, kind="stable")
    first = int(np.searchsorted(lengths[order], 1)) if prior is None else 0  # rows without entries stay zeros
    split = int(np.searchsorted(lengths[order], rank))
    for start, stop in _batches(lengths[order], first, split, 4 * rank * 3, 8):
        batch = torch.from_numpy(order[start:stop]).to(device)
        longest = int(lengths[order[stop - 1]])
        near, live = _near(Q, entries, batch, 0, longest)
        solved[batch] = _solve_short(near, live, spectrum, shrink[batch], solved[batch])
    for start, stop in _batches(np.minimum(lengths[order], SPAN), split, len(order), 4 * rank * 2, 4 * rank):
        batch = torch.from_numpy(order[start:stop]).to(device)
        longest = int(lengths[order[stop - 1]])
        solved[batch] = _solve_long(Q, entries, batch, longest, spectrum, shrink[batch], solved[batch])
    return solved @ V.T


def _batches(
    lengths: NDArray[np.int64], first: int, last: int, entry_bytes: int, pair_bytes: int
) -> Iterator[tuple[int, int]]:
    """Yield where batches of rows start and stop.

    Args:
        lengths: of the rows, rising.
        first: row to begin with.
        last: row to end before.
        entry_bytes: of a row's entry.
        pair_bytes: of a pair of its entries.
    """
    costs = lengths * (entry_bytes + pair_bytes * lengths) + 1
    while first < last:
        ahead = costs[first : min(last, first + ROWS)]
        fitting = int(np.searchsorted(ahead * np.arange(1, len(ahead) + 1), BUDGET, side="right"))
        stop = first + max(1, fitting)
        # A batch pads its rows to the longest: twice the shortest, or 8 entries.
        stop = first + max(1, int(np.searchsorted(lengths[first:stop], max(8, 2 * int(lengths[first])), side="right")))
        yield first, stop
        first = stop


def _near(Q: Tensor, entries: DeviceCSR, rows: Tensor, first: int, last: int) -> tuple[Tensor, Tensor]:
    """Return the factors of entries first..last-1 of each row [b, n, r], zeros for padding; and what is none [b, n]."""
    starts, ends = entries.indptr[rows, None] + first, entries.indptr[rows + 1, None]
    place = starts + torch.arange(last - first, device=rows.device)
    live = place < ends
    if not len(entries.indices):
        return Q.new_zeros((len(rows), last - first, Q.shape[1])), live
    columns = entries.indices[place.clamp(max=len(entries.indices) - 1)].long()
    return Q[columns] * live[:, :, None], live


def _solve_short(near: Tensor, live: Tensor, spectrum: Tensor, shrink: Tensor, toward: Tensor) -> Tensor:
    """Return the factors of a batch, through the systems of its entries.

    Args:
        near: float32 [b, n, r].
        live: bool [b, n].
        spectrum: float32 [r].
        shrink: float32 [b].
        toward: m, float32 [b, r].
    """
    diagonal = 1 / (spectrum + shrink[:, None])
    x = toward * shrink[:, None] * diagonal
    scaled = near * diagonal[:, None, :]
    K = scaled @ near.mT
    K.diagonal(dim1=1, dim2=2).add_(1)
    right = live.to(near.dtype) - (near @ x[:, :, None]).squeeze(2)
    y = _solve(K, right)
    return x + (scaled.mT @ y[:, :, None]).squeeze(2)


def _solve_long(
    Q: Tensor, entries: DeviceCSR, rows: Tensor, longest: int, spectrum: Tensor, shrink: Tensor, toward: Tensor
) -> Tensor:
    """Return the factors of a batch, through the systems of its factors.

    Args:
        Q: float32 [C, r].
        entries: of all rows.
        rows: int64 [b].
        longest: entries of the longest.
        spectrum: float32 [r].
        shrink: float32 [b].
        toward: m, float32 [b, r].
    """
    system = torch.diag_embed(spectrum + shrink[:, None])
    right = toward * shrink[:, None]
    for first in range(0, longest, SPAN):
        near, _ = _near(Q, entries, rows, first, min(first + SPAN, longest))
        system = torch.baddbmm(system, near.mT, near)
        right = right + near.sum(dim=1)
    return _solve(system, right)


def _solve(system: Tensor, right: Tensor) -> Tensor:
    """Return A^-1 b of each system, float32 [b, n]; NaN where it fails."""
    factor, failed = torch.linalg.cholesky_ex(system)
    solution = torch.cholesky_solve(right[:, :, None], factor).squeeze(2)
    return solution.masked_fill_(failed[:, None] > 0, torch.nan)

"""Copies of CSR matrices on a device, made once and kept for as long as the matrix lives."""

from __future__ import annotations

from dataclasses import dataclass
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from mllmrec_kernels.base.csr import CSR


@dataclass(frozen=True, slots=True)
class DeviceCSR:
    """The pattern of a CSR on a device.

    Attributes:
        indptr: int64, shape (R + 1,).
        indices: int32, shape (nnz,).
        longest: entries of the longest row.
    """

    indptr: Tensor
    indices: Tensor
    longest: int

    def rows(self) -> Tensor:
        """Return the row of each entry, int32 [nnz]."""
        ids = torch.arange(len(self.indptr) - 1, dtype=torch.int32, device=self.indptr.device)
        return ids.repeat_interleave(self.indptr[1:] - self.indptr[:-1], output_size=len(self.indices))

    def keys(self, n_columns: int) -> Tensor:
        """Return row * n_columns + column of each entry, int64 [nnz], ascending."""
        return self.rows().long() * n_columns + self.indices

    @property
    def search_steps(self) -> int:
        """Number of halvings that a binary search in any row needs."""
        return self.longest.bit_length()


_copies: WeakKeyDictionary[CSR, dict[torch.device, DeviceCSR]] = WeakKeyDictionary()


def on_device(matrix: CSR, device: torch.device) -> DeviceCSR:
    """Return the pattern of `matrix` on `device`; int64 [R + 1] and int32 [nnz] are copied the first time."""
    copies = _copies.setdefault(matrix, {})
    if device not in copies:
        longest = int(np.diff(matrix.indptr).max(initial=0))
        indptr, indices = torch.from_numpy(matrix.indptr), torch.from_numpy(matrix.indices)
        copies[device] = DeviceCSR(indptr.to(device), indices.to(device), longest)
    return copies[device]

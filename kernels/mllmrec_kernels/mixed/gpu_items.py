"""R, W and the vectors of items on a device; those of MixedItems are copied once for block after block of users."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mllmrec_kernels.base.errors import KernelError
from mllmrec_kernels.exact import gpu_score
from mllmrec_kernels.mixed import gpu_rows
from mllmrec_kernels.mixed.scores import SparsePart, count_few

_FEW_BYTES = 64
_CELLS = 2**30  # of a block: torch finds what is not 0 among fewer than 2^31
DeviceWeights = tuple[Tensor, Tensor, Tensor]  # offsets and columns, empty where W is dense, and values


@dataclass(frozen=True, slots=True)
class DeviceItems:
    """The items of MixedItems on a device.

    Attributes:
        weights: W.
        vectors: q, float32 [I, d]; None for no inner product.
    """

    weights: DeviceWeights
    vectors: Tensor | None


def items_on_device(sparse: SparsePart, vectors: NDArray[np.float32], device: torch.device) -> DeviceItems:
    """Return items on a device.

    Args:
        sparse: W, checked.
        vectors: float32 [I, d], checked; of no width for no inner product.
        device: where they are copied to.
    """
    copied = torch.from_numpy(vectors).to(device) if vectors.shape[1] else None
    return DeviceItems(weights_on_device(sparse, device), copied)


def weights_on_device(sparse: SparsePart, device: torch.device) -> DeviceWeights:
    """Return W on a device."""
    values = sparse.dense_weights if len(sparse.dense_weights) else sparse.weight_values
    indptr, ids, weights = _copies((sparse.weight_indptr, sparse.weight_ids, values), device)
    return indptr, ids, weights


def _copies(arrays: Iterable[NDArray[Any]], device: torch.device) -> list[Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)).to(device) for array in arrays]


class DeviceSparse:
    """R and W on a device, and rows of their product.

    Args:
        sparse: R and W, checked.
        n_items: I.
        device: where they are copied to.
        weights: W, if it is there already.
    """

    def __init__(
        self, sparse: SparsePart, n_items: int, device: torch.device, weights: DeviceWeights | None = None
    ) -> None:
        self.n_items, self.device, self.n_users = n_items, device, len(sparse.indptr) - 1
        self.dense, self.valued = len(sparse.dense_weights) > 0, len(sparse.values) > 0
        self.few = count_few(sparse, n_items)
        rows = _copies((sparse.indptr, sparse.ids, sparse.values), device)
        self._arrays = (*rows, *(weights or weights_on_device(sparse, device)))

    def rows(self, users: Tensor) -> Tensor:
        """Return R W of the users, int64 [b], as float32 [b, I]."""
        sums = torch.zeros((len(users), self.n_items), device=self.device)
        if sums.numel():
            gpu_rows.add_rows[(len(users),)](
                users, *self._arrays, sums, self.n_items, VALUES=self.valued, DENSE=self.dense, B=gpu_rows.ENTRIES,
                **gpu_rows.UNFUSED,
            )  # fmt: skip
        return sums

    def in_blocks(
        self, work: Callable[[NDArray[np.int64]], None], users: NDArray[np.int64], max_bytes: int | None
    ) -> None:
        """Call work(users) for blocks of users that fit into memory.

        Args:
            work: called with int64 [b] users.
            users: int64 [B].
            max_bytes: limit of working memory; None: a share of what is free.
        """
        free = min(gpu_score.working_memory(self.device, max_bytes) // 4, 4 * _CELLS)
        ends = np.cumsum(4 * self.n_items + _FEW_BYTES * self.few[users])
        start, share = 0, 1
        while start < len(users):
            before = int(ends[start - 1]) if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + free // share, side="right")))
            try:
                work(users[start:stop])
            except torch.OutOfMemoryError:
                if stop == start + 1:
                    raise KernelError(f"scoring {self.n_items} items: the device is out of memory") from None
                share *= 2
            else:
                start = stop

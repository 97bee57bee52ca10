"""Negatives of an epoch: for each pair an item that somebody has, but not this user (docs/method.md, section 5).

Where rows of items cost more than a look-up, the negatives of a batch come from a small pool. A batch then has fewer
distinct items to project: of 2,048 pairs of Amazon Baby 480 instead of 1,780.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from mllmrec_kernels import CSR, sample_negatives
from mllmrec_kernels.sample.reference import seen_items
from torch import Generator, Tensor


class Negatives:
    """Draws negatives on a device.

    Args:
        user_items: training interactions.
        batch_size: pairs per step.
        pool: items that a batch's negatives come from; 0: any, each pair's draw is then independent of all others.
        device: where users and negatives live.
    """

    def __init__(self, user_items: CSR, batch_size: int, pool: int, device: torch.device) -> None:
        self._user_items, self._batch_size, self._pool = user_items, batch_size, pool
        self._device = device

    @cached_property
    def _seen(self) -> Tensor:
        """Items that anybody has, int64."""
        return torch.from_numpy(seen_items(self._user_items).astype(np.int64)).to(self._device)

    @cached_property
    def _owned(self) -> Tensor:
        """u I + i of each interaction, int64 [nnz], ascending."""
        keys = self._user_items.rows() * self._user_items.n_columns + self._user_items.indices
        return torch.from_numpy(keys).to(self._device)

    def draw(self, users: Tensor, generator: Generator) -> Tensor:
        """Return one negative a pair, int64 [n]; -1 for a user who has all that anybody has.

        Args:
            users: int64 [n], an epoch's in the order of its batches.
            generator: of that device.
        """
        independent = sample_negatives(self._user_items, users, generator=generator).long()
        return self._pooled(users, independent, generator) if self._pool else independent

    def _pooled(self, users: Tensor, independent: Tensor, generator: Generator) -> Tensor:
        """Return draws from the batch's pool; where the user owns the draw, the independent negative stays.

        Pools are drawn uniformly from the seen items. A draw that the user does not own is then uniform over the seen
        items that are not the user's, as an independent one is. So each negative keeps its distribution; the negatives
        of a batch lose their independence.
        """
        device, size = self._device, self._batch_size
        batches = -(-len(users) // size)
        at = torch.randint(len(self._seen), (batches, self._pool), generator=generator, device=device)
        pools = self._seen[at]  # [batches, pool]
        batch = torch.arange(len(users), device=device) // size
        drawn = pools[batch, torch.randint(self._pool, users.shape, generator=generator, device=device)]
        keys = users * self._user_items.n_columns + drawn
        place = torch.searchsorted(self._owned, keys).clamp_(max=len(self._owned) - 1)
        return torch.where(self._owned[place] == keys, independent, drawn)

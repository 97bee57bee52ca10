"""Negatives of an epoch (method 2.8): for each pair an item that somebody has seen, but not this user.

Where rows of items cost more than a look-up, the negatives of a batch come from a small pool, so that a batch has
fewer distinct items to project: of 2,048 pairs of Amazon Baby 480 instead of 1,780.
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
        batch_size: pairs a step.
        pool: items that a batch's negatives come from; 0: any, each pair's draw is then independent of all others.
        device: where users and negatives live.
    """

    def __init__(self, user_items: CSR, batch_size: int, pool: int, device: torch.device) -> None:
        self._user_items, self._batch_size, self._pool = user_items, batch_size, pool
        self._device = device

    @cached_property
    def _seen(self) -> Tensor:
        """Items that anybody has seen, int64."""
        return torch.from_numpy(seen_items(self._user_items).astype(np.int64)).to(self._device)

    @cached_property
    def _owned(self) -> Tensor:
        """u I + i of each interaction, int64 [nnz]; ascending, as a CSR is."""
        keys = self._user_items.rows() * self._user_items.n_columns + self._user_items.indices
        return torch.from_numpy(keys).to(self._device)

    def draw(self, users: Tensor, generator: Generator) -> Tensor:
        """One negative a pair, int64 [n]; -1 for a user who has seen all that anybody has seen.

        Args:
            users: int64 [n], an epoch's in the order of its batches.
            generator: of that device.
        """
        alone = sample_negatives(self._user_items, users, generator=generator).long()
        return self._pooled(users, alone, generator) if self._pool else alone

    def _pooled(self, users: Tensor, alone: Tensor, generator: Generator) -> Tensor:
        """A draw from the batch's pool; who owns what it gives keeps the negative that was drawn for them alone.

        Pools are drawn uniformly from the seen items. So what a pool gives is, where the user does not own it, uniform
        over the seen items that are not the user's, as their own draw is: each negative has the distribution that
        it has without pools. What is lost is independence within a batch.
        """
        device, size = self._device, self._batch_size
        batches = -(-len(users) // size)
        at = torch.randint(len(self._seen), (batches, self._pool), generator=generator, device=device)
        pools = self._seen[at]  # [batches, pool]
        batch = torch.arange(len(users), device=device) // size
        given = pools[batch, torch.randint(self._pool, users.shape, generator=generator, device=device)]
        asked = users * self._user_items.n_columns + given
        place = torch.searchsorted(self._owned, asked).clamp_(max=len(self._owned) - 1)
        return torch.where(self._owned[place] == asked, alone, given)

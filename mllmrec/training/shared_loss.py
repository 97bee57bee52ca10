"""The loss of a batch that several ranks share (ranks.py)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from mllmrec.training.loop import Network


class SharedLoss(nn.Module):
    """The loss of a batch, a share of it per rank, in torch's DistributedDataParallel.

    Args:
        network: on its device.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        loss, parallel = _Loss(network), nn.parallel.DistributedDataParallel
        constants = [name for name, _ in loss.named_buffers()]  # every rank has read the same ones
        parallel._set_params_and_buffers_to_ignore_for_model(loss, constants)  # type: ignore[no-untyped-call]
        self._parallel = parallel(loss, find_unused_parameters=True)

    def forward(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return this rank's part of the mean loss: the mean of all ranks' is that of the batch.

        Args:
            users: int64 [B].
            positives: int64 [B].
            negatives: int64 [B].
        """
        size, ranks, rank = len(users), dist.get_world_size(), dist.get_rank()
        start, stop = rank * size // ranks, (rank + 1) * size // ranks
        weight = (stop - start) * ranks / size
        share = slice(start, max(stop, start + 1)) if start < size else slice(0, 1)  # an empty share weighs nothing
        loss: Tensor = self._parallel(users[share], positives[share], negatives[share])
        return loss * weight

    @staticmethod
    def mean(loss: Tensor) -> Tensor:
        """Return the mean over all ranks of what forward gave."""
        total = loss.detach().clone()
        dist.all_reduce(total)
        return total / dist.get_world_size()


class _Loss(nn.Module):
    """The loss of a network as the forward pass of a module, which DistributedDataParallel wants."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        return self.network.loss(users, positives, negatives)

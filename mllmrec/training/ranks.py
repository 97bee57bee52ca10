"""Several processes that train one network: each takes a share of every batch, and torch averages the gradients.

`torchrun` starts them and numbers them; Ray Train sets the same variables. Rank 0 runs the stages. The others wait
until it trains, fit the same model on the artefacts of its run, and write nothing. Every rank takes the same draws and
the same steps, so that all hold the same network. The run must lie where every rank sees it.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from mllmrec.training.loop import Network

_WAIT = timedelta(days=30)  # for rank 0, which may describe pictures for days before it trains


def count() -> int:
    """Return how many processes train, as torchrun says; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "MASTER_ADDR" in os.environ else 1


def own() -> int:
    """Return the number of this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def begin() -> None:
    """Tell the waiting ranks that training begins; they say nothing themselves."""
    if count() > 1 and own() == 0:
        _join()
        _send(np.ones(1))


def wait() -> bool:
    """Wait for rank 0; return whether it trains, or ends without."""
    _join()
    return bool(_send(np.zeros(1))[0])


def leave() -> None:
    """Let the ranks end that still wait, and leave the group."""
    if count() > 1 and own() == 0 and not dist.is_initialized():
        _join()
        _send(np.zeros(1))
    if dist.is_initialized():
        dist.destroy_process_group()


def agree(*values: float) -> tuple[float, ...]:
    """Return the values of rank 0, so that no rounding of another machine ends a training early."""
    return tuple(_send(np.array(values)).tolist()) if dist.is_initialized() else values


def agree_text(text: str) -> str:
    """Return the text of rank 0."""
    if not dist.is_initialized():
        return text
    data = np.frombuffer(text.encode(), np.uint8).astype(np.float64)
    size = int(agree(len(data))[0])
    return _send(data if own() == 0 else np.zeros(size)).astype(np.uint8).tobytes().decode()


def _send(values: np.ndarray[Any, np.dtype[np.float64]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the numbers of rank 0, float64."""
    sent = torch.from_numpy(values.astype(np.float64))
    if len(values):
        dist.broadcast(sent, 0)
    return sent.numpy()


def _join() -> None:
    if dist.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=_WAIT)


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

"""The contract of a network that the trainer trains, the negatives of an epoch, and steps over its triples.

A step of two small projectors is some sixty kernels of a few microseconds, so a GPU waits for Python longer than it
computes. If each step of a network is the same kernels over the same memory, its steps are recorded. The first batch of
a size is computed directly, and the next is recorded as a CUDA graph. Every later one is two launches: copy its triples
to where the graph reads them, and replay the graph. An epoch has batches of two sizes, whole ones and its last.

A negative is an item that somebody has, but not this user (docs/method.md, section 5). Where rows of items cost more
than a look-up, the negatives of a batch come from a small pool. A batch then has fewer distinct items to project: of
2,048 pairs of Amazon Baby 480 instead of 1,780.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.distributed as dist
from mllmrec_kernels import CSR, sample_negatives
from mllmrec_kernels.sample.reference import seen_items
from torch import Generator, Tensor, nn

from mllmrec.config import TrainConfig
from mllmrec.training.shared_loss import SharedLoss


class Network(nn.Module, ABC):
    """A model of two towers.

    Constants (features, graphs) are non-persistent buffers or plain attributes, so the state is only the parameters.

    Attributes:
        shuffles_users: an epoch shuffles users and keeps the pairs of each together, and a batch draws its negatives
            from a pool. It pays where a row costs more than a look-up. Models of ids keep to shuffled pairs and
            independent negatives, as their papers do.
        replayable: a step is the same operations over the same memory whatever the batch, so a GPU may replay it.
        own_threads: on the CPU the kernels of a step bring their own threads; torch's would only spin beside them.
    """

    shuffles_users = False
    replayable = False
    own_threads = False

    def start_epoch(self, generator: np.random.Generator) -> None:
        """Draw what stays the same within an epoch; most networks have nothing to draw."""

    @abstractmethod
    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Tensor:
        """Return the mean loss of a batch of triples.

        Args:
            users: int64 [B].
            positives: int64 [B], an item of each user.
            negatives: int64 [B], an item that the user does not have.
        """

    @abstractmethod
    def vectors(self) -> tuple[Tensor, Tensor]:
        """Return all users [U, d] and all items [I, d]; the score is their inner product."""


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
        """Return one negative per pair, int64 [n]; -1 if the user has every item that somebody has.

        Args:
            users: int64 [n], an epoch's in the order of its batches.
            generator: of that device.
        """
        independent = sample_negatives(self._user_items, users, generator=generator).long()
        return self._pooled(users, independent, generator) if self._pool else independent

    def _pooled(self, users: Tensor, independent: Tensor, generator: Generator) -> Tensor:
        """Return draws from the batch's pool; if the user owns the draw, the independent negative stays.

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


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep torch on the calling thread; its other threads wait for work by spinning, on cores that are needed."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A step as a CUDA graph.

    Attributes:
        graph: replays the step.
        triples: int64 [3, B], its input.
        loss: scalar, its result.
    """

    graph: torch.cuda.CUDAGraph
    triples: Tensor
    loss: Tensor

    def replay(self, triples: Tensor) -> Tensor:
        """Take the step over other triples; the next replay overwrites the returned loss."""
        self.triples.copy_(triples)
        self.graph.replay()
        return self.loss


class Steps:
    """Adam's steps of a network that is on its device already.

    Attributes:
        optimizer: kept in checkpoints; restore it before the first step.
    """

    def __init__(self, network: Network, config: TrainConfig, device: torch.device) -> None:
        self._network, self._device, self._size = network, device, config.batch_size
        self._low = config.precision == "bfloat16"
        loss: Loss = network.loss
        self._loss: Loss = torch.compile(loss, dynamic=True) if config.compile else loss
        on_gpu = device.type == "cuda"
        self._one_thread = network.own_threads and not (on_gpu or self._low or config.compile)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True, capturable=on_gpu)
        self._shared = SharedLoss(network) if dist.is_initialized() else None
        self._records = on_gpu and network.replayable and self._shared is None
        self._recorded: dict[int, _Recorded] = {}
        self._sizes_met: set[int] = set()

    def run(self, triples: Tensor) -> float:
        """Take steps over triples, int64 [3, n], batch by batch; return their mean loss.

        Reading the loss is the only wait for the device.
        """
        self._network.train()
        total, count = torch.zeros((), device=self._device), triples.shape[1]
        for start in range(0, count, self._size):
            batch = triples[:, start : start + self._size]
            total += self._step(batch) * batch.shape[1]
        return float(total) / max(1, count)

    def threads(self) -> AbstractContextManager[None]:
        """Return a context with the number of torch threads that suits the steps; run a whole epoch in it."""
        return _one_torch_thread() if self._one_thread else nullcontext()

    def _step(self, triples: Tensor) -> Tensor:
        size = triples.shape[1]
        if not self._records:
            return self._compute(triples)
        if size not in self._recorded:
            if size not in self._sizes_met:
                self._sizes_met.add(size)
                return self._warm_up(triples)
            self._recorded[size] = self._record(triples)
        return self._recorded[size].replay(triples)

    def _compute(self, triples: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._low):
            loss = self._shared(*triples) if self._shared else self._loss(*triples)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return self._shared.mean(loss) if self._shared else loss.detach()

    def _warm_up(self, triples: Tensor) -> Tensor:
        """Take one step on a side stream; CUDA graph capture needs it."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            loss = self._compute(triples)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return loss

    def _record(self, triples: Tensor) -> _Recorded:
        """Record a step as a CUDA graph; nothing is computed meanwhile."""
        graph, static = torch.cuda.CUDAGraph(), triples.clone()
        self.optimizer.zero_grad(set_to_none=True)  # gradients are then made in the graph's own memory
        with torch.cuda.graph(graph):
            loss = self._compute(static)
        return _Recorded(graph, static, loss)

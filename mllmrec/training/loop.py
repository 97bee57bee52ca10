"""Optimisation steps over the triples of an epoch; on a GPU they are recorded once and replayed.

A step of two small projectors is some sixty kernels of a few microseconds, and a GPU waits for Python longer than it
computes. Where each step of a network is the same kernels over the same memory, the first batch of a size is stepped
as it comes, the next is recorded as a CUDA graph, and every later one is two launches: its triples are copied to
where the graph reads them, and the graph is replayed. An epoch has batches of two sizes, whole ones and its last.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from mllmrec.config import TrainConfig
from mllmrec.models.network import Network

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """torch on the calling thread alone: its other threads wait for work by spinning, on cores that are needed."""
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
        triples: int64 [3, B], what it reads.
        loss: scalar, what it leaves.
    """

    graph: torch.cuda.CUDAGraph
    triples: Tensor
    loss: Tensor

    def replay(self, triples: Tensor) -> Tensor:
        """Step over other triples; the loss is overwritten by the next replay."""
        self.triples.copy_(triples)
        self.graph.replay()
        return self.loss


class Steps:
    """Adam's steps of a network, which is on its device already.

    Attributes:
        optimiser: what a checkpoint keeps; it must be restored before the first step.
    """

    def __init__(self, network: Network, config: TrainConfig, device: torch.device) -> None:
        self._network, self._device, self._size = network, device, config.batch_size
        self._low = config.precision == "bfloat16"
        loss: Loss = network.loss
        self._loss: Loss = torch.compile(loss, dynamic=True) if config.compile else loss
        on_gpu = device.type == "cuda"
        self._alone = network.own_threads and not (on_gpu or self._low or config.compile)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True, capturable=on_gpu)
        self._records = on_gpu and network.same_steps
        self._recorded: dict[int, _Recorded] = {}
        self._seen: set[int] = set()

    def run(self, triples: Tensor) -> float:
        """Step over triples, int64 [3, n], batch by batch; their mean loss, the one number that is waited for."""
        self._network.train()
        total, count = torch.zeros((), device=self._device), triples.shape[1]
        for start in range(0, count, self._size):
            batch = triples[:, start : start + self._size]
            total += self._step(batch) * batch.shape[1]
        return float(total) / max(1, count)

    def threads(self) -> AbstractContextManager[None]:
        """Threads of torch as the network's steps want them; whatever stands around the steps should run in it too."""
        return _one_torch_thread() if self._alone else nullcontext()

    def _step(self, triples: Tensor) -> Tensor:
        size = triples.shape[1]
        if not self._records:
            return self._compute(triples)
        if size not in self._recorded:
            if size not in self._seen:
                self._seen.add(size)
                return self._aside(triples)
            self._recorded[size] = self._record(triples)
        return self._recorded[size].replay(triples)

    def _compute(self, triples: Tensor) -> Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._low):
            loss = self._loss(*triples)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        return loss.detach()

    def _aside(self, triples: Tensor) -> Tensor:
        """A step on a stream of its own, as one must be before it is recorded: what it sets up is then in place."""
        stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            loss = self._compute(triples)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return loss

    def _record(self, triples: Tensor) -> _Recorded:
        """Nothing is computed while it is recorded."""
        graph, read = torch.cuda.CUDAGraph(), triples.clone()
        self.optimiser.zero_grad(set_to_none=True)  # so that gradients are made in the graph's own memory
        with torch.cuda.graph(graph):
            loss = self._compute(read)
        return _Recorded(graph, read, loss)

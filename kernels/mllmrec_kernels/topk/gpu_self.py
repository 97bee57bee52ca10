"""The exact graph of rows with themselves on the GPU: an int8 product proposes, the float64 score decides.

P, loss and step are those of gpu_int8.py: a score lies within loss(query) + loss(item) of P, in units of step².

1. **A threshold.** If k different items have P - loss(item) >= v, the k-th best scores at least v - loss(query), and an
   item of P + loss(item) < v - 2 loss(query) is not among the best k. A sample of the items gives v at first.
2. **Pairs.** One triangle of products serves both sides of a pair. What either list may take goes to queues, then to
   the lists. Between the steps of `_schedule` the lists' own k-th best raise the thresholds.
3. **Decision.** What the list's k-th best does not rule out, some dozens, is scored exactly, and the k best by (score
   falling, id rising) are the answer. So the order of arrival does not show.

A list or a queue that overflows is reported, not repaired: gpu.py solves those rows by float16, or all of them. Rows
whose products are all alike come to that.

Bytes, n rows of d columns: 8 n capacity of lists, n d of int8, 16 limit for each thread's queue. Work: n² / 2 d
(1 + 2 / stride) multiply-adds of int8. Bound by the tensor cores.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from mllmrec_kernels.exact import gpu_int8, gpu_queue, gpu_score
from mllmrec_kernels.topk import gpu_pairs

LARGEST_K, WIDEST = 32, 768  # neighbors, and columns, that this way is for
ROWS, COLUMNS, WARPS, STAGES, TOGETHER = 128, 64, 4, 2, 2  # tile of products; programs of it a multiprocessor holds
SAMPLED, SAMPLE_WARPS = 128, 8  # both sides of a tile of the sample
NARROW = 384  # columns up to which two steps of the sample fit in shared memory
UNIT = 256  # of rows, to which steps and padding are rounded: a multiple of tiles
MANY = 2**16  # from so many rows on: a thinner sample, and thresholds that are raised on the way
STRIDE, STRIDE_MANY = 4, 32  # one item in so many is in the sample
CAPACITY, CAPACITY_MANY = 32, 64  # keys that a list has room for: for each neighbor,
LEAST_CAPACITY, LEAST_CAPACITY_MANY = 512, 1024  # and at least; powers of two
LENGTH, LENGTH_MANY = 1024, 4096  # items that pass a block of rows at a time
LIMIT, SHARE = 512, 1280  # pairs that a thread's queue has room for: at least, and one for so many neighbors
CROWDED = 0.3  # of the capacity: a list as full after the first step will overflow
EMPTIED, SCORED = 128, 32  # pairs that a program takes from a queue at a time, and that it scores at a time


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the triangle, and the lists whose thresholds are raised after it."""

    rows: tuple[int, int]
    items: tuple[int, int]
    raised: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Sizes:
    """Hold the sizes that the number of rows and of neighbors sets; the constants say how."""

    stride: int
    capacity: int
    length: int
    limit: int
    queues: int


class _CrowdedError(Exception):
    """Too much passes the thresholds for lists of this size."""


def suits(n: int, d: int, k: int, device: torch.device, max_bytes: int) -> bool:
    """Tell if a graph of n rows can be made this way: on a Hopper GPU, or in the interpreter."""
    sizes = _sizes(n, k, device)
    rows = n * (8 * sizes.capacity + gpu_int8.padded(d) + 4 * SCORED + 64)
    queues = sizes.queues * (16 * sizes.limit + 4)
    hopper = device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9
    return hopper and 0 < k <= LARGEST_K and gpu_int8.padded(d) <= WIDEST and rows + queues <= max_bytes


def neighbors(
    x: Tensor, weights: Tensor, k: int, threshold: float | None, *, exclude_self: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return ids int32 [n, k], scores float32 [n, k], and the rows left unsolved, int64 [.].

    Args:
        x: float32 [n, d].
        weights: float64 [n], 1 / |row|, 0 for a row that has no score.
        k: neighbors, at most n.
        threshold: least float32 cosine; None for all.
        exclude_self: leave row q out of list q.
    """
    n = len(x)
    ids = torch.empty((n, k), dtype=torch.int32, device=x.device)
    scores = torch.empty((n, k), device=x.device)
    graph = _Graph(x, weights, k, threshold, exclude_self=exclude_self)
    try:
        graph.fill()
    except _CrowdedError:
        return ids, scores, torch.arange(n, device=x.device)
    return ids, scores, graph.decide(ids, scores)


def _sizes(n: int, k: int, device: torch.device) -> Sizes:
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    queues = gpu_queue.threads_of(processors * TOGETHER, WARPS)
    limit = max(LIMIT, triton.next_power_of_2(n * k // SHARE))
    if n < MANY:
        return Sizes(STRIDE, max(LEAST_CAPACITY, triton.next_power_of_2(CAPACITY * k)), LENGTH, limit, queues)
    capacity = max(LEAST_CAPACITY_MANY, triton.next_power_of_2(CAPACITY_MANY * k))
    return Sizes(STRIDE_MANY, capacity, LENGTH_MANY, limit, queues)


def _schedule(n: int) -> list[Step]:
    """Split the triangle so that what a list has met about doubles from one raising of its threshold to the next.

    Rows are taken in bands. After a band, every later list has met the items up to its end. The first bands meet near
    items first, so that their own thresholds have risen when they meet the others.
    """
    end = -(-n // UNIT) * UNIT
    if n < MANY:
        return [Step((0, end), (0, end), (0, 0))]
    sixteenth, eighth, quarter, half = (max(UNIT, n // part // UNIT * UNIT) for part in (16, 8, 4, 2))
    return [
        Step((0, sixteenth), (0, eighth), (0, eighth)),
        Step((0, sixteenth), (eighth, end), (sixteenth, n)),
        Step((sixteenth, eighth), (0, quarter), (sixteenth, quarter)),
        Step((sixteenth, eighth), (quarter, end), (eighth, n)),
        Step((eighth, quarter), (0, half), (eighth, quarter)),
        Step((eighth, quarter), (half, end), (quarter, n)),
        Step((quarter, half), (0, end), (half, n)),
        Step((half, end), (0, end), (0, 0)),
    ]


class _Graph:
    """Encoded rows, their thresholds and lists."""

    def __init__(self, x: Tensor, weights: Tensor, k: int, threshold: float | None, *, exclude_self: bool) -> None:
        self.x, self.weights, self.k, self.exclude_self = x, weights, k, exclude_self
        self.sizes = _sizes(len(x), k, x.device)
        self.rows = gpu_int8.encode(x, weights, UNIT)
        self.min_score = weights.new_tensor([-torch.inf if threshold is None else threshold]).float().double()
        self.low = torch.empty(len(self.rows.loss), dtype=torch.int32, device=x.device)
        self.counts = torch.zeros(len(x), dtype=torch.int32, device=x.device)
        self.keys = torch.empty((len(x), self.sizes.capacity), dtype=torch.int64, device=x.device)
        self.overflow = torch.zeros(2, dtype=torch.int32, device=x.device)  # a queue was full; lists that were
        self._sample(-(2**28) if threshold is None else _round_down(threshold, self.rows.step))

    def _sample(self, least: int) -> None:
        height, width = self.rows.q.shape
        gpu_pairs.sample_low[(height // SAMPLED,)](
            self.rows.q, self.rows.loss, self.low, least, self.k, self.sizes.stride,
            -(-len(self.x) // self.sizes.stride), height - 1, EXCLUDE_SELF=self.exclude_self, D=width, BM=SAMPLED,
            BN=SAMPLED, STAGES=STAGES if width <= NARROW else 1, num_warps=SAMPLE_WARPS, **gpu_score.FUSED,
        )  # fmt: skip

    def fill(self) -> None:
        """Fill the lists; raises _CrowdedError if they would overflow."""
        sizes, k = self.sizes, self.k
        queue = torch.empty(sizes.queues * (1 + sizes.limit * gpu_queue.ENTRY.value), dtype=torch.int32,
                            device=self.x.device)  # fmt: skip
        chosen = torch.empty((len(self.x), SCORED), dtype=torch.int32, device=self.x.device)
        for number, step in enumerate(_schedule(len(self.x))):
            self._pairs(step, queue)
            first, last = step.raised[0], min(step.raised[1], len(self.x))
            if number == 0 and last:
                met = self.counts[: step.rows[1]]
                if float(met.float().mean()) > CROWDED * sizes.capacity:
                    raise _CrowdedError
            if first < last:
                gpu_pairs.raise_low[(last - first,)](
                    self.keys, self.counts, self.rows.loss, self.low, chosen, self.x, self.weights, first,
                    sizes.capacity, k, self.x.shape[1], UNITS=self.rows.step**-2, W=sizes.capacity, B=SCORED,
                    num_warps=1, **gpu_score.FUSED,
                )  # fmt: skip

    def _pairs(self, step: Step, queue: Tensor) -> None:
        sizes = self.sizes
        cursors = queue[: sizes.queues]
        cursors.zero_()
        gpu_pairs.queue_pairs[(sizes.queues // (32 * WARPS) or 1,)](
            self.rows.q, self.rows.loss, self.low, queue, *step.rows, *step.items, sizes.limit,
            D=self.rows.q.shape[1], BM=ROWS, BN=COLUMNS, LENGTH=sizes.length, STAGES=STAGES, num_warps=WARPS,
            **gpu_score.FUSED,
        )  # fmt: skip
        gpu_pairs.fill_lists[(sizes.queues,)](
            queue, self.rows.loss, self.low, self.keys, self.counts, self.overflow, sizes.limit, sizes.capacity,
            B=EMPTIED, **gpu_score.FUSED,
        )  # fmt: skip

    def decide(self, ids: Tensor, scores: Tensor) -> Tensor:
        """Write the answer of each list; the rows whose lists overflowed, int64 [.]."""
        n, d = self.x.shape
        gpu_pairs.decide[(n,)](
            self.keys, self.counts, self.rows.loss, self.rows.largest, self.x, self.weights, self.min_score, ids,
            scores, self.overflow[1:], d, self.sizes.capacity, self.k, INCLUDE_SELF=not self.exclude_self,
            W=self.sizes.capacity, B=SCORED, num_warps=1, **gpu_score.FUSED,
        )  # fmt: skip
        queue_full, full = self.overflow.tolist()
        if queue_full:
            return torch.arange(n, device=ids.device)
        return (self.counts >= self.sizes.capacity).nonzero()[:, 0] if full else self.counts.new_zeros(0).long()


def _round_down(threshold: float, step: float) -> int:
    """Return a bound below the products of a score of `threshold`, in units of step², within int32."""
    return max(-(2**28), min(2**28, int((threshold - 2.0**-20) / step**2) - 1))

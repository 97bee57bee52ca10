"""Run work in batches that fit: by length under a budget, prepared ahead on a thread, halved when memory runs out.

Knows neither models nor texts: requests have a group and a cost, and three functions do the rest. Every request
gets a result; one that fails by itself is recorded as failed, the others go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")
_GROW_AFTER = 4  # batches that went well before a halved size is doubled


@dataclass
class Capacity:
    """The size of a batch, now and at most.

    Attributes:
        most: requests per batch, at the best of times.
        tokens: a batch's requests times its longest one's tokens, at most.
        size: requests per batch, now.
    """

    most: int
    tokens: int
    size: int = field(init=False)
    _well: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.size = self.most

    def ran_out(self, tried: int) -> None:
        """Halve the next batch: one of `tried` requests did not fit."""
        self.size, self._well = max(tried // 2, 1), 0

    def went_well(self) -> None:
        """Double the next batch again after a few batches that fit."""
        self._well += 1
        if self._well >= _GROW_AFTER and self.size < self.most:
            self.size, self._well = min(2 * self.size, self.most), 0

    def holds(self, count: int, longest: int) -> bool:
        """Return whether `count` requests fit, the longest of `longest` tokens; one always does."""
        return count <= 1 or (count <= self.size and count * longest <= self.tokens)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of one request: only those of an equal `group` go together, by `tokens`."""

    group: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Batches(Generic[P, R]):
    """The three functions that run requests in batches.

    Attributes:
        prepare: numbers of requests -> what the model takes; runs on a thread, ahead of the model.
        compute: numbers and what was prepared -> a result each.
        failed: the result of a request that fails by itself.
        free: called after memory ran out.
    """

    prepare: Callable[[Sequence[int]], P]
    compute: Callable[[Sequence[int], P], list[R]]
    failed: Callable[[Exception], R]
    free: Callable[[], None]

    def run(
        self,
        costs: Sequence[Cost],
        capacity: Capacity,
        report: Callable[[int, Mapping[int, R]], object] = lambda done, results: None,
    ) -> list[R]:
        """Return one result per request, in the order of `costs`.

        Args:
            costs: one a request.
            capacity: of this machine; it learns.
            report: called after each batch, with the number of requests done, and with the results of the batch.
        """
        # The longest first: if memory runs out, then at once and not after hours.
        todo = sorted(range(len(costs)), key=lambda n: (costs[n].group, costs[n].tokens, n), reverse=True)
        done: dict[int, R] = {}
        with ThreadPoolExecutor(1) as thread:

            def start() -> tuple[list[int], Future[P] | None]:
                batch = _take(todo, costs, capacity)
                return batch, thread.submit(self.prepare, batch) if batch else None

            batch, ahead = start()
            while ahead is not None:
                following, following_ahead = start()
                results = self._attempt(batch, ahead)
                if results is None:
                    capacity.ran_out(len(batch))
                    self.free()
                    todo[:0] = [*batch, *following]
                    following, following_ahead = start()
                else:
                    done |= zip(batch, results, strict=True)
                    report(len(done), {n: done[n] for n in batch})
                batch, ahead = following, following_ahead
                if results is not None:
                    capacity.went_well()
        return [done[n] for n in range(len(costs))]

    def _attempt(self, batch: list[int], ahead: Future[P]) -> list[R] | None:
        """Return results, or None if memory ran out and the batch can be halved."""
        try:
            return self.compute(batch, ahead.result())
        except Exception as error:  # models and processors raise what they like
            if len(batch) == 1:
                return [self.failed(error)]
            if is_out_of_memory(error):
                return None
        return [self._alone(n) for n in batch]

    def _alone(self, n: int) -> R:
        """Run one request alone, after its batch failed for another reason than memory; so a bad one fails alone."""
        try:
            return self.compute([n], self.prepare([n]))[0]
        except Exception as error:
            return self.failed(error)


def _take(todo: list[int], costs: Sequence[Cost], capacity: Capacity) -> list[int]:
    """Take the next batch off the front of `todo`; its first is the longest of its group."""
    count = 0
    while count < len(todo):
        first, last = costs[todo[0]], costs[todo[count]]
        if last.group != first.group or not capacity.holds(count + 1, max(first.tokens, last.tokens)):
            break
        count += 1
    batch, todo[:] = todo[:count], todo[count:]
    return batch


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that a GPU's or the machine's memory is used up."""
    if isinstance(error, MemoryError):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "can't allocate memory" in text)

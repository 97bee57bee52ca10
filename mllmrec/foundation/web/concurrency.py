"""Send many requests: in an event loop of their own, as many at once as pays, each again after a failure.

The limit of requests at once grows while that pays, and is halved when the server refuses: additive increase,
multiplicative decrease, with a slow start. A round is as many replies as the limit. Its throughput by Little's law is
limit / mean latency; a step up must gain at least half of what it would on an idle server. Otherwise the server only
queues, and the step is taken back. Refusals (429, 503) and timeouts halve the limit, once for all requests that were
sent under it.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

T = TypeVar("T")
Item = TypeVar("Item")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Return a coroutine's result, from an event loop in a thread of its own.

    A caller that has a loop already (a notebook) may call this too. Whatever interrupts the caller cancels the
    coroutine, and is raised once that has cleaned up.
    """
    cancel: Future[Callable[[], object]] = Future()
    with ThreadPoolExecutor(1, thread_name_prefix="web") as thread:
        outcome = thread.submit(asyncio.run, _cancellable(main, cancel))
        try:
            return outcome.result()
        except BaseException:
            if not outcome.done():
                cancel.result()()
            raise


async def _cancellable(main: Coroutine[Any, Any, T], cancel: Future[Callable[[], object]]) -> T:
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    cancel.set_result(lambda: loop.call_soon_threadsafe(task.cancel))
    return await main


async def for_each(items: Sequence[Item], work: Callable[[int, Item], Awaitable[None]], *, workers: int) -> None:
    """Call `work(n, item)` for every item; the first error cancels the others and is raised.

    Args:
        items: the items, in the order in which they are started.
        work: called with each item's number and the item.
        workers: the most calls at once.
    """
    pending = iter(enumerate(items))

    async def loop() -> None:
        for n, item in pending:
            await work(n, item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(workers, len(items))):
                group.create_task(loop())
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None


_START = 4
_STEPS = 16  # additive steps from none to the most
_GAIN = 0.5  # share of the ideal gain that a step up must bring
_HOLD = 8  # rounds at one limit before the next try to raise it
_ROUND = 4  # replies that a round has at least


class ConcurrencyPolicy:
    """The limit of requests at once; it has no clock, the callers pass the times.

    Args:
        most: the limit's own limit.
    """

    def __init__(self, most: int) -> None:
        self.limit = min(_START, most)
        self._most = most
        self._doubling = True
        self._hold = 0
        self._below: tuple[int, float] | None = None  # limit and throughput of the step below
        self._since = float("-inf")  # when the limit changed last
        self._replies, self._seconds = 0, 0.0  # of this round

    def succeeded(self, sent: float, now: float) -> None:
        """Record a request that was sent while the limit was used up, and was answered.

        Args:
            sent: when it was sent, in seconds.
            now: when it was answered.
        """
        if sent < self._since:
            return  # it was sent under an earlier limit
        self._replies += 1
        self._seconds += now - sent
        if self._replies >= max(self.limit, _ROUND):
            before = self.limit
            self._turn(self.limit * self._replies / max(self._seconds, 1e-9))
            self._replies, self._seconds = 0, 0.0
            self._since = now if self.limit != before else self._since

    def _turn(self, throughput: float) -> None:
        if self._below is not None and throughput < self._least_throughput(*self._below):
            self.limit, self._below = self._below[0], None
            self._doubling, self._hold = False, _HOLD
        elif self._hold:
            self._hold -= 1
        elif self.limit < self._most:
            self._below = self.limit, throughput
            step = self.limit if self._doubling else max(1, self._most // _STEPS)
            self.limit = min(self._most, self.limit + step)

    def _least_throughput(self, limit: int, throughput: float) -> float:
        return throughput * (1 + _GAIN * (self.limit / limit - 1))

    def overloaded(self, sent: float, now: float) -> None:
        """Record a request that was refused for want of capacity, or timed out.

        Args:
            sent: when it was sent, in seconds.
            now: when it failed.
        """
        if sent < self._since:
            return
        self.limit = max(1, self.limit // 2)
        self._doubling, self._hold, self._below = False, 1, None
        self._since, self._replies, self._seconds = now, 0, 0.0


@dataclass(slots=True)
class Ticket:
    """Permission for one request.

    Attributes:
        sent: when it was let through, seconds of the event loop.
        full: whether it was the last that the limit allowed.
    """

    sent: float
    full: bool


class Gate:
    """Let requests through, as many at once as the policy allows; it belongs to one event loop."""

    def __init__(self, policy: ConcurrencyPolicy) -> None:
        self._policy = policy
        self._under_way = 0
        self._opens = float("-inf")
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[Ticket]:
        """Wait for a place and hold it; leave without an error only when the server answered well."""
        loop = asyncio.get_running_loop()
        async with self._changed:
            await self._changed.wait_for(lambda: self._under_way < self._policy.limit)
            self._under_way += 1
        try:
            while (wait := self._opens - loop.time()) > 0:
                await asyncio.sleep(wait)
            ticket = Ticket(loop.time(), self._under_way >= self._policy.limit)
            yield ticket
            if ticket.full:
                self._policy.succeeded(ticket.sent, loop.time())
        finally:
            self._under_way -= 1
            async with self._changed:
                self._changed.notify_all()

    def overloaded(self, ticket: Ticket) -> None:
        """Tell the policy that the server had no capacity for this request."""
        self._policy.overloaded(ticket.sent, asyncio.get_running_loop().time())

    def pause(self, seconds: float) -> None:
        """Let nothing through for `seconds`."""
        self._opens = max(self._opens, asyncio.get_running_loop().time() + seconds)


BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
"""Statuses after which the same request may succeed."""
OVERLOADED = frozenset({429, 503, 529})
"""Statuses by which a server asks for less."""

_FIRST_SECONDS = 0.5
_MOST_SECONDS = 30.0


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of the Retry-After header (seconds or an HTTP date), None if it cannot be read.

    A date is compared with the server's own Date header if there is one, so that a wrong clock here does no harm.
    """
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        moment = _moment(value)
        if moment is None:
            return None
        seconds = (moment - (_moment(headers.get("date", "")) or datetime.now(UTC))).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _moment(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, TypeError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def backoff(attempt: int, *, seed: int, name: object) -> float:
    """Return the seconds to wait after a failed attempt: doubled each time, less a random part of up to half.

    The random part is a hash: equal runs wait equally, and different requests wait differently.

    Args:
        attempt: the number of the failed attempt, from 0.
        seed: of the hash.
        name: the request.

    Returns:
        Seconds, between half and all of min(30, 0.5 * 2^attempt).
    """
    digest = hashlib.sha256(f"{seed} {name} {attempt}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return min(_MOST_SECONDS, _FIRST_SECONDS * 2.0**attempt) * (0.5 + 0.5 * share)

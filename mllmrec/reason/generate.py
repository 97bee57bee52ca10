"""Requests through the cache: each distinct request is asked once, and kept as soon as its batch is done."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mllmrec.errors import EngineError
from mllmrec.foundation.progress import Progress
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.engine import Answer

Request = TypeVar("Request")
WITHOUT_TEXT = ("failed", "unusable")
_JUDGED_FROM = 20  # requests before the share of failures means anything


@dataclass(frozen=True, slots=True)
class Asking:
    """How a stage goes about its requests.

    Attributes:
        retry_failed: ask again what brought nothing to use before.
        limit: stop after so many requests; 0: none. What they brought is in the cache.
        max_failures: a larger share of requests without a usable answer stops the run.
    """

    retry_failed: bool = False
    limit: int = 0
    max_failures: float = 1.0


class LimitReached(Exception):  # noqa: N818 - it is no error: the user asked for it
    """So many requests were asked as was allowed; the stage is not done.

    Attributes:
        samples: a few of the fresh answers.
    """

    def __init__(self, label: str, asked: int, left: int, samples: Sequence[Answer]) -> None:
        super().__init__(
            f"{label}: stopped after {asked:,} requests as asked, {left:,} are left; without --limit the same command "
            "goes on from here"
        )
        self.samples = tuple(samples)


def generate(
    *,
    keys: Sequence[str],
    requests: Sequence[Request],
    ask: Callable[[Sequence[Request]], list[Answer]],
    batch_size: Callable[[], int],
    cache: GenerationCache,
    progress: Progress,
    label: str,
    engine: str = "",
    asking: Asking | None = None,
) -> list[Answer]:
    """One answer a request, in order.

    Args:
        keys: the cache key of each request; requests with one key get one answer.
        requests: what to ask.
        ask: the engine; must answer each request of a batch, in order.
        batch_size: requests a call; asked before each, since an engine learns what it can bear.
        cache: read first, written after each batch; failed answers are not kept, so a rerun asks again, while
            unusable ones are, since asking the same again would bring the same.
        progress: told after each batch.
        label: what progress calls this.
        engine: the engine's fingerprint, noted beside each answer for `mllmrec cache`.
        asking: limits and retries.

    Raises:
        EngineError: the engine answered with another number of texts than it was asked for, or too many of its
            answers cannot be used.
        LimitReached: there was a limit, and requests are left.
    """
    asking = asking or Asking()
    answers = cache.get(dict.fromkeys(keys))
    if asking.retry_failed:
        answers = {key: answer for key, answer in answers.items() if answer.status not in WITHOUT_TEXT}
    missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
    pending = list(missing.items())
    total = min(len(pending), asking.limit) if asking.limit else len(pending)
    fresh: dict[str, Answer] = {}
    start = 0
    while start < total:
        batch = pending[start : min(start + batch_size(), total)]
        began = time.perf_counter()
        replies = ask([request for _, request in batch])
        if len(replies) != len(batch):
            raise EngineError(f"{label}: the engine gave {len(replies)} answers to {len(batch)} requests")
        new = {key: reply for (key, _), reply in zip(batch, replies, strict=True)}
        kept = {key: reply for key, reply in new.items() if reply.status != "failed"}
        cache.put(kept, ask=label, engine=engine, seconds=time.perf_counter() - began)
        fresh |= new
        start += len(batch)
        progress(label, start, total)
        if len(fresh) + len(answers) >= _JUDGED_FROM:
            _check_failures(label, [*fresh.values(), *answers.values()], asking.max_failures)
    _check_failures(label, [*fresh.values(), *answers.values()], asking.max_failures)
    if total < len(pending):
        raise LimitReached(label, total, len(pending) - total, list(fresh.values())[:5])
    answers |= fresh
    return [answers[key] for key in keys]


def _check_failures(label: str, known: Sequence[Answer], most: float) -> None:
    """Stop where too many of all answers so far, cached ones included, hold nothing to use."""
    bad = [answer.reason for answer in known if answer.status in WITHOUT_TEXT]
    if len(bad) <= most * len(known):
        return
    reason, count = Counter(bad).most_common(1)[0]
    raise EngineError(
        f"{label}: {len(bad):,} of {len(known):,} requests brought nothing to use, {count:,} of them for: {reason}; "
        f"what went well is kept; mend that and run again with --retry-failed, or raise max_failures (now {most:g})"
    )

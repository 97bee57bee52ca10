"""Requests through the cache: each distinct request is asked once, and kept as soon as its batch is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mllmrec.errors import EngineError
from mllmrec.progress import Progress
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.engine import Answer

Request = TypeVar("Request")


def generate(
    *,
    keys: Sequence[str],
    requests: Sequence[Request],
    ask: Callable[[Sequence[Request]], list[Answer]],
    batch_size: int,
    cache: GenerationCache,
    progress: Progress,
    label: str,
) -> list[Answer]:
    """One answer a request, in order.

    Args:
        keys: the cache key of each request; requests with one key get one answer.
        requests: what to ask.
        ask: the engine; must answer each request of a batch, in order.
        batch_size: requests a call.
        cache: read first, written after each batch; failed answers are not kept, so a rerun asks again.
        progress: told after each batch.
        label: what progress calls this.

    Raises:
        EngineError: the engine answered with another number of texts than it was asked for.
    """
    answers = cache.get(dict.fromkeys(keys))
    open_requests = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
    pending = list(open_requests.items())
    total = len(pending)
    for start in range(0, total, batch_size):
        batch = pending[start : start + batch_size]
        replies = ask([request for _, request in batch])
        if len(replies) != len(batch):
            raise EngineError(f"{label}: the engine gave {len(replies)} answers to {len(batch)} requests")
        fresh = {key: reply for (key, _), reply in zip(batch, replies, strict=True)}
        cache.put({key: reply for key, reply in fresh.items() if reply.status != "failed"})
        answers |= fresh
        progress(label, min(start + batch_size, total), total)
    return [answers[key] for key in keys]

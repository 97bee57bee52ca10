"""Run requests through the cache, and read hidden states shard by shard; a killed stage goes on where it was.

Each distinct request goes to the engine once. Its answer is kept as soon as the engine reports it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mllmrec.errors import EngineError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.progress import Progress
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.engine import NO_RESULTS, WITHOUT_TEXT, Answer, ChatRequest, HistoryItem, Report
from mllmrec.reason.history_prompts import HiddenProfiler

Request = TypeVar("Request")
_JUDGED_FROM = 20  # requests before the share of failures means anything
_SAMPLES = 5  # fresh answers that are shown where a limit stops a stage


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """Limits and retries of the stages that generate.

    Attributes:
        retry_failed: repeat requests that brought nothing to use before.
        limit: stop after so many requests; 0: none. Their answers are in the cache.
        max_failures: a larger share of requests without a usable answer stops the run.
        stage: "describe" or "profile", the one that the limit stops; empty: both.
    """

    retry_failed: bool = False
    limit: int = 0
    max_failures: float = 1.0
    stage: str = ""

    def of_stage(self, stage: str, max_failures: float) -> GenerationLimits:
        """Return the limits of one stage: the limit on requests belongs to the stage that is named."""
        limit = self.limit if self.stage in ("", stage) else 0
        return replace(self, limit=limit, max_failures=max_failures)


class LimitReached(Exception):  # noqa: N818 - it is no error: the user set the limit
    """The limit on requests is used up; the stage is not done.

    Attributes:
        samples: a few of the fresh answers.
    """

    def __init__(self, label: str, done: int, left: int, samples: Sequence[Answer]) -> None:
        super().__init__(
            f"{label}: stopped after {done:,} requests by --limit, {left:,} are left; without --limit the same command "
            "goes on from here"
        )
        self.samples = tuple(samples)


def generate(
    *,
    keys: Sequence[str],
    requests: Sequence[Request],
    complete: Callable[[Sequence[Request], Report[Answer]], list[Answer]],
    batch_size: Callable[[], int],
    cache: GenerationCache,
    progress: Progress,
    label: str,
    engine: str = "",
    limits: GenerationLimits | None = None,
) -> list[Answer]:
    """Return one answer per request, in order.

    Args:
        keys: the cache key of each request; requests with one key get one answer.
        requests: items, or histories.
        complete: the engine; it answers each request of a batch, in order, and reports what it has done.
        batch_size: requests per call; called before each, since an engine learns its capacity.
        cache: read first, written with each report of answers, and after each batch. Failed answers are not kept, so
            a rerun tries again; unusable ones are, since the same request would bring the same.
        progress: called while a batch runs, and after it.
        label: of the progress.
        engine: the engine's fingerprint, noted beside each answer for `mllmrec cache`.
        limits: limits and retries.

    Raises:
        EngineError: the engine gave another number of answers, or too many of them cannot be used.
        LimitReached: there was a limit, and requests are left.
    """
    limits = limits or GenerationLimits()
    answers = cache.get(dict.fromkeys(keys))
    if limits.retry_failed:
        answers = {key: answer for key, answer in answers.items() if answer.status not in WITHOUT_TEXT}
    missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in answers}
    pending = list(missing.items())
    total = min(len(pending), limits.limit) if limits.limit else len(pending)
    fresh: dict[str, Answer] = {}
    counter = _Counter(progress, label, total)
    while len(fresh) < total:
        start = len(fresh)
        batch = pending[start : min(start + batch_size(), total)]
        keeper = _Keeper(cache, [key for key, _ in batch], label, engine)
        replies = complete([request for _, request in batch], counter.from_start(start, len(batch), keeper))
        if len(replies) != len(batch):
            raise EngineError(f"{label}: the engine gave {len(replies)} answers to {len(batch)} requests")
        keeper.put(dict(enumerate(replies)))
        fresh |= {key: reply for (key, _), reply in zip(batch, replies, strict=True)}
        counter.show(len(fresh))
        if len(fresh) + len(answers) >= _JUDGED_FROM:
            _check_failures(label, [*fresh.values(), *answers.values()], limits.max_failures)
    _check_failures(label, [*fresh.values(), *answers.values()], limits.max_failures)
    if total < len(pending):
        raise LimitReached(label, total, len(pending) - total, list(fresh.values())[:_SAMPLES])
    answers |= fresh
    return [answers[key] for key in keys]


def open_requests(
    requests: Mapping[str, Request], cache: GenerationCache, *, retry_failed: bool = False
) -> dict[str, Request]:
    """Return the requests that no cached answer covers, in order.

    Args:
        requests: by cache key.
        cache: of generations.
        retry_failed: an answer that cannot be used covers none.
    """
    answers = cache.get(requests)
    held = {key for key, answer in answers.items() if not retry_failed or answer.status not in WITHOUT_TEXT}
    return {key: request for key, request in requests.items() if key not in held}


class _Keeper:
    """Keep the answers of one batch as they come, each once, whatever thread reports it.

    Args:
        cache: where they are kept.
        keys: of the batch's requests, in order.
        label: the stage's.
        engine: its fingerprint.
    """

    def __init__(self, cache: GenerationCache, keys: Sequence[str], label: str, engine: str) -> None:
        self._cache, self._keys, self._label, self._engine = cache, keys, label, engine
        self._kept: set[int] = set()
        self._lock, self._since = threading.Lock(), time.perf_counter()

    def put(self, answers: Mapping[int, Answer]) -> None:
        """Keep answers by their request's place in the batch; failed ones are left out."""
        with self._lock:
            new = {n: one for n, one in answers.items() if n not in self._kept and one.status != "failed"}
            if not new:
                return
            now = time.perf_counter()
            named = {self._keys[n]: answer for n, answer in new.items()}
            self._cache.put(named, question=self._label, engine=self._engine, seconds=now - self._since)
            self._since = now
            self._kept |= new.keys()


class _Counter:
    """The progress of a stage, which only grows, whatever thread reports it."""

    def __init__(self, progress: Progress, label: str, total: int) -> None:
        self._progress, self._label, self._total = progress, label, total
        self._lock, self._shown = threading.Lock(), -1
        self._tokens = 0
        if total:
            self.show(0)

    def from_start(self, start: int, size: int, keeper: _Keeper) -> Report[Answer]:
        """Return a report for a batch.

        Args:
            start: requests before it.
            size: requests of it.
            keeper: of its answers.
        """
        before = self._tokens

        def report(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Answer] = NO_RESULTS) -> None:
            keeper.put(results)
            self.show(start + done)
            if tokens:
                self._show_tokens(before + tokens, before + round(most * (self._total - start) / size))

        return report

    def _show_tokens(self, tokens: int, most: int) -> None:
        """Show the new tokens so far, and how many all requests may come to."""
        with self._lock:
            if tokens > self._tokens:
                self._tokens = tokens
                self._progress(f"{self._label}: new tokens, of at most", tokens, max(tokens, most))

    def show(self, done: int) -> None:
        """Show how many requests are done."""
        with self._lock:
            if done > self._shown:
                self._shown = done
                self._progress(self._label, min(done, self._total), self._total)


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


def hidden_states(
    engine: HiddenProfiler, histories: Sequence[Sequence[HistoryItem]], parts: Path | None, progress: Progress
) -> tuple[NDArray[np.float32], list[Answer]]:
    """Return the states that a language model holds after reading each history, pooled.

    One prefill over the prompt of a profile, and no decoding.

    Args:
        engine: model and prompts.
        histories: [U] oldest first, empty if a user has none.
        parts: folder for finished shards.
        progress: called after each shard.

    Returns:
        float32 [U, width], zero rows if there are no states, and [U] answers of status "hidden", "empty" or
        "failed".
    """
    requests = [engine.request(history) if history else None for history in histories]
    distinct = list(dict.fromkeys(request for request in requests if request))
    rows: dict[ChatRequest, NDArray[np.float32]] = {}
    size = engine.model.batch_size
    for start in range(0, len(distinct), size):
        progress("read hidden states", len(rows), len(distinct))
        shard = distinct[start : start + size]
        rows |= zip(shard, _shard(engine, shard, parts), strict=True)
    progress("read hidden states", len(rows), len(distinct))
    vectors = np.zeros((len(histories), engine.model.width), np.float32)
    answers = [Answer("", "empty", "no training items")] * len(histories)
    for user, request in enumerate(requests):
        if request is None:
            continue
        finite = bool(np.isfinite(rows[request]).all())
        answers[user] = Answer("", "hidden") if finite else Answer("", "failed", "the model could not read the prompt")
        if finite:
            vectors[user] = rows[request]
    return vectors, answers


def _shard(engine: HiddenProfiler, requests: Sequence[ChatRequest], parts: Path | None) -> NDArray[np.float32]:
    """Return the states of a few requests; a finished shard's name is a hash of what it was made from."""
    if parts is None:
        return engine.states(requests)
    name = digests.hash_value([engine.fingerprint, [(request.system, request.text) for request in requests]])
    file = parts / f"{name}.npy"
    if file.exists():
        return np.array(storage.read_array(file))
    states = engine.states(requests)
    storage.write_array(file, states)
    return states

"""Requests taken out of a run, to be answered elsewhere, and the replies brought back into its cache.

What is open is known by cache key; a reply that comes back under its key is judged as one of an engine in this
process is, and the stage then finds it in the cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from mllmrec.reason.asking import judge
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.chat import ChatRequest, Reply


def open_requests(requests: Iterable[tuple[str, ChatRequest]], cache: GenerationCache) -> dict[str, ChatRequest]:
    """The requests that no cached answer covers, by key, each once, in order."""
    distinct = dict(requests)
    held = cache.get(distinct)
    return {key: request for key, request in distinct.items() if key not in held}


def take_in(
    replies: Mapping[str, Reply], asked: Mapping[str, ChatRequest], cache: GenerationCache, *, ask: str, engine: str
) -> Counter[str]:
    """Judge replies and keep those that say something, or that will never say anything; how many of each status.

    Args:
        replies: by key; keys that were not asked are passed over.
        asked: by key, as `open_requests` gave them.
        cache: where they are kept.
        ask, engine: the stage's label and the engine's fingerprint, for `mllmrec cache`.
    """
    answers = {key: judge(reply, asked[key]) for key, reply in replies.items() if key in asked}
    cache.put({key: answer for key, answer in answers.items() if answer.status != "failed"}, ask=ask, engine=engine)
    return Counter(answer.status for answer in answers.values())

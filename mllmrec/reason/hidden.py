"""Users as hidden states: what a multimodal LLM holds of a history after reading it, instead of what it says.

One prefill over the very prompt that a profile would be asked with, and no decoding; the last layer's states are
averaged over the prompt. Vectors are kept shard by shard, so a killed stage goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from mllmrec.foundation import storage
from mllmrec.foundation.progress import Progress
from mllmrec.reason.chat import ChatRequest
from mllmrec.reason.chat_profiler import HistoryPrompts
from mllmrec.reason.engine import Answer, HistoryItem

Vectors = NDArray[np.float32]


class StatesModel(Protocol):
    """A model whose states can be read."""

    @property
    def states_fingerprint(self) -> str:
        """Everything beside the request that shapes the states."""
        ...

    @property
    def batch_size(self) -> int:
        """How many requests one call should hold."""
        ...

    @property
    def width(self) -> int:
        """The hidden size."""
        ...

    def hidden_states(self, requests: Sequence[ChatRequest]) -> Vectors:
        """Float32 [len(requests), width]; the row of a request that cannot be read is NaN."""
        ...


class HiddenProfiler:
    """Reads the states of a model over the prompts of histories."""

    def __init__(self, model: StatesModel, prompts: HistoryPrompts) -> None:
        self.model, self._prompts = model, prompts

    @property
    def fingerprint(self) -> str:
        """The model; the wording shows in the prompts."""
        return f"hidden-states 1 {self.model.states_fingerprint}"

    def request(self, history: Sequence[HistoryItem]) -> ChatRequest:
        """The prompt of a history."""
        return self._prompts.request(history)


def hidden_states(
    engine: HiddenProfiler, told: Sequence[Sequence[HistoryItem]], parts: Path | None, progress: Progress
) -> tuple[Vectors, list[Answer]]:
    """One row a user, zero where there is none, and what became of each.

    Args:
        engine: model and prompts.
        told: [U] histories, oldest first, empty where a user has none.
        parts: folder for finished shards.
        progress: told after each shard.

    Returns:
        float32 [U, width], and [U] answers of status "hidden", "empty" or "failed".
    """
    requests = [engine.request(history) if history else None for history in told]
    distinct = list(dict.fromkeys(request for request in requests if request))
    rows: dict[ChatRequest, Vectors] = {}
    size = engine.model.batch_size
    for start in range(0, len(distinct), size):
        shard = distinct[start : start + size]
        rows |= zip(shard, _shard(engine, shard, parts), strict=True)
        progress("read hidden states", len(rows), len(distinct))
    vectors = np.zeros((len(told), engine.model.width), np.float32)
    answers = [Answer("", "empty", "no training items")] * len(told)
    for user, request in enumerate(requests):
        if request is None:
            continue
        finite = bool(np.isfinite(rows[request]).all())
        answers[user] = Answer("", "hidden") if finite else Answer("", "failed", "the model could not read the prompt")
        if finite:
            vectors[user] = rows[request]
    return vectors, answers


def _shard(engine: HiddenProfiler, requests: Sequence[ChatRequest], parts: Path | None) -> Vectors:
    """The states of a few requests; a finished shard's name is a hash of what it was made from."""
    if parts is None:
        return engine.model.hidden_states(requests)
    name = storage.hash_value([engine.fingerprint, [(request.system, request.text) for request in requests]])
    file = parts / f"{name}.npy"
    if file.exists():
        return np.array(storage.read_array(file))
    states = engine.model.hidden_states(requests)
    storage.write_array(file, states)
    return states

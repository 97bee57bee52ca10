"""What a language model is to the reasoning stage: chat requests in, replies out, in order.

An engine (in-process transformers, a server behind an OpenAI-compatible address) implements `ChatModel` and
knows nothing of items or users; what is asked, and of what, is the prompts' part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

Finish = Literal["stop", "length", "failed"]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question.

    Attributes:
        text: the user's turn, complete; anything from data in it is delimited and neutralised already.
        system: the system turn, empty where there is none.
        images: local files, unchecked: the engine opens them with `foundation.images.open_image`, before the text.
    """

    text: str
    system: str = ""
    images: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        text: the generated text, stripped; empty where there is none.
        finish: "stop" (the model ended by itself), "length" (cut at the limit of new tokens), "failed"
            (`reason` says why).
        reason: one line, empty where all went well.
    """

    text: str
    finish: Finish = "stop"
    reason: str = ""


class ChatModel(Protocol):
    """A model that answers chat requests."""

    @property
    def fingerprint(self) -> str:
        """Everything beside the request that shapes a reply: engine, model, revision, precision, decoding."""
        ...

    @property
    def batch_size(self) -> int:
        """How many requests one call should hold, so that batching or concurrency pays."""
        ...

    def complete(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """One reply a request, in order; raises EngineError only for what would fail every request."""
        ...

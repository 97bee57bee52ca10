"""Define the protocols between the reasoning stages and the engines that answer them.

Engines:
    Describer, Profiler  turn items into descriptions and histories into profiles
    ChatModel            a language model: chat requests in, replies out
    StatesModel          a language model whose hidden states can be read

An engine answers in the order of its requests. It never raises for one bad item: that item's answer says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Never, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

Status = Literal["ok", "text-only", "flagged", "suspect", "unusable", "failed", "empty", "mean", "hidden"]
WITHOUT_TEXT = ("failed", "unusable")
"""Statuses of answers that hold nothing to use."""
WITH_TEXT = ("ok", "flagged", "suspect")
"""Statuses of answers whose text is used."""
Pooling = Literal["mean", "last"]
Finish = Literal["stop", "length", "failed", "refused"]
Result = TypeVar("Result", contravariant=True)
NO_RESULTS: Mapping[int, Never] = MappingProxyType({})
Material = Mapping[str, object]
"""JSON-like facts that shape an answer; they become part of the cache key."""


class Report(Protocol[Result]):
    """Called as one call goes on, from any thread."""

    def __call__(self, done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Result] = NO_RESULTS) -> None:
        """Take how far a call is.

        Args:
            done: requests of the call that are done.
            tokens: new tokens of the call so far; 0 where the engine does not count them.
            most: new tokens that the call may come to.
            results: that have come since the last report, by their request's place in the call. The call returns
                them too, so an engine may leave them out; those that it names survive a kill.
        """
        ...


def no_report(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, object] = NO_RESULTS) -> None:
    """Ignore a report.

    Args:
        done: requests that are done.
        tokens: new tokens so far.
        most: new tokens at most.
        results: that have come.
    """


@dataclass(frozen=True, slots=True)
class Item:
    """One item as the catalogue has it; every text is data, never an instruction.

    Attributes:
        title, brand, description: empty if unknown.
        categories: from general to special.
        price: in the shop's currency, None if unknown.
        images: local files, unchecked: whatever opens them must treat them as hostile.
    """

    title: str
    brand: str
    categories: tuple[str, ...]
    description: str
    price: float | None
    images: tuple[Path, ...]

    @property
    def text(self) -> str:
        """Return all that the catalogue says of the item in words."""
        return " ".join(part for part in (self.title, self.brand, *self.categories, self.description) if part)


@dataclass(frozen=True, slots=True)
class Answer:
    """An engine's answer to one request.

    Attributes:
        text: the generated text, empty if there is none.
        status: one of
            "ok";
            "text-only": the item has no usable image, and `reason` says why where it should have one;
            "flagged": every attempt was cut off, a list or repetitive; the whole sentences of the last are kept;
            "suspect": the text does not seem to depend on its request, see `answer_checks`; it is kept;
            "unusable": nothing usable came, and the same request would bring the same again;
            "failed": the engine could not answer, and may do so later.
            Users of profiles may also be "empty" (no history), "mean" or "hidden" (no text is generated).
        reason: one line, empty if all went well.
    """

    text: str
    status: str = "ok"
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HistoryItem:
    """One item of a user's history, as a profiler sees it.

    Attributes:
        item: index in the catalogue.
        description: the describer's text on the item's pictures.
        time: when the user touched it, None if unknown.
    """

    item: int
    description: str
    time: int | None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a chat model.

    Attributes:
        text: the user's turn, complete; anything from data in it is delimited and neutralized already.
        system: the system turn, empty if there is none.
        images: local files, unchecked: the engine opens them with `foundation.images.open_image`, before the text.
        opening: the first words of the reply, where the engine can begin it.
        sentences: of one paragraph that are wanted; the engine may stop after so many. 0: as many as come.
        examples: earlier turns of the user, each with its answer.
        words: words that the answer may use, if the engine can keep to them; empty: any.
    """

    text: str
    system: str = ""
    images: tuple[Path, ...] = ()
    opening: str = ""
    sentences: int = 0
    examples: tuple[tuple[str, str], ...] = ()
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reply:
    """A chat model's reply.

    Attributes:
        text: the generated text, stripped; empty if there is none.
        finish: "stop" (the model ended by itself), "length" (cut at the limit of new tokens), "failed" (no reply
            came), "refused" (the server will never answer this request). `reason` explains the last two.
        reason: one line, empty if all went well.
        thinking: the model thought before its answer, and the server kept those thoughts apart.
    """

    text: str
    finish: Finish = "stop"
    reason: str = ""
    thinking: bool = False


class ChatModel(Protocol):
    """A model that answers chat requests."""

    @property
    def fingerprint(self) -> str:
        """Return everything beside the request that shapes a reply: engine, model, revision, precision, decoding."""
        ...

    @property
    def batch_size(self) -> int:
        """Return how many requests one call should hold, so that batching or concurrency pays."""
        ...

    def complete(self, requests: Sequence[ChatRequest], report: Report[Reply] = no_report) -> list[Reply]:
        """Return one reply per request, in order; raise EngineError only for what would fail every request."""
        ...


@dataclass(frozen=True, slots=True)
class Readout:
    """Name the hidden states that stand for a request.

    Attributes:
        layer: 0: the embeddings; n: after the n-th layer; -1: after the last, as its head reads them.
        pooling: "mean": over the request's own tokens, what all requests of a template begin with left out; "last": of
            the last token.
    """

    layer: int = -1
    pooling: Pooling = "mean"


class StatesModel(Protocol):
    """A model whose hidden states can be read."""

    @property
    def states_fingerprint(self) -> str:
        """Return everything beside the request that shapes the states."""
        ...

    @property
    def batch_size(self) -> int:
        """Return how many requests one call should hold."""
        ...

    @property
    def width(self) -> int:
        """Return the hidden size."""
        ...

    @property
    def depth(self) -> int:
        """Return the number of layers."""
        ...

    def hidden_states(self, requests: Sequence[ChatRequest], readouts: Sequence[Readout]) -> NDArray[np.float32]:
        """Return float32 [readouts, requests, width]; the rows of a request that cannot be read are NaN."""
        ...


class Describer(Protocol):
    """Item images -> text (D_s of paper section 3.1)."""

    @property
    def fingerprint(self) -> str:
        """Return everything beside the item that shapes an answer: engine, version, prompt, parameters."""
        ...

    @property
    def batch_size(self) -> int:
        """Return how many items one call should hold."""
        ...

    def material(self, item: Item) -> Material:
        """Return what of an item shapes its answer, pictures aside; equal material gets one answer."""
        ...

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return the pictures that are looked at."""
        ...

    def describe(self, items: Sequence[Item], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer per item, in order."""
        ...


class Profiler(Protocol):
    """A user's history -> a preference profile (P_u of paper section 3.1)."""

    @property
    def fingerprint(self) -> str:
        """Return everything beside the history that shapes an answer."""
        ...

    @property
    def batch_size(self) -> int:
        """Return how many histories one call should hold."""
        ...

    def material(self, history: Sequence[HistoryItem]) -> Material:
        """Return what of a history shapes its answer; equal material gets one answer."""
        ...

    def profile(self, histories: Sequence[Sequence[HistoryItem]], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer a history, in order; histories are oldest first."""
        ...

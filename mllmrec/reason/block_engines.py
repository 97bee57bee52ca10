"""Engines of describe and profile in blocks of requests: workers hold the models, and load each once.

Prompts, retries, verdicts and the cache stay with the process that starts the run. Requests go out as texts, and
answers come back as texts. Pictures are read by the workers: their paths must lead to the same files on every machine,
and a worker that lacks one refuses its block. A chat client of a server stays in the starting process, for the server
is the cluster.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work, pack_texts, unpack_texts
from mllmrec.errors import MismatchError
from mllmrec.reason.chat import ChatDescriber, ChatProfiler
from mllmrec.reason.engine import (
    Answer,
    ChatModel,
    ChatRequest,
    HistoryItem,
    Item,
    Material,
    Readout,
    Reply,
    Report,
    no_report,
)
from mllmrec.reason.engines.extractive import ExtractiveDescriber, ExtractiveProfiler
from mllmrec.reason.engines.transformers import TransformersChat
from mllmrec.reason.history_prompts import HiddenProfiler

_CALLS = 64  # blocks of one call
_PICTURES = "pictures that are there"
E = TypeVar("E")


def with_workers(engine: E, blocks: Blocks | None) -> E:
    """Return an engine whose requests workers answer; as it is if there are none, or a server answers."""
    if blocks is None:
        return engine

    def held(model: ChatModel) -> ChatModel:
        return BlockChat(model, blocks) if isinstance(model, TransformersChat) else model

    found: Any = engine
    if isinstance(engine, ExtractiveDescriber):
        found = BlockDescriber(engine, blocks)
    elif isinstance(engine, ExtractiveProfiler):
        found = BlockProfiler(engine, blocks)
    elif isinstance(engine, ChatDescriber | ChatProfiler):
        found = engine.with_model(held)
    elif isinstance(engine, HiddenProfiler) and isinstance(engine.model, TransformersChat):
        found = HiddenProfiler(BlockChat(engine.model, blocks), engine.prompts, engine.readout)
    return found  # type: ignore[no-any-return]


class BlockChat:
    """A model that workers hold; see ChatModel and StatesModel."""

    def __init__(self, chat: TransformersChat, blocks: Blocks) -> None:
        self._chat, self._blocks = chat, blocks

    @property
    def fingerprint(self) -> str:
        """Return that of the model."""
        return self._chat.fingerprint

    @property
    def states_fingerprint(self) -> str:
        """Return that of the model."""
        return self._chat.states_fingerprint

    @property
    def width(self) -> int:
        """Return the hidden size."""
        return self._chat.width

    @property
    def depth(self) -> int:
        """Return the number of layers."""
        return self._chat.depth

    @property
    def batch_size(self) -> int:
        """Return the requests of many blocks."""
        return _CALLS * self._chat.batch_size

    def complete(self, requests: Sequence[ChatRequest], report: Report[Reply] = no_report) -> list[Reply]:
        """Return one reply per request, in order.

        Raises:
            MismatchError: a worker has other weights, another precision, or lacks a picture.
        """
        found = self._run(reply_block, requests, self._chat.fingerprint)
        replies = [Reply(**json.loads(text)) for text in unpack_texts(found)] if found else []
        report(len(replies))
        return replies

    def hidden_states(self, requests: Sequence[ChatRequest], readouts: Sequence[Readout]) -> NDArray[np.float32]:
        """Return the states of each request, float32 [readouts, requests, width]; see StatesModel."""
        found = self._run(states_block, requests, self._chat.states_fingerprint, readouts)
        return found["states"].swapaxes(0, 1) if found else np.zeros((len(readouts), 0, self.width), np.float32)

    def _run(
        self,
        function: Callable[[Block], Arrays],
        requests: Sequence[ChatRequest],
        fingerprint: str,
        readouts: Sequence[Readout] = (),
    ) -> Arrays:
        if not requests:
            return {}
        texts = tuple(_as_text(asdict(request), request.images) for request in requests)
        settings = {"chat": json.dumps(self._chat.as_json(), sort_keys=True), "fingerprint": fingerprint}
        settings["readouts"] = json.dumps([asdict(readout) for readout in readouts])
        size, gpu = self._chat.batch_size, self._chat.device == "cuda"
        work = Work(function, "answer requests", len(texts), size, {"requests": texts}, {}, settings, gpu=gpu)
        return self._blocks.run(work)


def reply_block(block: Block) -> Arrays:
    """Return the replies to the block's requests."""
    chat = _chat(block.settings["chat"])
    _check(chat.fingerprint, block.settings["fingerprint"])
    return pack_texts([json.dumps(asdict(reply)) for reply in chat.complete(_requests(block))])


def states_block(block: Block) -> Arrays:
    """Return the hidden states of the block's requests, float32 [requests, readouts, width]."""
    chat = _chat(block.settings["chat"])
    _check(chat.states_fingerprint, block.settings["fingerprint"])
    readouts = [Readout(**value) for value in json.loads(block.settings["readouts"])]
    return {"states": chat.hidden_states(_requests(block), readouts).swapaxes(0, 1)}


@lru_cache(maxsize=1)
def _chat(settings: str) -> TransformersChat:
    """Return the model of this worker; its weights stay loaded."""
    return TransformersChat.from_json(json.loads(settings))


def _check(own: str, fingerprint: str) -> None:
    if own != fingerprint:
        raise MismatchError(
            f"a worker's model is {own!r}, and the run's is {fingerprint!r}; put the same files everywhere, and name "
            "transformers.device and transformers.dtype"
        )


def _requests(block: Block) -> list[ChatRequest]:
    requests = []
    for value in _values(block.texts("requests")):
        examples = tuple((question, answer) for question, answer in value.pop("examples"))
        images, words = tuple(map(Path, value.pop("images"))), tuple(value.pop("words"))
        requests.append(ChatRequest(**value, images=images, words=words, examples=examples))
    return requests


def _as_text(value: Mapping[str, Any], images: Sequence[Path]) -> str:
    """Return a request as JSON, with the pictures that are there."""
    there = [str(path) for path in images if path.is_file()]
    return json.dumps({**value, "images": [str(path) for path in images], _PICTURES: there})


def _values(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return what `_as_text` wrote.

    Raises:
        MismatchError: a picture is not on this machine.
    """
    values: list[dict[str, Any]] = [json.loads(text) for text in texts]
    for value in values:
        for name in value.pop(_PICTURES):
            if not Path(name).is_file():
                raise MismatchError(
                    f"a worker does not find the picture {name}; put the dataset where every machine sees it by this "
                    "path"
                )
    return values


class BlockDescriber:
    """The extractive Describer in blocks of items."""

    def __init__(self, engine: ExtractiveDescriber, blocks: Blocks) -> None:
        self._engine, self._blocks = engine, blocks
        self.fingerprint, self.batch_size = engine.fingerprint, _CALLS * engine.batch_size

    def material(self, item: Item) -> Material:
        """Return the whole item."""
        return self._engine.material(item)

    def pictures(self, item: Item) -> tuple[Path, ...]:
        """Return all of them."""
        return self._engine.pictures(item)

    def describe(self, items: Sequence[Item], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one answer per item."""
        texts = tuple(_as_text(asdict(item), item.images) for item in items)
        work = Work(describe_block, "describe items", len(items), self._engine.batch_size, {"items": texts})
        return _answers(self._blocks.run(work), len(items), report)


def describe_block(block: Block) -> Arrays:
    """Return the descriptions of the block's items."""
    return _packed(ExtractiveDescriber().describe(_items(block.texts("items"))))


def _items(texts: Sequence[str]) -> list[Item]:
    return [
        Item(**{**value, "categories": tuple(value["categories"]), "images": tuple(map(Path, value["images"]))})
        for value in _values(texts)
    ]


class BlockProfiler:
    """The extractive Profiler in blocks of users; workers count the catalogue once."""

    def __init__(self, engine: ExtractiveProfiler, blocks: Blocks) -> None:
        self._engine, self._blocks = engine, blocks
        self.fingerprint, self.batch_size = engine.fingerprint, _CALLS * engine.batch_size
        self._items = tuple(_as_text(asdict(item), ()) for item in engine.items)

    def material(self, history: Sequence[HistoryItem]) -> Material:
        """Return the items in order."""
        return self._engine.material(history)

    def profile(self, histories: Sequence[Sequence[HistoryItem]], report: Report[Answer] = no_report) -> list[Answer]:
        """Return one profile a history."""
        rows = {"histories": tuple(json.dumps([asdict(entry) for entry in history]) for history in histories)}
        shared = {"items": self._items, "descriptions": tuple(self._engine.descriptions)}
        size, settings = self._engine.batch_size, {"terms": self._engine.terms}
        work = Work(profile_block, "profile users", len(histories), size, rows, shared, settings)
        return _answers(self._blocks.run(work), len(histories), report)


def profile_block(block: Block) -> Arrays:
    """Return the profiles of the block's histories."""

    def profiler() -> ExtractiveProfiler:
        return ExtractiveProfiler(_items(block.texts("items")), block.texts("descriptions"), **block.settings)

    histories = [[HistoryItem(**entry) for entry in json.loads(text)] for text in block.texts("histories")]
    return _packed(block.once("profiler", profiler).profile(histories))


def _packed(answers: Sequence[Answer]) -> Arrays:
    return pack_texts([json.dumps(asdict(answer)) for answer in answers])


def _answers(found: Arrays, count: int, report: Report[Answer]) -> list[Answer]:
    report(count)
    return [Answer(**json.loads(text)) for text in unpack_texts(found)]

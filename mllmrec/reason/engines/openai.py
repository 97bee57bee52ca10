"""A chat model behind an OpenAI-compatible server: vLLM, SGLang, Ollama, llama.cpp, `transformers serve`.

This is the way to many machines: the server may be a cluster. A request that fails is a failed reply in its
place; what would fail every request stops with one line, but never loses a reply that has come.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.errors import EngineError
from mllmrec.reason.chat import ChatRequest, Reply
from mllmrec.reason.engines import openai_format as form
from mllmrec.reason.engines.openai_config import ChatServerConfig
from mllmrec.reason.engines.openai_session import FatalError, Session, TransientError
from mllmrec.web import background
from mllmrec.web.concurrency import ConcurrencyPolicy

_CALL = 8  # requests a call for each that may be under way: few waits at the end of a call
_SIZES = ("n_params", "size", "n_vocab")  # what llama.cpp tells of the weights


class ChatServer:
    """A `ChatModel` that asks a server.

    Args:
        config: which server, which model, and how.

    Raises:
        EngineError: no model is named, or the key's environment variable is not set.
    """

    def __init__(self, config: ChatServerConfig) -> None:
        if not config.model:
            raise EngineError("no model is named for the chat server; set its model to what the server calls it")
        self.config = config
        self._key = _key(config.api_key_env)
        self._policy = ConcurrencyPolicy(config.concurrency)
        self._fatal = ""
        self._fingerprint = ""

    @property
    def batch_size(self) -> int:
        """How many requests one call should hold."""
        return _CALL * self.config.concurrency

    @property
    def fingerprint(self) -> str:
        """The model by its name and by what the server tells of its weights, and the decoding; never the address.

        Raises:
            EngineError: the server cannot be reached, or refuses.
        """
        if not self._fingerprint:
            config, told = self.config, background.run(self._identify())
            parts = {
                "model": config.model,
                "revision": config.revision,
                "max_tokens": config.max_tokens,
                "temperature": config.temperature,
                "seed": config.seed,
                "image_side": config.image_side,
                **told,
            }
            self._fingerprint = " ".join([form.VERSION, *(f"{name}={value!r}" for name, value in parts.items())])
        return self._fingerprint

    def complete(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """One reply a request, in order.

        Raises:
            EngineError: the server refuses the key, the model or the address, before any reply came.
        """
        if self._fatal:
            raise EngineError(self._fatal)
        return background.run(self._complete(requests)) if requests else []

    async def _complete(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        replies: list[Reply | None] = [None] * len(requests)
        async with Session(self.config, self._key, self._policy) as session:

            async def ask(n: int, request: ChatRequest) -> None:
                if not self._fatal:
                    try:
                        replies[n] = await session.ask(n, request)
                    except FatalError as error:
                        self._fatal = str(error)

            await background.for_each(requests, ask, workers=self.config.concurrency)
        if self._fatal and all(reply is None or reply.finish == "failed" for reply in replies):
            raise EngineError(self._fatal)
        # Some were answered before the server began to refuse: theirs are kept, the next call raises.
        return [reply or Reply("", "failed", self._fatal) for reply in replies]

    async def _identify(self) -> dict[str, Any]:
        async with Session(self.config, self._key, self._policy) as session:
            try:
                return identity(await session.models(), self.config.model)
            except FatalError as error:
                raise EngineError(str(error)) from error
            except TransientError as error:
                raise EngineError(
                    f"the chat server at {self.config.base_url} does not answer: {error}; start it, or set its base_url"
                ) from error


def identity(listed: Any, model: str) -> dict[str, Any]:
    """What a server's list of models tells of a model's weights, beside its name.

    vLLM names the folder or repository that an alias stands for (`root`), llama.cpp the sizes of the weights
    (`meta`); both shape replies. Times and owners do not.
    """
    rows = listed.get("data") if isinstance(listed, Mapping) else None
    rows = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, list) else []
    found = [row for row in rows if row.get("id") == model]
    if not found:
        return {}
    meta = found[0].get("meta")
    sizes = {name: meta.get(name) for name in _SIZES} if isinstance(meta, Mapping) else {}
    told = {"root": found[0].get("root"), **sizes}
    return {name: value for name, value in told.items() if isinstance(value, str | int) and value != model}


def _key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EngineError(f"the environment variable {variable} is not set; put the server's API key into it")
    if not key.isascii() or not key.isprintable():
        raise EngineError(f"the environment variable {variable} holds no API key: it has characters that none has")
    return key

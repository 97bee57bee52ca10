"""A chat model behind an OpenAI-compatible server: vLLM, SGLang, Ollama, llama.cpp, `transformers serve`.

This is the way to many machines: the server may be a cluster. A request that fails is a failed reply in its
place; what would fail every request stops with one line, but never loses a reply that has come.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mllmrec.errors import EngineError
from mllmrec.foundation.web import background
from mllmrec.foundation.web.concurrency import ConcurrencyPolicy
from mllmrec.reason.chat import ChatRequest, Reply
from mllmrec.reason.engines import openai_format as form
from mllmrec.reason.engines.openai_config import ChatServerConfig
from mllmrec.reason.engines.openai_session import FatalError, Session, TransientError

_CALL = 8  # requests a call for each that is under way: few places stay empty towards its end
_SIZES = ("n_params", "size", "n_vocab")  # what llama.cpp tells of the weights
_START_ATTEMPTS = 3  # at a server that is not there, nobody should wait long to hear it


class ChatServer:
    """A `ChatModel` that asks a server.

    Args:
        config: which server, which model, and how.

    Raises:
        EngineError: no model is named.
    """

    def __init__(self, config: ChatServerConfig) -> None:
        if not config.model:
            raise EngineError("no model is named for the chat server; set its model to what the server calls it")
        self.config = config
        self._policy = ConcurrencyPolicy(config.concurrency)
        self._told: dict[str, str | int] | None = None  # what the server tells of its model
        self._confirmed = False
        self._fatal = ""

    @property
    def batch_size(self) -> int:
        """How many requests one call should hold; grows with what the server turns out to bear."""
        return max(2 * self.config.concurrency, _CALL * self._policy.limit)

    @property
    def fingerprint(self) -> str:
        """The model by its name and by what the server tells of its weights, and the decoding; never the address.

        A server that is not there is taken to tell no more than the name: what is in the cache can be used
        without it. `complete` makes sure of that before it asks anything.
        """
        if self._told is None:
            try:
                self._told = background.run(self._identify(attempts=1))
                self._confirmed = True
            except EngineError:
                self._told = {}
        return fingerprint(self.config, self._told)

    def complete(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        """One reply a request, in order.

        Raises:
            EngineError: the server cannot be reached, or refuses the key, the model or the address, before any
                reply came; the key's environment variable is not set; or the server now tells more of its model
                than it did for the fingerprint.
        """
        if self._fatal:
            raise EngineError(self._fatal)
        return background.run(self._complete(requests)) if requests else []

    async def _complete(self, requests: Sequence[ChatRequest]) -> list[Reply]:
        await self._confirm()
        replies: list[Reply | None] = [None] * len(requests)
        async with self._session() as session:

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

    async def _confirm(self) -> None:
        """Make sure, once, that the server is there and tells of its model what the fingerprint says."""
        if self._confirmed:
            return
        told = await self._identify(attempts=_START_ATTEMPTS)
        if self._told not in (None, told):
            raise EngineError(
                f"the chat server at {self.config.base_url} could not be asked about {self.config.model!r} when this "
                "command began, and now can; start the command again, so that its answers are kept under the right name"
            )
        self._told, self._confirmed = told, True

    async def _identify(self, attempts: int) -> dict[str, str | int]:
        async with self._session() as session:
            try:
                return identity(await session.models(attempts), self.config.model)
            except FatalError as error:
                raise EngineError(str(error)) from error
            except TransientError as error:
                raise EngineError(
                    f"the chat server at {self.config.base_url} does not answer: {error}; start it, or set its base_url"
                ) from error

    def _session(self) -> Session:
        return Session(self.config, _key(self.config.api_key_env), self._policy)


def fingerprint(config: ChatServerConfig, told: Mapping[str, str | int]) -> str:
    """Everything beside the request that shapes a reply: the model and the decoding, not where it runs.

    Args:
        config: model and decoding.
        told: what the server tells of the model, see `identity`; nothing for a batch file.
    """
    names = ("model", "revision", "max_tokens", "temperature", "seed", "image_side")
    parts = {name: getattr(config, name) for name in names} | dict(told)
    return " ".join([form.VERSION, *(f"{name}={value!r}" for name, value in parts.items())])


def identity(listed: Any, model: str) -> dict[str, str | int]:
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

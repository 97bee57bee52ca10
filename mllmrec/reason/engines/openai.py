"""A chat model behind an OpenAI-compatible server: vLLM, SGLang, Ollama, llama.cpp, `transformers serve`.

This is the way to many machines: the server may be a cluster. A request that fails is a failed reply in its
place; what would fail every request stops with one line, but never loses a reply that has come.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TypeVar

import httpx

from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import EngineError
from mllmrec.foundation.images import ImageRefusedError
from mllmrec.foundation.web import concurrency
from mllmrec.foundation.web.body import PLAIN, BodyRefusedError, Redactor, read_body
from mllmrec.foundation.web.concurrency import BUSY, OVERLOADED, ConcurrencyPolicy, Gate, Ticket, backoff, retry_after
from mllmrec.foundation.web.public import certificates
from mllmrec.reason.engine import ChatRequest, Reply, Report, no_report
from mllmrec.reason.engines import openai_format as form
from mllmrec.reason.engines.openai_format import FatalError, TransientError

T = TypeVar("T")
_CALL = 8  # requests per call for each that is under way: few places stay empty towards its end
_START_ATTEMPTS = 3  # at a server that is not there, nobody should wait long to hear it
_CONNECT_SECONDS = 10.0
_NO_LIST = frozenset({400, 404, 405, 500, 501})  # of models; servers that keep none answer chats all the same


class ChatServer:
    """A `ChatModel` behind a server.

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
        self._identity: dict[str, str | int] | None = None
        self._confirmed = False
        self._fatal = ""

    @property
    def batch_size(self) -> int:
        """Return how many requests one call should hold; it grows with the server's capacity."""
        return max(2 * self.config.concurrency, _CALL * self._policy.limit)

    @property
    def fingerprint(self) -> str:
        """Return the model's name, the server's words on its weights, and the decoding; never the address.

        A server that is not there counts as one that tells only the name, so the cache can be used without it.
        `complete` makes sure of that before it sends anything.
        """
        if self._identity is None:
            try:
                self._identity = concurrency.run(self._identify(attempts=1))
                self._confirmed = True
            except EngineError:
                self._identity = {}
        return form.fingerprint(self.config, self._identity)

    def complete(self, requests: Sequence[ChatRequest], report: Report[Reply] = no_report) -> list[Reply]:
        """Return one reply per request, in order.

        Raises:
            EngineError: the server cannot be reached, or refuses the key, the model or the address, before any
                reply came; the key's environment variable is not set; or the server now tells more of its model
                than it did for the fingerprint.
        """
        if self._fatal:
            raise EngineError(self._fatal)
        return concurrency.run(self._complete(requests, report)) if requests else []

    async def _complete(self, requests: Sequence[ChatRequest], report: Report[Reply]) -> list[Reply]:
        await self._confirm()
        replies: dict[int, Reply] = {}
        async with self._session() as session:

            async def send(n: int, request: ChatRequest) -> None:
                if not self._fatal:
                    try:
                        replies[n] = await session.chat(n, request)
                        report(len(replies), results={n: replies[n]})
                    except FatalError as error:
                        self._fatal = str(error)

            await concurrency.for_each(requests, send, workers=self.config.concurrency)
        if self._fatal and all(reply.finish == "failed" for reply in replies.values()):
            raise EngineError(self._fatal)
        # Some were answered before the server began to refuse: theirs are kept, the next call raises.
        return [replies.get(n) or Reply("", "failed", self._fatal) for n in range(len(requests))]

    async def _confirm(self) -> None:
        """Make sure, once, that the server is there and describes its model as the fingerprint does."""
        if self._confirmed:
            return
        identity = await self._identify(attempts=_START_ATTEMPTS)
        if self._identity not in (None, identity):
            raise EngineError(
                f"the chat server at {self.config.base_url} could not be asked about {self.config.model!r} when this "
                "command began, and now can; start the command again, so that its answers are kept under the right name"
            )
        self._identity, self._confirmed = identity, True

    async def _identify(self, attempts: int) -> dict[str, str | int]:
        async with self._session() as session:
            try:
                return form.model_identity(await session.models(attempts), self.config.model)
            except FatalError as error:
                raise EngineError(str(error)) from error
            except TransientError as error:
                raise EngineError(
                    f"the chat server at {self.config.base_url} does not answer: {error}; start it, or set its base_url"
                ) from error

    def _session(self) -> Session:
        return Session(self.config, _key(self.config.api_key_env), self._policy)


class Session:
    """Connections to one server, open for one call; belongs to one event loop.

    Args:
        config: which server, and the limits of an exchange.
        key: the API key, empty for none; it is blotted out of all that the server says.
        policy: how many requests may be under way.
    """

    def __init__(self, config: ChatServerConfig, key: str, policy: ConcurrencyPolicy) -> None:
        self._config, self._key = config, key
        self._redact = Redactor(key)
        self._gate = Gate(policy)
        self._down = False  # a request has used up its attempts without reaching the server
        self._client = httpx.AsyncClient(
            verify=certificates(),
            headers={**PLAIN, **({"Authorization": f"Bearer {key}"} if key else {})},
            timeout=httpx.Timeout(config.request_seconds, connect=_CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=config.concurrency, max_keepalive_connections=config.concurrency),
        )

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def chat(self, n: int, request: ChatRequest) -> Reply:
        """Return the reply to one request, failed where it cannot be had; `n` tells requests apart.

        Raises:
            FatalError: no request can be answered.
        """
        try:
            body = await asyncio.to_thread(form.chat_body, request, self._config)
            content = json.dumps(body).encode()
            return await self._persist(lambda: self._chat(content), n, self._config.attempts)
        except ImageRefusedError as error:
            return Reply("", "failed", f"picture: {error}")
        except TransientError as error:
            return Reply("", "failed", str(error))

    async def models(self, attempts: int) -> object:
        """Return the server's list of models, None if it keeps none.

        Raises:
            FatalError: it refuses the key.
            TransientError: it cannot be reached.
        """
        return await self._persist(self._list, "models", attempts)

    async def _persist(self, exchange: Callable[[], Awaitable[T]], name: object, attempts: int) -> T:
        """Return the result of an exchange, tried again while that may help and there is time."""
        now = asyncio.get_running_loop().time
        end = 0.0
        for attempt in range(attempts):
            try:
                async with self._gate.enter() as ticket:
                    end = end or now() + self._config.total_seconds
                    result = await self._limited(exchange, ticket, end - now())
                self._down = False
                return result
            except TransientError as error:
                wait = error.wait if error.wait is not None else backoff(attempt, seed=self._config.seed, name=name)
                reason = f"{error} (attempt {attempt + 1})"
                if now() + wait > end:
                    raise TransientError(f"{reason}; a wait of {wait:.0f} s would be over the total time") from error
                if attempt + 1 == attempts or (self._down and error.unreachable):
                    self._down = error.unreachable
                    raise TransientError(reason) from error
                if error.wait and error.overloaded:
                    self._gate.pause(error.wait)
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _limited(self, exchange: Callable[[], Awaitable[T]], ticket: Ticket, left: float) -> T:
        """Make one attempt within its time; every way in which it may fail becomes one error."""
        seconds = min(self._config.request_seconds, left)
        if seconds <= 0:
            raise TransientError("the total time went by in waiting for the server")
        try:
            async with asyncio.timeout(seconds):
                return await exchange()
        except TransientError as error:
            if error.overloaded:
                self._gate.overloaded(ticket)
            raise
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise TransientError(f"no connection: {self._line(error)}", unreachable=True) from error
        except (TimeoutError, httpx.TimeoutException) as error:
            self._gate.overloaded(ticket)
            raise TransientError(f"no complete answer within {seconds:g} s") from error
        except (httpx.HTTPError, OSError, ValueError, BodyRefusedError) as error:
            raise TransientError(f"no usable answer: {self._line(error)}") from error

    def _line(self, error: Exception) -> str:
        return form.one_line(self._redact(str(error) or type(error).__name__))

    async def _chat(self, content: bytes) -> Reply:
        status, raw = await self._send("POST", form.CHAT_PATH, content)
        if status != httpx.codes.OK:
            return Reply("", "failed", f"HTTP status {status}: {form.error_text(raw)}")
        reply = form.read_completion(form.parse(raw))
        # A server that is mended may answer; only a batch, which nobody waits for, is over with a refusal.
        return replace(reply, finish="failed") if reply.finish == "refused" else reply

    async def _list(self) -> object:
        status, raw = await self._send("GET", "/models", None, tolerated=_NO_LIST)
        try:
            return form.parse(raw) if status == httpx.codes.OK else None
        except form.NotACompletionError:
            return None

    async def _send(
        self, method: str, path: str, content: bytes | None, tolerated: frozenset[int] = frozenset()
    ) -> tuple[int, str]:
        """Return status and text of the answer, without the key where the server gives it back."""
        address = self._config.base_url.rstrip("/") + path
        headers = {"Content-Type": "application/json"} if content else {}
        async with self._client.stream(method, address, content=content, headers=headers) as response:
            raw = self._redact(await self._text(response))
        if response.status_code not in tolerated:
            self._check(response, raw)
        return response.status_code, raw

    async def _text(self, response: httpx.Response) -> str:
        try:
            return (await read_body(response, self._config.response_bytes)).decode("utf-8", "replace")
        except BodyRefusedError:
            if response.is_success:
                raise
            return ""  # the status says enough

    def _check(self, response: httpx.Response, raw: str) -> None:
        status, config = response.status_code, self._config
        reason = f"HTTP status {status}: {form.error_text(raw)}"
        if status in (401, 403):
            key = f"the key in {config.api_key_env}" if self._key else "requests without a key; set api_key_env"
            raise FatalError(f"the chat server refuses {key} ({reason})")
        if status == httpx.codes.NOT_FOUND:
            raise FatalError(f"no model {config.model!r} at {config.base_url} ({reason}); check model and base_url")
        if response.has_redirect_location:
            where = form.one_line(self._redact(response.headers["location"].split("?")[0]))
            raise FatalError(f"{config.base_url} leads elsewhere ({where}); set that as base_url")
        if "insufficient_quota" in raw and status == httpx.codes.TOO_MANY_REQUESTS:
            raise FatalError(f"the account behind the chat server is used up ({reason})")
        if status in BUSY:
            raise TransientError(reason, wait=retry_after(response.headers), overloaded=status in OVERLOADED)


def _key(variable: str) -> str:
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise EngineError(f"the environment variable {variable} is not set; put the server's API key into it")
    if not key.isascii() or not key.isprintable():
        raise EngineError(f"the value of {variable} is no API key: it contains non-ASCII or control characters")
    return key

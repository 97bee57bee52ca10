"""The exchanges of one call with a chat server: attempts, waits, limits, and what each outcome means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, TypeVar

import httpx

from mllmrec.foundation.images import ImageRefusedError
from mllmrec.foundation.web.body import PLAIN, BodyRefusedError, read_body
from mllmrec.foundation.web.concurrency import ConcurrencyPolicy, Gate, Ticket
from mllmrec.foundation.web.retry import BUSY, OVERLOADED, backoff, retry_after
from mllmrec.foundation.web.tls import certificates
from mllmrec.reason.chat import ChatRequest, Reply
from mllmrec.reason.engines import openai_format as form
from mllmrec.reason.engines.openai_config import ChatServerConfig

T = TypeVar("T")
_CONNECT_SECONDS = 10.0
_NO_LIST = frozenset({400, 404, 405, 500, 501})  # of models; servers that keep none answer chats all the same


class FatalError(Exception):
    """What would fail every request; the text is one line for a person."""


class TransientError(Exception):
    """What may go well at another attempt; the text is the reason.

    Attributes:
        wait: seconds that the server asks for, None where it says nothing.
        overloaded: the server had no capacity.
        unreachable: there was no connection at all.
    """

    def __init__(
        self, reason: str, *, wait: float | None = None, overloaded: bool = False, unreachable: bool = False
    ) -> None:
        super().__init__(reason)
        self.wait = wait
        self.overloaded = overloaded
        self.unreachable = unreachable


class Session:
    """Connections to one server, open for one call; belongs to one event loop."""

    def __init__(self, config: ChatServerConfig, key: str, policy: ConcurrencyPolicy) -> None:
        self._config = config
        self._key = key
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

    async def ask(self, n: int, request: ChatRequest) -> Reply:
        """The reply to one request, failed where it cannot be had; `n` tells requests apart.

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

    async def models(self, attempts: int) -> Any:
        """What the server lists as its models, None where it keeps no list.

        Raises:
            FatalError: it refuses the key.
            TransientError: it cannot be reached.
        """
        return await self._persist(self._list, "models", attempts)

    async def _persist(self, exchange: Callable[[], Awaitable[T]], name: object, attempts: int) -> T:
        """The result of an exchange, tried again while that may help and there is time."""
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
                told = f"{error} (attempt {attempt + 1})"
                if now() + wait > end:
                    raise TransientError(f"{told}; a wait of {wait:.0f} s would be over the total time") from error
                if attempt + 1 == attempts or (self._down and error.unreachable):
                    self._down = error.unreachable
                    raise TransientError(told) from error
                if error.wait and error.overloaded:
                    self._gate.pause(error.wait)
                await asyncio.sleep(wait)
        raise AssertionError("unreachable")

    async def _limited(self, exchange: Callable[[], Awaitable[T]], ticket: Ticket, left: float) -> T:
        """One attempt within its time; every way in which it may fail becomes one error."""
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
        return form.one_line(str(error) or type(error).__name__)

    async def _chat(self, content: bytes) -> Reply:
        status, raw = await self._send("POST", form.CHAT_PATH, content)
        if status != httpx.codes.OK:
            return Reply("", "failed", f"HTTP status {status}: {_said(raw)}")
        return form.read_completion(form.parse(raw))

    async def _list(self) -> Any:
        status, raw = await self._send("GET", "/models", None, borne=_NO_LIST)
        try:
            return form.parse(raw) if status == httpx.codes.OK else None
        except form.NotACompletionError:
            return None

    async def _send(
        self, method: str, path: str, content: bytes | None, borne: frozenset[int] = frozenset()
    ) -> tuple[int, str]:
        """Status and text of the answer; a key that a server gives back is blotted out of it."""
        address = self._config.base_url.rstrip("/") + path
        headers = {"Content-Type": "application/json"} if content else {}
        async with self._client.stream(method, address, content=content, headers=headers) as response:
            raw = await self._text(response)
        raw = raw.replace(self._key, "(key)") if self._key else raw
        if response.status_code not in borne:
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
        told = f"HTTP status {status}: {_said(raw)}"
        if status in (401, 403):
            key = f"the key in {config.api_key_env}" if self._key else "requests without a key; set api_key_env"
            raise FatalError(f"the chat server refuses {key} ({told})")
        if status == httpx.codes.NOT_FOUND:
            raise FatalError(f"no model {config.model!r} at {config.base_url} ({told}); check model and base_url")
        if response.has_redirect_location:
            where = response.headers["location"].split("?")[0]
            raise FatalError(f"{config.base_url} leads elsewhere ({form.one_line(where)}); set that as base_url")
        if "insufficient_quota" in raw and status == httpx.codes.TOO_MANY_REQUESTS:
            raise FatalError(f"the account behind the chat server is used up ({told})")
        if status in BUSY:
            raise TransientError(told, wait=retry_after(response.headers), overloaded=status in OVERLOADED)


def _said(raw: str) -> str:
    try:
        return form.said(form.parse(raw))
    except form.NotACompletionError:
        return form.one_line(raw) or "nothing said"

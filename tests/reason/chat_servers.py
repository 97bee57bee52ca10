"""Chat servers on this machine for tests, and the engine that talks to one."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager

from mllmrec.engine_config import ChatServerConfig
from mllmrec.reason.engine import ChatRequest, Reply
from mllmrec.reason.engines.openai import ChatServer
from tests.servers import Exchange, LoopbackServer, serve

Behaviour = Callable[[Exchange], None]


def chats(behave: Behaviour, port: int = 0) -> AbstractContextManager[LoopbackServer]:
    """A server that keeps no list of models, and answers chats as it is told."""

    def route(exchange: Exchange) -> None:
        if exchange.path == "/v1/models":
            exchange.server.seen.pop()
            exchange.send(404)
        else:
            behave(exchange)

    return serve(route, port)


def server_at(url: str, **changes: object) -> ChatServer:
    settings = {"model": "tiny", "request_seconds": 20, "concurrency": 8, **changes}
    return ChatServer(ChatServerConfig(base_url=f"{url}/v1", **settings))  # type: ignore[arg-type]


def number(exchange: Exchange) -> int:
    return int(re.findall(r"\d+", exchange.json["messages"][-1]["content"])[0])


def questions(n: int) -> list[ChatRequest]:
    return [ChatRequest(f"question {k}") for k in range(n)]


def answers(n: int) -> list[Reply]:
    return [Reply(f"answer {k}") for k in range(n)]


def good(exchange: Exchange) -> None:
    exchange.complete(f" answer {number(exchange)}\n")

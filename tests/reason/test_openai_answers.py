"""The chat server engine and batch rows: thoughts apart, errors inside a 200, keys in any spelling, odd statuses."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Mapping
from urllib.parse import quote

import pytest

from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import EngineError
from mllmrec.foundation.web import concurrency
from mllmrec.foundation.web.body import Redactor
from mllmrec.reason.engine import NO_RESULTS, ChatRequest, Reply
from mllmrec.reason.engines.openai import ChatServer
from mllmrec.reason.engines.openai_format import read_batch_row, read_completion
from tests.servers import Exchange, serve

KEY = "sk-proj/AbC+12_very-secret9="
SPELLINGS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "unicode escapes": lambda key: "".join(f"\\u{ord(c):04X}" for c in key),
    "escaped twice": lambda key: "".join(f"\\\\u{ord(c):04x}" for c in key),
    "some escapes": lambda key: key.replace("A", "\\u0041").replace("/", "\\/"),
    "hexadecimal escapes": lambda key: "".join(f"\\x{ord(c):02x}" for c in key),
    "URL": lambda key: quote(key, safe=""),
    "URL twice": lambda key: quote(quote(key, safe=""), safe=""),
    "URL, all characters": lambda key: "".join(f"%{ord(c):02x}" for c in key),
    "HTML": lambda key: "".join(f"&#{ord(c)};" for c in key),
    "HTML, hexadecimal": lambda key: "".join(f"&#x{ord(c):X};" for c in key),
    "hexadecimal": lambda key: key.encode().hex(),
    "base64": lambda key: base64.b64encode(key.encode()).decode(),
    "base64 behind a byte": lambda key: base64.b64encode(b":" + key.encode()).decode(),
    "base64 behind two bytes": lambda key: base64.urlsafe_b64encode(b"u:" + key.encode()).decode(),
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "_FIRST_SECONDS", 0.01)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("CHAT_KEY", KEY)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_key_is_blotted_out_however_it_is_spelled(spelling: str) -> None:
    echo = SPELLINGS[spelling](KEY)
    text = Redactor(KEY)(f"wrong key {echo}, sorry")
    assert text.startswith("wrong key ") and text.endswith(", sorry") and text.count("(key)") == 1
    assert len(text) < len("wrong key (key), sorry") + 8  # of base64, ends that hold less than a byte of it may stay
    assert Redactor("")(echo) == echo and Redactor(KEY)("a plain text") == "a plain text"


@pytest.mark.parametrize("status", [400, 500, 401, 308])
def test_no_error_of_a_server_shows_the_key(status: int) -> None:
    echoes = [spell(KEY) for spell in SPELLINGS.values()]

    def behave(exchange: Exchange) -> None:
        if exchange.path == "/v1/models":
            return exchange.send(404)
        echo = echoes[int(exchange.json["messages"][-1]["content"])]
        where = {"Location": f"https://elsewhere/{echo}/v1"} if status == 308 else {}
        return exchange.send(status, f'{{"error": {{"message": "no {echo}"}}}}'.encode(), where)

    config = {"model": "m", "api_key_env": "CHAT_KEY", "attempts": 1, "concurrency": 1}
    with serve(behave) as server:
        texts = []
        for n in range(len(echoes)) if status in (401, 308) else [None]:
            engine = ChatServer(ChatServerConfig(base_url=f"{server.url}/v1", **config))  # type: ignore[arg-type]
            numbers = range(len(echoes)) if n is None else [n]
            try:
                texts += [reply.reason for reply in engine.complete([ChatRequest(str(k)) for k in numbers])]
            except EngineError as error:
                texts.append(str(error))
    assert len(texts) == len(echoes)
    for text, echo in zip(texts, echoes, strict=True):
        assert "(key)" in text
        assert not any(secret in text for secret in (KEY[:12], KEY[-12:], echo[:24])), text


def completion(message: dict[str, object], finish: str = "stop") -> dict[str, object]:
    return {"object": "chat.completion", "choices": [{"message": message, "finish_reason": finish}]}


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning", "thinking"])
def test_thoughts_in_a_field_of_their_own_are_no_answer(field: str) -> None:
    cut = completion({"role": "assistant", "content": None, field: "The user wants"}, "length")
    assert read_completion(cut) == Reply("", "length", thinking=True)
    assert read_completion(completion({"content": "A mug.", field: "Well."})) == Reply("A mug.", thinking=True)
    assert read_completion(completion({"content": "A mug.", field: None})) == Reply("A mug.")


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ({"object": "error", "message": "too long", "code": 400}, Reply("", "refused", "the server says: too long")),
        ({"object": "error", "message": "no memory"}, Reply("", "failed", "the server says: no memory")),
        ({"error": {"message": "bad picture", "code": 422}}, Reply("", "refused", "the server says: bad picture")),
        ({"error": "busy"}, Reply("", "failed", "the server says: busy")),
        ({"detail": "Not\nfound"}, Reply("", "failed", "the server says: Not found")),
    ],
)
def test_an_error_inside_a_good_status_is_an_error(body: dict[str, object], reply: Reply) -> None:
    assert read_completion(body) == reply
    assert read_batch_row({"custom_id": "k", "response": {"status_code": 200, "body": body}}) == reply


@pytest.mark.parametrize(
    ("row", "reply"),
    [
        (
            {"response": {"status_code": 400, "body": {"error": {"message": "too long"}}}},
            Reply("", "refused", "HTTP status 400: too long"),
        ),
        (
            {"response": {"status_code": "413", "body": None}, "error": {"message": "large"}},
            Reply("", "refused", "HTTP status 413: large"),
        ),
        (
            {"response": {"status_code": 500, "body": {"message": "later"}}},
            Reply("", "failed", "HTTP status 500: later"),
        ),
        ({"response": None, "error": {"code": "batch_expired", "message": "late"}}, Reply("", "failed", "late")),
        (
            {"response": {"status_code": "\x1b[2J\u202e" + "9" * 999, "body": {"message": "m"}}},
            Reply("", "failed", "HTTP status unknown: m"),
        ),
        (
            {"response": {"status_code": {"a": [1]}, "body": {"message": "m"}}},
            Reply("", "failed", "HTTP status unknown: m"),
        ),
    ],
)
def test_a_row_is_refused_for_good_or_failed_and_its_status_is_neutralized(
    row: dict[str, object], reply: Reply
) -> None:
    assert read_batch_row(json.loads(json.dumps(row))) == reply


def test_refused_requests_are_sent_once_and_progress_shows_within_a_call() -> None:
    counts: list[int] = []
    kept: dict[int, Reply] = {}

    def report(done: int, tokens: int = 0, most: int = 0, results: Mapping[int, Reply] = NO_RESULTS) -> None:
        counts.append(done)
        kept.update(results)

    def behave(exchange: Exchange) -> None:
        if "bad" in exchange.json["messages"][-1]["content"]:
            exchange.send(422, b'{"detail": "no such picture"}')
        else:
            exchange.complete("A mug.")

    with serve(lambda x: x.send(404) if x.path == "/v1/models" else behave(x)) as server:
        engine = ChatServer(ChatServerConfig(base_url=f"{server.url}/v1", model="m", concurrency=2))
        replies = engine.complete([ChatRequest("bad"), *map(ChatRequest, "abcde")], report)
        assert len(server.seen) == 1 + 6
    assert replies == [Reply("", "failed", "HTTP status 422: no such picture"), *[Reply("A mug.")] * 5]
    assert counts == [1, 2, 3, 4, 5, 6] and [kept[n] for n in range(6)] == replies  # each as it came


def test_bytes_without_end_behind_a_packed_answer_are_not_read() -> None:
    def behave(exchange: Exchange) -> None:
        body = gzip.compress(json.dumps(completion({"content": "A mug."})).encode())
        exchange.send_response(200)
        exchange.send_header("Content-Encoding", "gzip")
        exchange.send_header("Connection", "close")
        exchange.end_headers()
        exchange.close_connection = True
        exchange.wfile.write(body)
        for _ in range(100_000):
            exchange.wfile.write(b"\0" * 65_536)

    with serve(lambda x: x.send(404) if x.path == "/v1/models" else behave(x)) as server:
        config = ChatServerConfig(base_url=f"{server.url}/v1", model="m", attempts=1, request_seconds=20)
        assert ChatServer(config).complete([ChatRequest("x")]) == [Reply("A mug.")]

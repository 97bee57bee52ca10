"""Requests of the chat server engine: pictures, the identity of the model, the key."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from mllmrec.engine_config import ChatServerConfig
from mllmrec.errors import EngineError
from mllmrec.reason.engine import ChatRequest, Reply
from mllmrec.reason.engines.openai import ChatServer
from mllmrec.reason.engines.openai_format import model_identity
from tests.reason.chat_servers import answers, chats, good, number, questions, server_at
from tests.servers import Exchange, serve

pytestmark = pytest.mark.usefixtures("impatient")
KEY = "sk-verysecret0123456789"


def test_pictures_are_sent_as_new_jpegs_before_the_text(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (300, 600, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010E] = "where the photographer lives"
    Image.fromarray(noise).save(tmp_path / "a.jpg", exif=exif)
    (tmp_path / "b.jpg").write_text("<html>")
    requests = [ChatRequest("q 0", "be brief", (tmp_path / "a.jpg",)), ChatRequest("q 1", images=(tmp_path / "b.jpg",))]
    with chats(lambda x: x.complete("seen")) as server:
        replies = server_at(server.url, image_side=64, max_tokens=9).complete(requests)
        ((path, _, content),) = server.seen
    assert replies == [Reply("seen"), Reply("", "failed", replies[1].reason)]
    assert replies[1].reason.startswith("picture: unreadable picture")
    body = json.loads(content)
    assert path == "/v1/chat/completions"
    assert {key: body[key] for key in ("model", "max_tokens", "temperature", "seed", "stream")} == {
        "model": "tiny",
        "max_tokens": 9,
        "temperature": 0,
        "seed": 999,
        "stream": False,
    }
    system, user = body["messages"]
    assert system == {"role": "system", "content": "be brief"}
    picture, text = user["content"]
    assert text == {"type": "text", "text": "q 0"}
    kind, data = picture["image_url"]["url"].split(",")
    sent = base64.b64decode(data)
    assert kind == "data:image/jpeg;base64" and b"photographer" not in sent
    assert Image.open(io.BytesIO(sent)).size == (64, 32)


def test_the_identity_is_the_model_and_never_the_address() -> None:
    listed = b'{"data": [{"id": "tiny", "root": "org/Tiny-VL", "created": 1, "owned_by": "vllm"}, {"id": "other"}]}'
    with serve(lambda x: x.send(200, listed)) as one, serve(lambda x: x.send(200, listed)) as two:
        prints = [server_at(server.url).fingerprint for server in (one, two)]
    assert prints[0] == prints[1] and "org/Tiny-VL" in prints[0] and "127.0.0.1" not in prints[0]
    for status in (404, 500):
        with serve(lambda x, status=status: x.send(status)) as server:  # type: ignore[misc]
            assert "model='tiny' revision=''" in server_at(server.url).fingerprint
            assert server_at(server.url, max_tokens=7).fingerprint != server_at(server.url).fingerprint
    with serve(lambda x: x.send(401)) as server, pytest.raises(EngineError, match="without a key; set api_key_env"):
        server_at(server.url).complete(questions(1))
    assert model_identity({"data": [{"id": "m", "meta": {"n_params": 7, "size": 9}}]}, "m") == {
        "n_params": 7,
        "size": 9,
    }
    assert [model_identity(odd, "m") for odd in (None, [], {"data": 3}, {"data": [None, {"id": "m", "root": []}]})] == [
        {}
    ] * 4


def test_a_key_is_sent_and_never_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("CHAT_KEY", KEY)
    caplog.set_level(logging.DEBUG)

    def behave(exchange: Exchange) -> None:
        if exchange.path.endswith("models"):
            exchange.send(
                200, json.dumps({"data": [{"id": "tiny", "root": exchange.headers["Authorization"]}]}).encode()
            )
        elif (n := number(exchange)) == 0:
            exchange.complete(f"your key is {KEY}")
        else:
            exchange.send({1: 400, 2: 500, 3: 401}[n], f'{{"error": "{exchange.headers["Authorization"]}"}}'.encode())

    with serve(behave) as server:
        engine = server_at(server.url, api_key_env="CHAT_KEY", attempts=2, concurrency=1)
        replies = engine.complete(questions(3))
        with pytest.raises(EngineError) as refused:
            engine.complete([ChatRequest("question 3")])
        assert {headers["Authorization"] for _, headers, _ in server.seen} == {f"Bearer {KEY}"}
        told = [*map(repr, replies), repr(refused.value), repr(refused.value.__cause__), engine.fingerprint]
    told += [repr(engine), repr(engine.config), engine.config.model_dump_json(), caplog.text]
    assert all("Bearer (key)" in text for text in told[1:4])
    assert not [text for text in told if KEY in text]


@pytest.mark.parametrize(
    "setting",
    [
        {"api_key_env": KEY},
        {"api_key_env": "hf_lowercasekey"},
        {"base_url": f"https://user:{KEY}@host/v1"},
        {"base_url": f"https://host/v1?key={KEY}"},
    ],
)
def test_a_key_in_the_config_is_refused_without_showing_it(setting: dict[str, str]) -> None:
    with pytest.raises(ValidationError) as refused:
        ChatServerConfig(**setting)  # type: ignore[arg-type]
    assert KEY not in str(refused.value.errors())


def test_what_is_missing_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CHAT_KEY", raising=False)
    with pytest.raises(EngineError, match="no model is named"):
        ChatServer(ChatServerConfig())
    with pytest.raises(EngineError, match="environment variable CHAT_KEY is not set"):
        ChatServer(ChatServerConfig(model="tiny", api_key_env="CHAT_KEY")).complete(questions(1))


def test_a_caller_with_an_event_loop_of_its_own_may_ask() -> None:
    async def notebook(engine: ChatServer) -> list[Reply]:
        return engine.complete(questions(3))

    with chats(good) as server:
        assert asyncio.run(notebook(server_at(server.url))) == answers(3)

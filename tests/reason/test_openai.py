"""The chat server engine against servers that answer badly: nothing lost, nothing shifted."""

from __future__ import annotations

import gzip
import re
import signal
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from mllmrec.errors import EngineError
from mllmrec.foundation.progress import silent
from mllmrec.reason.cache import GenerationCache
from mllmrec.reason.engine import Answer, Reply
from mllmrec.reason.engines.openai import ChatServer
from mllmrec.reason.generate import generate
from tests.reason.chat_servers import Behaviour, answers, chats, good, number, questions, server_at
from tests.servers import Exchange, free_port, serve, wait_until

pytestmark = pytest.mark.usefixtures("impatient")
KEY = "sk-verysecret0123456789"


def soon() -> str:
    return format_datetime(datetime.now(UTC) - timedelta(seconds=1), usegmt=True)


BOMB = gzip.compress(b'{"choices": "' + b" " * (32 << 20) + b'"}', compresslevel=1)
COMPLETE = b'{"choices": [{"message": {"content": "answer"}, "finish_reason": "stop"}]}'
FAULTS: dict[str, Behaviour] = {
    "429, seconds": lambda x: x.send(429, b"{}", {"Retry-After": "0.05"}),
    "429, a date": lambda x: x.send(429, b"{}", {"Retry-After": soon()}),
    "500": lambda x: x.send(500, b"<html>oops</html>"),
    "503": lambda x: x.send(503),
    "slow": lambda x: x.hang(30),
    "short": lambda x: x.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" + COMPLETE),
    "cut JSON": lambda x: x.send(200, COMPLETE[:40]),
    "wrong content type": lambda x: x.send(200, b"<html>hello</html>", {"Content-Type": "text/html"}),
    "huge": lambda x: x.send(200, b" " * (5 << 20)),
    "huge, says so": lambda x: x.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + COMPLETE),
    "bomb": lambda x: x.send(200, BOMB, {"Content-Encoding": "gzip"}),
    "packed otherwise": lambda x: x.send(200, COMPLETE, {"Content-Encoding": "br"}),
    "closed": lambda x: x.cut(),
    "no HTTP": lambda x: x.cut(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "other JSON": lambda x: x.send(200, b'{"choices": []}'),
    "deep JSON": lambda x: x.send(200, b"[" * 100_000),
}


def test_every_fault_is_survived_and_no_answer_moves() -> None:
    met: Counter[int] = Counter()

    def behave(exchange: Exchange) -> None:
        n = number(exchange)
        met[n] += 1
        (list(FAULTS.values())[n % len(FAULTS)] if met[n] == 1 else good)(exchange)

    count = 3 * len(FAULTS)
    with chats(behave) as server:
        assert server_at(server.url, request_seconds=1.5).complete(questions(count)) == answers(count)
    assert min(met.values()) >= 2
    assert server.peak <= 8


def test_what_never_gets_better_fails_alone_with_its_reason() -> None:
    wanted = {
        "429, seconds": "HTTP status 429",
        "500": "HTTP status 500: <html>oops</html> \\(attempt 2\\)",
        "short": "no usable answer: peer closed connection",
        "cut JSON": "no JSON, or JSON that is cut off",
        "huge": "a body of 5,242,880 bytes, more than 4,194,304",
        "bomb": "a body of more than 4,194,304 bytes",
        "other JSON": "JSON that is no chat completion",
    }

    def behave(exchange: Exchange) -> None:
        n = number(exchange)
        (good if n % 2 else FAULTS[list(wanted)[n // 2]])(exchange)

    with chats(behave) as server:
        replies = server_at(server.url, attempts=2).complete(questions(2 * len(wanted)))
    assert replies[1::2] == answers(2 * len(wanted))[1::2]
    for reply, reason in zip(replies[::2], wanted.values(), strict=True):
        assert (reply.text, reply.finish) == ("", "failed") and re.search(reason, reply.reason), reply


def test_a_server_that_never_ends_its_answer_is_left() -> None:
    def loris(exchange: Exchange) -> None:
        exchange.wfile.write(b"HTTP/1.1 200 OK\r\n")
        while not exchange.server.stopping.wait(0.1):
            exchange.wfile.write(b"X-Slow: 1\r\n")

    for behave in (loris, FAULTS["slow"]):
        with chats(behave) as server:
            (reply,) = server_at(server.url, request_seconds=0.5, attempts=1).complete(questions(1))
        assert reply == Reply("", "failed", "no complete answer within 0.5 s (attempt 1)")


def test_a_bad_request_is_not_repeated_and_endings_are_told_apart() -> None:
    def behave(exchange: Exchange) -> None:
        {
            0: lambda: exchange.send(400, b'{"error": {"message": "too\\n long \\u001b[2J"}}'),
            1: lambda: exchange.complete("cut her", "length"),
            2: lambda: exchange.complete("", "content_filter"),
            3: lambda: exchange.send(200, b'{"error": {"message": "no memory"}}'),
            4: lambda: exchange.complete("nul \0 and \ud800 gone"),
        }[number(exchange)]()

    with chats(behave) as server:
        replies = server_at(server.url).complete(questions(5))
        assert len(server.seen) == 5
    assert replies == [
        Reply("", "failed", "HTTP status 400: too long [2J"),
        Reply("cut her", "length"),
        Reply("", "failed", "the server ended with 'content_filter'"),
        Reply("", "failed", "the server says: no memory"),
        Reply("nul  and ? gone"),
    ]


def test_a_wait_is_kept_by_all_and_one_beyond_the_total_time_is_a_failure() -> None:
    refused: list[float] = []
    later: list[float] = []

    def behave(exchange: Exchange) -> None:
        if refused:
            later.append(time.monotonic() - refused[0])
            good(exchange)
        elif len(exchange.server.seen) == 1:
            wait_until(lambda: exchange.server.under_way == 4, 9)  # as many as are tried at first
            refused.append(time.monotonic())
            exchange.send(429, b"", {"Retry-After": "1"})
        else:
            wait_until(lambda: bool(refused), 9)
            exchange.hang(0.3)
            good(exchange)

    with chats(behave) as server:
        assert server_at(server.url).complete(questions(12)) == answers(12)
    assert len(later) == 9 and min(later) >= 0.99
    with chats(lambda x: x.send(503, b"", {"Retry-After": "9999"})) as server:
        (reply,) = server_at(server.url, total_seconds=5).complete(questions(1))
        assert len(server.seen) == 1
    assert "a wait of 9999 s would be over the total time" in reply.reason


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (401, r"refuses the key in CHAT_KEY \(HTTP status 401: wrong\)"),
        (403, r"refuses the key in CHAT_KEY \(HTTP status 403: wrong\)"),
        (404, r"no model 'tiny' at http://127.0.0.1:\d+/v1 \(HTTP status 404: wrong\); check model and base_url"),
        (308, r"leads elsewhere \(https://other/v1/\); set that as base_url"),
    ],
)
def test_what_fails_every_request_stops_at_once(status: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAT_KEY", KEY)

    def behave(exchange: Exchange) -> None:
        location = {"Location": "https://other/v1/?key=1"} if status == 308 else {}
        exchange.send(status, b'{"error": "wrong"}', location)

    with chats(behave) as server:
        engine = server_at(server.url, api_key_env="CHAT_KEY", concurrency=1)
        with pytest.raises(EngineError, match=message):
            engine.complete(questions(50))
        assert len(server.seen) == 1
        with pytest.raises(EngineError, match=message):
            engine.complete(questions(50))
        assert len(server.seen) == 1


def test_replies_that_came_before_a_refusal_are_kept() -> None:
    with chats(lambda x: good(x) if number(x) < 5 else x.send(401)) as server:
        engine = server_at(server.url, concurrency=1)
        replies = engine.complete(questions(20))
        assert replies[:5] == answers(5) and {reply.finish for reply in replies[5:]} == {"failed"}
        with pytest.raises(EngineError, match="refuses requests without a key; set api_key_env"):
            engine.complete(questions(20))


def test_a_server_that_dies_midway_costs_what_it_had_not_answered(tmp_path: Path) -> None:
    """And the rerun asks for that alone."""
    count, port = 60, free_port()
    cache = GenerationCache(tmp_path / "c.sqlite")

    def run(engine: ChatServer) -> list[Answer]:
        def complete(requests: object, report: object) -> list[Answer]:
            replies = engine.complete(requests)  # type: ignore[arg-type]
            return [Answer(r.text, "failed" if r.finish == "failed" else "ok", r.reason) for r in replies]

        requests = questions(count)
        return generate(
            keys=[request.text for request in requests],
            requests=requests,
            complete=complete,
            batch_size=lambda: 20,
            cache=cache,
            progress=silent,
            label="ask",
        )

    def dying(exchange: Exchange) -> None:
        good(exchange)
        if len(exchange.server.seen) >= 25:  # two at once may both find more
            exchange.server.die()

    with chats(dying, port) as server:
        first = run(server_at(server.url, attempts=3))
    done = [n for n, answer in enumerate(first) if answer.status == "ok"]
    assert 20 <= len(done) < count
    assert all(first[n].text == f"answer {n}" for n in done)
    assert all(re.search("no connection|no usable answer", a.reason) for a in first if a.status == "failed")
    with chats(good, port) as server:
        second = run(server_at(server.url))
        asked = {int(re.findall(rb"question (\d+)", content)[0]) for _, _, content in server.seen}
    assert asked == set(range(count)) - set(done)
    assert [answer.text for answer in second] == [f"answer {n}" for n in range(count)]


def test_no_server_at_all_is_one_line_and_the_cache_works_without_it() -> None:
    port = free_port()
    engine = server_at(f"http://127.0.0.1:{port}")
    assert "model='tiny' revision=''" in engine.fingerprint
    with pytest.raises(EngineError, match=rf"127.0.0.1:{port}/v1 does not answer: no connection: .*; start it, or set"):
        engine.complete(questions(30))
    with chats(good, port):  # the same server as was assumed
        assert engine.complete(questions(3)) == answers(3)
    late = server_at(f"http://127.0.0.1:{port}")
    assert late.fingerprint == engine.fingerprint
    with (
        serve(lambda x: x.send(200, b'{"data": [{"id": "tiny", "root": "another"}]}'), port) as server,
        pytest.raises(EngineError, match="could not be asked about 'tiny' when this command began, and now can"),
    ):
        late.complete(questions(3))
    assert [path for path, *_ in server.seen] == ["/v1/models"]


def test_an_interrupt_ends_the_wait_and_the_requests() -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with chats(lambda x: x.hang(20)) as server:
            signal.setitimer(signal.ITIMER_REAL, 0.5)
            started = time.monotonic()
            with pytest.raises(Interrupted):
                server_at(server.url).complete(questions(20))
            assert time.monotonic() - started < 5
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

"""HTTP servers on this machine that tests start, and that may behave as badly as they like."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Exchange(BaseHTTPRequestHandler):
    """One request, and the means to answer it, well or badly."""

    protocol_version = "HTTP/1.1"
    server: LoopbackServer
    content: bytes

    def do_GET(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("content-length", 0)))
        with self.server.lock:
            self.server.seen.append((self.path, dict(self.headers), self.content))
            self.server.under_way += 1
            self.server.peak = max(self.server.peak, self.server.under_way)
        try:
            self.server.behave(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        pass

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    def send(self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def complete(self, text: str, finish: str = "stop") -> None:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        self.send(200, json.dumps({"object": "chat.completion", "choices": [choice]}).encode())

    def hang(self, seconds: float) -> None:
        self.server.stopping.wait(seconds)

    def cut(self, sent: bytes = b"") -> None:
        """Send some raw bytes and close."""
        self.wfile.write(sent)
        self.close_connection = True


class LoopbackServer(ThreadingHTTPServer):
    """What a test sees of its server."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, behave: Callable[[Exchange], None], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Exchange)
        self.behave = behave
        self.seen: list[tuple[str, dict[str, str], bytes]] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        self.under_way = self.peak = 0
        self._sockets: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def process_request(self, request: Any, client_address: Any) -> None:
        self._sockets.add(request)
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that break off are what some tests want

    def die(self) -> None:
        """As a killed process: no answer, no new connection."""
        self.stopping.set()
        self.socket.close()
        for one in list(self._sockets):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def serve(behave: Callable[[Exchange], None], port: int = 0) -> Iterator[LoopbackServer]:
    with LoopbackServer(behave, port) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.stopping.set()
            server.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()

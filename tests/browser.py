"""A headless Chromium that tells what a page does, by the DevTools protocol; no browser is downloaded."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
          "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--remote-debugging-port=0")  # fmt: skip
_SECONDS = 60


class Browser:
    """One tab of a running Chromium.

    Attributes:
        events: what the browser has told since it was last asked to open a page.
    """

    def __init__(self, address: str) -> None:
        from websocket import create_connection

        self._socket = create_connection(address, timeout=_SECONDS, suppress_origin=True)
        self._calls = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> Any:
        """One command and its result; events that come meanwhile are kept."""
        self._calls += 1
        session = {"sessionId": self._session} if self._session else {}
        self._socket.send(json.dumps({"id": self._calls, "method": method, "params": params, **session}))
        while (answer := json.loads(self._socket.recv())).get("id") != self._calls:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page: Path, *, width: int, scheme: str) -> None:
        """Open a file at a width in CSS pixels and in a colour scheme, until it is loaded."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        deadline = time.monotonic() + _SECONDS
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline, "the page does not load"
            self.evaluate("document.readyState")

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def complaints(self) -> list[str]:
        """Console messages, exceptions, and requests for anything but the page itself and what is embedded in it."""
        said = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        found = [json.dumps(event["params"]) for event in self.events if event.get("method") in said]
        asked = [event["params"] for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = [one["request"]["url"] for one in asked if one.get("type") != "Document"]
        return found + [address for address in addresses if not address.startswith("data:")]

    def close(self) -> None:
        """Let go of the browser."""
        self._socket.close()

    def picture(self, path: Path) -> None:
        """The whole page as a PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile; the test is skipped where there is no Chromium, and the process ends here."""
    if not Path(CHROMIUM).is_file():
        pytest.skip("there is no chromium here")
    profile.mkdir(parents=True, exist_ok=True)
    with (profile / "stderr").open("w+") as log:
        process = subprocess.Popen(
            [CHROMIUM, *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=log, env=os.environ | {"HOME": str(profile)}, start_new_session=True,
        )  # fmt: skip
        try:
            with closing(Browser(_address(profile / "stderr", process))) as browser:
                yield browser
        finally:
            process.terminate()
            process.wait(timeout=_SECONDS)


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if found := re.search(r"DevTools listening on (ws://\S+)", log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    pytest.fail(f"chromium does not start: {log.read_text(errors='replace')[-500:]}")

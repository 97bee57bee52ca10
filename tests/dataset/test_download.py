"""Pictures fetched from addresses that the data names: hostile until checked, none lost, none fetched twice."""

from __future__ import annotations

import gzip
import io
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mllmrec.dataset import DownloadLimits, ImageDownloader, PrepareOptions, prepare, statistics
from mllmrec.dataset.download import Downloads
from mllmrec.dataset.picture_store import open_store
from mllmrec.errors import StorageError
from mllmrec.foundation.progress import silent
from mllmrec.foundation.web import concurrency
from tests.servers import Exchange, LoopbackServer, serve, wait_until

LIMITS = DownloadLimits(seconds=20, attempts=2, concurrency=8, image_bytes=1 << 20)
Behaviour = Callable[[Exchange], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "_FIRST_SECONDS", 0.01)


def picture(seed: int, kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    packed = io.BytesIO()
    Image.fromarray(pixels).save(packed, format=kind)
    return packed.getvalue()


def mpo() -> bytes:
    """A JPEG with a second picture behind it, as phones write them."""
    packed = io.BytesIO()
    Image.new("RGB", (40, 30), "red").save(packed, "MPO", save_all=True, append_images=[Image.new("RGB", (20, 20))])
    return packed.getvalue()


def fetch(server: LoopbackServer, folder: Path, *paths: str, limits: DownloadLimits = LIMITS) -> Downloads:
    return ImageDownloader(folder, limits, allow_loopback=True).fetch([f"{server.url}{path}" for path in paths])


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def endless(exchange: Exchange) -> None:
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not exchange.server.stopping.is_set():
        exchange.wfile.write(chunk(b"\0" * 65536))


def loris(exchange: Exchange) -> None:
    """Bytes that keep every read busy and never end."""
    exchange.wfile.write(b"HTTP/1.1 200 OK\r\n")
    while not exchange.server.stopping.wait(0.1):
        exchange.wfile.write(b"X-Slow: 1\r\n")


def moved(where: str) -> Behaviour:
    return lambda x: x.send(302, b"", {"Location": where})


GOOD: dict[str, Behaviour] = {
    "/a.png": lambda x: x.send(200, picture(1)),
    "/same-as-a.png": lambda x: x.send(200, picture(1)),
    "/phone.jpg": lambda x: x.send(200, mpo()),
    "/no-ending": lambda x: x.send(200, picture(2, "JPEG"), {"Content-Type": "text/html"}),
    "/packed.png": lambda x: x.send(200, gzip.compress(picture(3)), {"Content-Encoding": "gzip"}),
    "/hop": moved("/hop2?x=1"),
    "/hop2?x=1": moved("/a.png"),
}
BAD: dict[str, tuple[Behaviour, str]] = {
    "/404": (lambda x: x.send(404), "HTTP status 404"),
    "/503": (lambda x: x.send(503), "HTTP status 503"),
    "/patience": (lambda x: x.send(429, b"", {"Retry-After": "86400"}), "HTTP status 429"),
    "/html.jpg": (
        lambda x: x.send(200, b"<html></html>"),
        "unreadable picture: not a JPEG, PNG, WEBP",
    ),
    "/svg.png": (lambda x: x.send(200, b"<svg xmlns='http://www.w3.org/2000/svg'/>"), "unreadable picture: not a"),
    "/empty": (lambda x: x.send(200), "the file is empty"),
    "/cut.png": (lambda x: x.send(200, picture(4)[:900]), "unreadable picture"),
    "/short": (
        lambda x: x.cut(b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\nabc"),
        "connection failed: peer closed",
    ),
    "/closed": (lambda x: x.cut(), "the connection failed: Server disconnected"),
    "/large": (lambda x: x.send(200, b"\0" * (2 << 20)), "a body of 2,097,152 bytes, more than 1,048,576"),
    "/endless": (endless, "a body of more than 1,048,576 bytes"),
    "/bomb": (
        lambda x: x.send(200, gzip.compress(b"\0" * (64 << 20), 1), {"Content-Encoding": "gzip"}),
        "a body of more than 1,048,576 bytes",
    ),
    "/port": (moved("http://93.184.216.34:6379/"), "port 6379 of 93.184.216.34; only 80, 443, 8080, 8443 are called"),
    "/cut.gz": (
        lambda x: x.send(200, gzip.compress(picture(3))[:-20], {"Content-Encoding": "gzip"}),
        "a packed body that is cut off",
    ),
    "/loop": (moved("/loop"), "more than 5 redirects"),
    "/metadata": (
        moved("http://169.254.169.254/latest"),
        "169.254.169.254 is at 169.254.169.254, which is no",
    ),
    "/private": (moved("http://10.0.0.1/x.png"), "10.0.0.1 is at 10.0.0.1, which is no public address"),
    "/decimal": (moved("http://2852039166/x.png"), "which is no public address"),
    "/mapped": (moved("http://[::ffff:10.0.0.1]/x.png"), "which is no public address"),
    "/file": (moved("file:///etc/passwd"), "only http and https are fetched, not 'file'"),
    "/gopher": (moved("gopher://host/1"), "only http and https are fetched, not 'gopher'"),
    "/odd": (moved("http://host:port/"), "not an address"),
}


def test_good_pictures_come_and_every_bad_one_costs_itself_alone(tmp_path: Path) -> None:
    def behave(exchange: Exchange) -> None:
        (GOOD.get(exchange.path) or BAD[exchange.path][0])(exchange)

    mixed = [path for pair in zip(BAD, [*GOOD] * 4, strict=False) for path in pair]
    with serve(behave) as server:
        done = fetch(server, tmp_path / "p", *mixed)
        url = server.url
    assert {path: done.files[url + path].read_bytes() for path in GOOD} == {
        "/a.png": picture(1),
        "/same-as-a.png": picture(1),
        "/phone.jpg": mpo(),
        "/no-ending": picture(2, "JPEG"),
        "/packed.png": picture(3),
        "/hop": picture(1),
        "/hop2?x=1": picture(1),
    }
    for path, (_, reason) in BAD.items():
        assert reason in done.failed[url + path], path
    assert len(done.failed) == len(BAD)
    kept = [file for file in (tmp_path / "p").iterdir() if not file.name.startswith(".") and file.suffix != ".jsonl"]
    assert sorted(file.suffix for file in kept) == [".jpg", ".jpg", ".png", ".png"]  # equal ones once
    noted = [json.loads(line) for line in (tmp_path / "p" / "failed.jsonl").read_text().splitlines()]
    assert {row["url"]: row["reason"] for row in noted} == done.failed
    assert f"{len(BAD)} of {len(BAD) + len(GOOD)} image addresses gave no picture" in done.warnings[0]


def test_a_server_that_never_ends_is_left(tmp_path: Path) -> None:
    limits = LIMITS.model_copy(update={"seconds": 0.5, "attempts": 1})
    with serve(lambda x: x.hang(30) if x.path == "/hang" else loris(x)) as server:
        done = fetch(server, tmp_path, "/loris", "/hang", limits=limits)
    assert set(done.failed.values()) == {"not complete within 0.5 s"}


def test_what_is_there_is_not_fetched_again_and_what_failed_is(tmp_path: Path) -> None:
    healthy = False

    def behave(exchange: Exchange) -> None:
        exchange.send(200, picture(int(exchange.path[1:]))) if healthy or exchange.path != "/3" else exchange.send(404)

    paths, folder = [f"/{n}" for n in range(6)], tmp_path / "p"
    with serve(behave) as server:
        assert list(fetch(server, folder, *paths).failed) == [f"{server.url}/3"]
        healthy = True
        (tmp_path / "secret.png").write_bytes(picture(99))
        with (folder / "index.jsonl").open("ab") as index:  # a hostile line, and one that a kill cut
            index.write(b'{"url": "%s/6", "file": "../secret.png"}\n{"url": "ht' % server.url.encode())
        server.seen.clear()
        done = fetch(server, folder, *paths, "/6")
        assert sorted(path for path, *_ in server.seen) == ["/3", "/6"]
        assert done.files[f"{server.url}/6"].read_bytes() == picture(6)
        assert (len(done.files), done.failed, done.fetched) == (7, {}, 2)
        server.seen.clear()
        assert fetch(server, folder, *paths, "/6").fetched == 0 and not server.seen
    assert (folder / "failed.jsonl").read_text() == ""


def test_a_busy_server_is_asked_again_and_not_all_at_once(tmp_path: Path) -> None:
    met: Counter[str] = Counter()

    def behave(exchange: Exchange) -> None:
        met[exchange.path] += 1
        exchange.hang(0.01)
        if met[exchange.path] == 1:
            exchange.send(429 if int(exchange.path[1:]) % 2 else 500, b"", {"Retry-After": "0.02"})
        else:
            exchange.send(200, picture(int(exchange.path[1:])))

    with serve(behave) as server:
        done = fetch(server, tmp_path, *(f"/{n}" for n in range(40)))
    assert len(done.files) == 40 and min(met.values()) >= 2
    assert server.peak <= LIMITS.concurrency


def test_a_kill_loses_no_picture(tmp_path: Path) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.hang(0.05)
        exchange.send(200, picture(int(exchange.path[1:])))

    script = (
        "import sys; from pathlib import Path; from mllmrec.dataset import *\n"
        "ImageDownloader(Path(sys.argv[1]), DownloadLimits(concurrency=2), allow_loopback=True).fetch(sys.argv[2:])"
    )
    with serve(behave) as server:
        urls = [f"{server.url}/{n}" for n in range(40)]
        process = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "p"), *urls])
        assert wait_until(lambda: len(server.seen) >= 12, 30)
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(0.2)
        first = [path for path, *_ in server.seen]
        done = ImageDownloader(tmp_path / "p", LIMITS, allow_loopback=True).fetch(urls)
        again = [path for path, *_ in server.seen][len(first) :]
    assert {url: file.read_bytes() for url, file in done.files.items()} == {
        url: picture(n) for n, url in enumerate(urls)
    }
    assert len(set(first) & set(again)) <= 4  # those under way at the kill
    assert not list((tmp_path / "p").glob("*.tmp"))


def test_a_second_download_waits_for_the_first(tmp_path: Path) -> None:
    said: list[str] = []
    with serve(lambda x: x.send(200, picture(1))) as server:
        second = threading.Thread(
            target=ImageDownloader(tmp_path, LIMITS, allow_loopback=True).fetch,
            args=([f"{server.url}/1"], lambda label, *_: said.append(label)),
        )
        with open_store(tmp_path, silent):
            second.start()
            assert wait_until(lambda: bool(said), 20)
            assert said == ["wait for another download into this folder"] and not server.seen
        second.join(20)
    assert said[1:] == ["download images"]


@pytest.mark.parametrize("name", [".lock", "index.jsonl"])
def test_a_planted_link_is_neither_followed_nor_emptied(tmp_path: Path, name: str) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("keep me")
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / name).symlink_to(precious)
    with (
        serve(lambda x: x.send(200, picture(1))) as server,
        pytest.raises(StorageError, match=rf"{name}: it is a symbolic link"),
    ):
        fetch(server, tmp_path / "p", "/1")
    assert precious.read_text() == "keep me"


def test_a_link_in_place_of_a_fetched_picture_is_not_that_picture(tmp_path: Path) -> None:
    with serve(lambda x: x.send(200, picture(1))) as server:
        (file,) = fetch(server, tmp_path / "p", "/1").files.values()
        (tmp_path / "other.png").write_bytes(picture(2))
        file.unlink()
        file.symlink_to(tmp_path / "other.png")
        done = fetch(server, tmp_path / "p", "/1")
    assert (done.fetched, file.is_symlink(), file.read_bytes()) == (1, False, picture(1))
    assert (tmp_path / "other.png").read_bytes() == picture(2)


def shop_with(folder: Path, items: list[dict[str, object]]) -> Path:
    folder.mkdir()
    (folder / "interactions.csv").write_text("user,item\n" + "".join(f"u,{item['item']}\n" for item in items))
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    return folder


def test_prepare_puts_fetched_pictures_behind_local_ones(tmp_path: Path) -> None:
    def behave(exchange: Exchange) -> None:
        exchange.send(404) if exchange.path == "/404" else exchange.send(200, picture(int(exchange.path[1:])))

    with serve(behave) as server:
        items: list[dict[str, object]] = [
            {"item": "two", "image": [f"{server.url}/1", f"{server.url}/2", f"{server.url}/3"]},
            {"item": "local", "image": ["own.png", f"{server.url}/1"]},
            {"item": "gone", "image": f"{server.url}/404"},
            {"item": "none"},
        ]
        shop = shop_with(tmp_path / "s", items)
        (shop / "own.png").write_bytes(picture(9))
        limits = LIMITS.model_copy(update={"images_per_item": 2})
        downloader = ImageDownloader(tmp_path / "p", limits, allow_loopback=True)
        made = prepare(shop, tmp_path / "d", PrepareOptions(k_core=0), downloader=downloader)
        assert "/3" not in [path for path, *_ in server.seen]
    found = [[(made.folder / name).read_bytes() for name in names] for names in made.items["images"]]
    assert found == [[picture(1), picture(2)], [picture(9), picture(1)], [], []]
    steps = statistics(made).steps
    assert (steps["image addresses"], steps["image addresses without a picture"]) == (3, 1)
    assert any("1 of 3 image addresses gave no picture (1 x HTTP status 404)" in w for w in made.manifest["warnings"])
    assert "1 further image addresses were not fetched; see --images-per-item" in made.manifest["warnings"]


def test_the_command_calls_no_address_of_this_machine(tmp_path: Path) -> None:
    with serve(lambda x: x.send(200, picture(1))) as server:
        shop = shop_with(tmp_path / "s", [{"item": "a", "image": f"{server.url}/1"}])
        words = ["prepare", shop, "--out", tmp_path / "d", "--k-core", "0", "--download-images"]
        command = [sys.executable, "-m", "mllmrec_cli", *map(str, words), "--image-folder", str(tmp_path / "p")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not server.seen
    assert done.returncode == 0, done.stderr
    told = " ".join(done.stderr.split())
    assert "1 of 1 image addresses gave no picture (1 x 127.0.0.1 is at 127.0.0.1, which is no public address)" in told
    assert "p/failed.jsonl" in told.replace(" ", "")

"""Bodies below a limit, before and after unpacking, and never in memory beyond it."""

from __future__ import annotations

import asyncio
import gzip
import random
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from mllmrec.foundation.web.body import BodyRefusedError, read_body

LIMIT = 100_000
PLAIN = bytes(range(256)) * 300
GZIP = gzip.compress(PLAIN)


class Parts(httpx.AsyncByteStream):
    def __init__(self, data: bytes, size: int) -> None:
        self._data, self._size = data, size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for start in range(0, len(self._data), self._size):
            yield self._data[start : start + self._size]


def read(data: bytes, size: int = 65536, **headers: str) -> bytes:
    response = httpx.Response(
        200, headers={k.replace("_", "-"): v for k, v in headers.items()}, stream=Parts(data, size)
    )
    return asyncio.run(read_body(response, LIMIT))


@pytest.mark.parametrize("size", [1, 7, 65536])
@pytest.mark.parametrize(
    ("packed", "encoding"),
    [
        (PLAIN, "identity"),
        (gzip.compress(PLAIN), "gzip"),
        (gzip.compress(PLAIN), "X-GZIP"),
        (zlib.compress(PLAIN), "deflate"),
    ],
)
def test_bodies_come_whole_however_they_are_packed_and_parted(packed: bytes, encoding: str, size: int) -> None:
    assert read(packed, size, content_encoding=encoding) == PLAIN


def test_the_limit_is_exact() -> None:
    assert len(read(b"x" * LIMIT)) == len(read(gzip.compress(b"x" * LIMIT), content_encoding="gzip")) == LIMIT
    for data, headers in ((b"x", {}), (gzip.compress(b"x" * (LIMIT + 1)), {"content_encoding": "gzip"})):
        with pytest.raises(BodyRefusedError, match="more than 100,000"):
            read(data * (1 if headers else LIMIT + 1), **headers)
    with pytest.raises(BodyRefusedError, match="a body of 100,001 bytes"):
        read(b"", content_length="100001")


def test_a_bomb_never_unfolds_in_memory() -> None:
    bomb = gzip.compress(b"\0" * (16 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BodyRefusedError):
            read(bomb, content_encoding="gzip")
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


class EndlessAfter(httpx.AsyncByteStream):
    """A body, and whatever follows it for ever."""

    def __init__(self, data: bytes, rest: bytes) -> None:
        self._data, self._rest, self.parts = data, rest, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._data
        while self.parts < 1_000_000:
            self.parts += 1
            yield self._rest


@pytest.mark.parametrize(("pack", "encoding"), [(gzip.compress, "gzip"), (zlib.compress, "deflate")])
def test_reading_stops_at_the_end_of_the_packed_stream(pack: Callable[[bytes], bytes], encoding: str) -> None:
    stream = EndlessAfter(pack(PLAIN), b"x" * 65536)
    response = httpx.Response(200, headers={"content-encoding": encoding}, stream=stream)
    assert asyncio.run(read_body(response, LIMIT)) == PLAIN
    assert stream.parts == 0


def test_packed_bytes_that_unpack_to_nothing_are_limited() -> None:
    stream = EndlessAfter(gzip.compress(b"")[:10], b"\0\0\0\xff\xff" * 1000)  # stored blocks of no bytes
    response = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=stream)
    with pytest.raises(BodyRefusedError, match="more than 100,000 bytes"):
        asyncio.run(read_body(response, LIMIT))
    assert stream.parts <= 34


def test_bytes_that_do_not_shrink_may_be_packed() -> None:
    noise = random.Random(0).randbytes(LIMIT)
    packed = gzip.compress(noise)
    assert len(packed) > LIMIT
    assert read(packed, content_encoding="gzip") == noise


@pytest.mark.parametrize("length", ["9" * 5000, "\u00b2", "-1", "x"])
def test_an_odd_declared_length_is_no_error_of_ours(length: str) -> None:
    response = httpx.Response(200, headers={b"content-length": length.encode("latin-1")}, stream=Parts(PLAIN, 999))
    if length.startswith("9"):
        with pytest.raises(BodyRefusedError, match="more than 100,000"):
            asyncio.run(read_body(response, LIMIT))
    else:
        assert asyncio.run(read_body(response, LIMIT)) == PLAIN


@pytest.mark.parametrize(
    ("data", "encoding", "reason"),
    [
        (GZIP[:-9], "gzip", "cut off"),
        (PLAIN, "gzip", "not packed as it says"),
        (PLAIN, "br", "packed as 'br', which was not asked for"),
        (PLAIN, "gzip, gzip", "not asked for"),
    ],
)
def test_what_is_not_packed_as_it_says_is_refused(data: bytes, encoding: str, reason: str) -> None:
    with pytest.raises(BodyRefusedError, match=reason):
        read(data, content_encoding=encoding)

"""Bodies of responses, read below a limit of bytes, before and after unpacking."""

from __future__ import annotations

import zlib
from collections.abc import Callable

import httpx

from mllmrec.errors import MllmrecError

PLAIN = {"Accept-Encoding": "identity"}
"""Headers that ask for a body as it is; a server that packs it all the same is unpacked with care."""


class BodyRefusedError(MllmrecError):
    """A body that is too large, or packed in a way that cannot be read; the text is the reason."""


async def read_body(response: httpx.Response, most: int) -> bytes:
    """The body of a streamed response, at most `most` bytes of it, gzip and deflate unpacked.

    Raises:
        BodyRefusedError: it is larger, unpacks to more, or is packed in another way.
        httpx.HTTPError: the connection broke before its end.
    """
    declared = response.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > most:
        raise BodyRefusedError(f"a body of {int(declared):,} bytes, more than {most:,}")
    unpack, complete = _unpacker(response.headers.get("content-encoding", "").strip().lower())
    body = bytearray()
    async for packed in response.aiter_raw():
        body += unpack(packed, most + 1 - len(body))
        if len(body) > most:
            raise BodyRefusedError(f"a body of more than {most:,} bytes")
    if not complete():
        raise BodyRefusedError("a packed body that is cut off")
    return bytes(body)


def _unpacker(encoding: str) -> tuple[Callable[[bytes, int], bytes], Callable[[], bool]]:
    """A function (packed, most) -> at most `most` bytes, and one that says whether the end was seen."""
    if encoding in ("", "identity"):
        return lambda packed, most: packed[:most], lambda: True
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BodyRefusedError(f"a body packed as {encoding[:20]!r}, which was not asked for")
    # 47: the largest window, gzip and zlib told apart by their headers.
    inflater = zlib.decompressobj(47)

    def unpack(packed: bytes, most: int) -> bytes:
        try:
            return inflater.decompress(packed, most)
        except zlib.error as error:
            raise BodyRefusedError("a body that is not packed as it says") from error

    return unpack, lambda: inflater.eof

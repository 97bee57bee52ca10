"""Read bodies of responses below a limit of bytes, before and after unpacking."""

from __future__ import annotations

import zlib

import httpx

from mllmrec.errors import MllmrecError

PLAIN = {"Accept-Encoding": "identity"}
"""Headers that ask for a body as it is; a server that packs it all the same is unpacked with care."""

_PACKED_SHARE, _PACKED_BYTES = 1024, 65_536  # what packing may add to bytes that do not shrink, and its header


class BodyRefusedError(MllmrecError):
    """A body that is too large, or packed in a way that cannot be read; the text is the reason."""


async def read_body(response: httpx.Response, most: int) -> bytes:
    """Return the body of a streamed response, gzip and deflate unpacked.

    Reading stops where the packed stream ends; what a server sends behind it is left unread.

    Args:
        response: a response whose stream is open.
        most: bytes of the body, once unpacked; the packed bytes may be a little more.

    Returns:
        The whole body, at most `most` bytes.

    Raises:
        BodyRefusedError: it is larger, unpacks to more, or is packed in another way.
        httpx.HTTPError: the connection broke before its end.
    """
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and declared.isascii() and int(declared[:20]) > most:
        raise BodyRefusedError(f"a body of {int(declared[:20]):,} bytes, more than {most:,}")
    unpacker = _unpacker(response.headers.get("content-encoding", "").strip().lower())
    body, received = bytearray(), 0
    async for packed in response.aiter_raw():
        received += len(packed)
        body += unpacker.unpack(packed, most + 1 - len(body))
        if len(body) > most or received > most + most // _PACKED_SHARE + _PACKED_BYTES:
            raise BodyRefusedError(f"a body of more than {most:,} bytes")
        if unpacker.is_complete:
            return bytes(body)
    if unpacker.is_cut:
        raise BodyRefusedError("a packed body that is cut off")
    return bytes(body)


def _unpacker(encoding: str) -> _Plain | _Inflater:
    if encoding in ("", "identity"):
        return _Plain()
    if encoding not in ("gzip", "x-gzip", "deflate"):
        raise BodyRefusedError(f"a body packed as {encoding[:20]!r}, which was not asked for")
    return _Inflater()


class _Plain:
    """A body as it is; its end is the end of the response."""

    is_complete = False
    is_cut = False

    def unpack(self, packed: bytes, most: int) -> bytes:
        return packed[:most]


class _Inflater:
    """A body in gzip or zlib form."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(47)  # the largest window, gzip and zlib told apart by their headers

    @property
    def is_complete(self) -> bool:
        return self._inflater.eof

    @property
    def is_cut(self) -> bool:
        return not self._inflater.eof

    def unpack(self, packed: bytes, most: int) -> bytes:
        try:
            return self._inflater.decompress(packed, most)
        except zlib.error as error:
            raise BodyRefusedError("a body that is not packed as it says") from error

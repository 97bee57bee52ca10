"""Read bodies of responses below a limit of bytes, and blot a secret out of them."""

from __future__ import annotations

import base64
import re
import zlib
from html.entities import html5

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


_BLOT = "(key)"
_MIN_ENCODED = 8  # characters of an encoded key that are looked for; fewer would match by chance
_ENTITIES: dict[str, list[str]] = {}  # names of characters in HTML, without ";"
for _name, _character in html5.items():
    _ENTITIES.setdefault(_character, []).append(re.escape(_name.rstrip(";")))
_LEADS = ("", "x", "xx")  # any bytes before the key, by their number modulo 3


class Redactor:
    """Replace a key in texts by "(key)".

    It finds the key itself, also with characters escaped for JSON (once or twice), URLs, HTML, mail or source code. It
    finds the key in base64 (by itself, or with other bytes before it) and in hexadecimal.

    Args:
        key: the secret; empty: nothing is replaced.
    """

    def __init__(self, key: str) -> None:
        spellings = [key, *_encoded(key)] if key else []
        parts = ["".join(map(_any_spelling, spelling)) for spelling in spellings]
        heads = re.escape("".join({spelling[0] for spelling in spellings}) + "\\%&=")
        # Where no spelling can begin, the first class fails at once: bodies may be long.
        self._pattern = re.compile(f"(?=[{heads}])(?:{'|'.join(parts)})") if parts else None

    def __call__(self, text: str) -> str:
        """Return a text without the key."""
        if self._pattern is None:
            return text
        return self._pattern.sub(_BLOT, text)


def _any_spelling(character: str) -> str:
    """Return a pattern of one character, plain or escaped."""
    code = ord(character)
    digits = "".join(f"[{digit.lower()}{digit.upper()}]" for digit in f"{code:02x}")
    # Every repetition is bounded: a server could send a million backslashes.
    escapes = (
        rf"\\{{0,4}}{re.escape(character)}",
        rf"\\{{1,4}}(?:u\{{?0{{0,6}}|x){digits}\}}?",
        rf"%(?:25){{0,4}}{digits}",
        rf"\\{{1,4}}0?{code:03o}",
        rf"={digits}",
        rf"&#(?:0{{0,6}}{code}|[xX]0{{0,6}}{digits});?",
        *(f"&{name};?" for name in _ENTITIES.get(character, ())),
    )
    return f"(?:{'|'.join(escapes)})"


def _encoded(key: str) -> list[str]:
    """Return the key in hexadecimal and base64; of base64, the middle that no neighboring byte changes."""
    raw = key.encode()
    forms = {raw.hex(), raw.hex().upper()}
    for prefix in _LEADS:
        lead = len(prefix)
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            packed = encode(prefix.encode() + raw).decode()
            first, last = -(-lead * 4 // 3), (lead + len(raw)) * 8 // 6
            forms.add(packed[first:last])
    return sorted((form for form in forms if len(form) >= _MIN_ENCODED), key=len, reverse=True)

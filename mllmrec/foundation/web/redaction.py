"""Blot a secret out of a server's words, also where the server gives it back in another spelling."""

from __future__ import annotations

import base64
import re
from html.entities import html5

_BLOT = "(key)"
_MIN_ENCODED = 8  # characters of an encoded key that are looked for; fewer would match by chance
_ENTITIES: dict[str, list[str]] = {}  # names of characters in HTML, without ";"
for _name, _character in html5.items():
    _ENTITIES.setdefault(_character, []).append(re.escape(_name.rstrip(";")))
_LEADS = ("", "x", "xx")  # any bytes before the key, by their number modulo 3


class Redactor:
    """Replace a key in texts by "(key)".

    Found are the key itself, with any of its characters escaped for JSON (also twice), URLs, HTML, mail or source code,
    and the key in base64 (alone, or with other bytes before it) or hexadecimal.

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

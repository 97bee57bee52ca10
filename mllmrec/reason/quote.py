"""Texts from the shop as data inside a prompt: they cannot speak as the prompt, and they keep to their length.

Every chat template marks turns, images and other controls by brackets (`<|im_start|>`, `<image>`, `[INST]`,
`</s>`), and so do the delimiters of our own prompts. Data is therefore stripped of the four characters < > [ ]:
look-alikes and parentheses stand in their place. No list of tokens has to be kept, and no data can close the
element it stands in.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from mllmrec.reason.shares import fair_shares

# The full-width and small forms are here because a tokenizer may fold them into the plain ones.
_BRACKETS = {
    **dict.fromkeys("<\uff1c\ufe64", "\u2039"),
    **dict.fromkeys(">\uff1e\ufe65", "\u203a"),
    **dict.fromkeys("[\uff3b", "("),
    **dict.fromkeys("]\uff3d", ")"),
}
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # controls, bidi and zero-width marks, surrogates, private use
_JOINERS = "\u200c\u200d"  # words of several scripts, and emoji, need them
_LONGEST = 1 << 16  # characters that are looked at, however long a field is
_BYTES_PER_TOKEN = 3


class _Plain(dict[int, str]):
    """What stands for a character, worked out once a character: profiles quote hundreds of millions of them."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        unseen = unicodedata.category(character) in _UNSEEN and character not in _JOINERS
        self[code] = " " if unseen else _BRACKETS.get(character, character)
        return self[code]


_PLAIN = _Plain()


def neutralise(text: str) -> str:
    """One line of plain text that no chat template, tokenizer or delimiter takes for anything else."""
    return " ".join(text[:_LONGEST].translate(_PLAIN).split())


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has, by no tokenizer in particular: a third of its UTF-8 bytes, rounded up.

    On the safe side for the current vocabularies: English prose has four to five bytes a token, titles full of
    numbers and most other scripts about three.
    """
    return -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN)


def shorten(text: str, tokens: int) -> str:
    """The beginning of a text that has at most so many estimated tokens, ended at a word where there is one."""
    room = tokens * _BYTES_PER_TOKEN
    raw = text.encode("utf-8", "replace")
    if len(raw) <= room:
        return text
    kept = raw[: max(room - len("\u2026".encode()), 0)].decode("utf-8", "ignore")
    head, _, tail = kept.rpartition(" ")
    whole = head if head and len(tail) < 30 else kept
    return f"{whole.rstrip()}\u2026" if whole else ""


def element(name: str, fields: Sequence[tuple[str, str]], tokens: int, attributes: str = "") -> str:
    """`<name>`, a line a field, `</name>`; fields share the tokens fairly, empty ones are left out.

    So what the pictures show is never crowded out by a long description.
    """
    most = 4 * _BYTES_PER_TOKEN * (tokens + 1)  # characters that could be kept, spaces to spare
    plain = [(label, neutralise(text[:most])) for label, text in fields]
    kept = [(label, text) for label, text in plain if text]
    shares = fair_shares([estimate_tokens(text) for _, text in kept], tokens)
    lines = [
        f"{label}: {short}"
        for (label, text), share in zip(kept, shares, strict=True)
        if (short := shorten(text, share))
    ]
    return "\n".join([f"<{name}{attributes}>", *(lines or ["(nothing is known)"]), f"</{name}>"])

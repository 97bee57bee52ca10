"""Check what an answer to a template with examples speaks of: its own request, an example, or neither.

A small model answers an example in the place of the request, or goes on about something that stands nowhere. Words
that all examples' answers share are the phrases of a good answer, so no list of words of any language is needed.
"""

from __future__ import annotations

import re

from mllmrec.reason.engine import ChatRequest

EXAMPLE = "speaks of an example of the prompt"
STRAY = "most of its words stand in no item"
_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM = 5  # letters that two forms of a word share: towel, towels
_OF_EXAMPLE, _COPIED = 2, 0.25  # words, and their share, that an example has and the request has not
_STRAY = 0.5  # share of the telling words that may stand nowhere in the prompt


def stray(text: str, request: ChatRequest) -> str:
    """Return why an answer does not speak of its request; empty where it does, or where there are no examples.

    Args:
        text: of the answer.
        request: with the examples that its template has.
    """
    if not request.examples:
        return ""
    own, answers = _stems(request.text), [_stems(answer) for _, answer in request.examples]
    phrases, examples = set.intersection(*answers), set.union(*answers)
    telling = _stems(text) - phrases
    copied = len((telling & examples) - own)
    if copied >= _OF_EXAMPLE and copied > _COPIED * len(telling):
        return EXAMPLE
    return STRAY if len(telling - own) > _STRAY * len(telling) or not telling else ""


def _stems(text: str) -> set[str]:
    """Return the beginnings of the longer words."""
    return {word[:_STEM] for word in _WORD.findall(text.lower())}

"""Check what an answer to a template with examples speaks of: its own request, an example, or neither.

Such a template wants facts put into a sentence, so each telling word of a good answer stands in the facts. Words that
all examples' answers share are the phrases of a good answer. So no list of words of any language is needed.
"""

from __future__ import annotations

import re

from mllmrec.reason.engine import ChatRequest

EXAMPLE = "speaks of an example of the prompt"
STRAY = "words that no item has"
SAYS_NOTHING = "no word of any item"
_LONG = 4  # letters
_WORD = re.compile(rf"[^\W\d_]{{{_LONG},}}")
_PART = re.compile(r"[^\W_]+")  # letters and digits as they stand together: 3M, 4ft
_SHORT = re.compile(r"(?<![^\W\d_])[^\W\d_]{1,3}(?![^\W\d_])")
_STEM = 5  # letters that two forms of a word share: towel, towels
_OF_EXAMPLE, _COPIED = 2, 0.25  # words, and their share, that an example has and the request has not
_NAMED = 3  # such words that a reason names


def stray(text: str, request: ChatRequest) -> str:
    """Return why an answer does not speak of its request alone; empty if it does, or if there are no examples.

    Args:
        text: of the answer.
        request: of the first attempt, with the examples that its template has.
    """
    if not request.examples:
        return ""
    own, answers = _stems(request.text), [_stems(answer) for _, answer in request.examples]
    phrases, examples = set.intersection(*map(set, answers)), set[str]().union(*answers)
    telling = {stem: word for stem, word in _stems(text).items() if stem not in phrases}
    copied = sum(stem in examples and stem not in own for stem in telling)
    if copied >= _OF_EXAMPLE and copied > _COPIED * len(telling):
        return EXAMPLE
    unknown = [word for stem, word in telling.items() if stem not in own] + _unknown_closed(text, request)
    if unknown:
        return f"{STRAY}: {', '.join(unknown[:_NAMED])}"
    return "" if telling else SAYS_NOTHING


def _unknown_closed(text: str, request: ChatRequest) -> list[str]:
    """Return the short words, and the words with digits, that are none of a closed request's.

    Tokens of a closed vocabulary can be put together to other words and numbers: "tbo" for a tote, 2013 for 2011.
    """
    if not request.words:
        return []
    known = {part for word in request.words for part in _PART.findall(word.lower())}
    known |= {letters for part in known for letters in _SHORT.findall(part)}
    compared = (part for part in _PART.findall(text.lower()) if len(part) < _LONG or not part.isalpha())
    return [part for part in dict.fromkeys(compared) if part not in known]


def _stems(text: str) -> dict[str, str]:
    """Return the beginnings of the longer words, and the words."""
    return {word[:_STEM]: word for word in _WORD.findall(text.lower())}

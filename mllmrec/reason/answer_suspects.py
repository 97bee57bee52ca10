"""Check the generated answers of a stage together, when all are there.

An answer is suspect where it does not seem to depend on its request. That shows refusals and set phrases in any
language: others got the same text, or it is made of what many others say, or it is short and shares no telling word
with its own item where nearly all others do. A suspect text is kept. A single refusal among prompts without text cannot
be seen in this way.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mllmrec.reason.engine import Answer

_MIN_REQUESTS = 20  # different requests before a stage's answers can be compared
_SAME = 3  # requests with one and the same answer
_WINDOW = 20  # letters; about four words, or a sentence of Chinese
_MANY, _SET_PHRASE = 0.02, 0.8  # a window is common in this share of answers; of a set phrase this share of windows is
_COMMON = 0.1  # a word of more items' texts tells none of them apart
_USUAL = 0.9  # share of answers with a telling word of their item from which on one without is odd
_SHORT = 0.5  # of the median length
_UNSPACED = 0x2E80  # from here on, scripts that mostly do not part their words
_WORD = re.compile(r"[^\W\d_]{2,}")
_MIN_WORD = 4  # letters of a word in a script that parts its words


def mark_suspects(keys: Sequence[str], material: Sequence[str], answers: Sequence[Answer]) -> list[Answer]:
    """Return the answers in order; those that do not seem to depend on their request become "suspect".

    Args:
        keys: of the requests; equal requests have one answer, and count once.
        material: the words of each request: an item's own text, or that of a history's items.
        answers: one a request; only those of status "ok" are judged.
    """
    rows = {key: n for n, key in enumerate(keys) if answers[n].status == "ok"}
    order = list(rows.values())
    reasons = suspicions([material[n] for n in order], [answers[n].text for n in order])
    by_key = dict(zip(rows, reasons, strict=True))
    return [
        replace(answer, status="suspect", reason=by_key[key]) if by_key.get(key) and answer.status == "ok" else answer
        for key, answer in zip(keys, answers, strict=True)
    ]


def suspicions(material: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Return one reason per suspect answer, and an empty string for an answer that is specific to its request."""
    if len(texts) < _MIN_REQUESTS:
        return [""] * len(texts)
    plain = [" ".join(_WORD.findall(text.lower())) for text in texts]
    same = Counter(plain)
    phrases = _share_of_common_windows(plain)
    unrelated = _short_and_unrelated(material, texts, [len(text) for text in plain])
    reasons = []
    for text, phrase, alien in zip(plain, phrases, unrelated, strict=True):
        if same[text] >= _SAME:
            reasons.append(f"the same answer as to {same[text] - 1:,} other requests")
        elif phrase >= _SET_PHRASE:
            reasons.append("made of what many other answers say too")
        else:
            reasons.append("short, and without a word of its request" if alien else "")
    return reasons


def _share_of_common_windows(texts: Sequence[str]) -> NDArray[np.float64]:
    """Return [N] the share of each answer's windows of letters that stand in many others, float64."""
    windows = [_hashes(text) for text in texts]
    _, inverse, counts = np.unique(np.concatenate(windows), return_inverse=True, return_counts=True)
    common = counts[inverse] >= max(_SAME, math.ceil(_MANY * len(texts)))
    starts = np.cumsum([0, *map(len, windows[:-1])])
    shares: NDArray[np.float64] = np.add.reduceat(common, starts) / np.array([len(own) for own in windows])
    return shares


def _hashes(text: str) -> NDArray[np.uint64]:
    """Hash the different windows of a text, at least one (a polynomial modulo 2^64)."""
    codes = np.frombuffer(text.ljust(_WINDOW).encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    powers = np.array([pow(1_000_003, n, 1 << 64) for n in range(_WINDOW)], dtype=np.uint64)
    return np.unique((np.lib.stride_tricks.sliding_window_view(codes, _WINDOW) * powers).sum(axis=1, dtype=np.uint64))


def _short_and_unrelated(material: Sequence[str], texts: Sequence[str], lengths: Sequence[int]) -> list[bool]:
    """Mark the short answers without a telling word of their request, where nearly all others have one."""
    own = [_words(text) for text in material]
    frequency = Counter(word for words in own for word in words)
    most = _COMMON * len(own)
    related = [
        any(frequency[word] <= most for word in words & _words(text)) for words, text in zip(own, texts, strict=True)
    ]
    if sum(related) < _USUAL * len(related):
        return [False] * len(related)
    short = _SHORT * float(np.median(lengths))
    return [not kin and bool(words) and n < short for kin, words, n in zip(related, own, lengths, strict=True)]


def _words(text: str) -> set[str]:
    """Return the longer words; of scripts that do not part them, pairs of letters."""
    words = set()
    for word in _WORD.findall(text.lower()):
        if ord(word[0]) >= _UNSPACED:
            words |= {word[n : n + 2] for n in range(len(word) - 1)}
        elif len(word) >= _MIN_WORD:
            words.add(word)
    return words

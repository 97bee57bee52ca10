"""Answers that do not depend on what they were asked of: refusals and other set phrases, in whatever language.

A refusal knows nothing of its item. So it shows in a run as a whole, without a word of its language being known:
other items got the same text, or it is made of what many others say too, or it is short and shares no telling word
with its own item where nearly all others do. The last is a comparison with the run's own habit, so that answers in
another language than the catalogue's are not all suspected. What is found is a suspicion: the text is kept.

A single refusal in a run whose questions hold no text cannot be seen by any of this.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mllmrec.reason.engine import Answer

DOUBTFUL = "doubtful"
_FEWEST = 20  # different requests before anything can be said of a run's habit
_SAME = 3  # requests with one and the same answer
_WINDOW = 20  # letters; about four words, or a sentence of Chinese
_MANY, _MADE_OF = 0.02, 0.8  # a window is common in this share of answers; of a set phrase this share of windows is
_COMMON = 0.1  # a word of more items' texts tells none of them apart
_USUAL = 0.9  # share of answers with a telling word of their item from which on one without is a wonder
_SHORT = 0.5  # of the median length
_UNSPACED = 0x2E80  # from here on, scripts that mostly do not part their words
_WORD = re.compile(r"[^\W\d_]{2,}")
_LEAST_LETTERS = 4  # of a word in a script that parts its words


def doubt(keys: Sequence[str], material: Sequence[str], answers: Sequence[Answer]) -> list[Answer]:
    """Answers in order; those that seem to be independent of their request have status "doubtful", and say why.

    Args:
        keys: of the requests; equal requests have one answer, and count once.
        material: what each request is about in words: an item's own text, or that of a history's items.
        answers: one a request; only those of status "ok" are judged.
    """
    rows = {key: n for n, key in enumerate(keys) if answers[n].status == "ok"}
    order = list(rows.values())
    why = dict(zip(rows, independent([material[n] for n in order], [answers[n].text for n in order]), strict=True))
    return [
        replace(answer, status=DOUBTFUL, reason=why[key]) if why.get(key) and answer.status == "ok" else answer
        for key, answer in zip(keys, answers, strict=True)
    ]


def independent(material: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Why each of the answers to different requests seems to be independent of its request; empty where none."""
    if len(texts) < _FEWEST:
        return [""] * len(texts)
    plain = [_letters(text) for text in texts]
    same = Counter(plain)
    phrases = _share_of_common_windows(plain)
    strange = _strangers(material, texts, [len(text) for text in plain])
    reasons = []
    for text, phrase, stranger in zip(plain, phrases, strange, strict=True):
        if same[text] >= _SAME:
            reasons.append(f"the same answer as to {same[text] - 1:,} other requests")
        elif phrase >= _MADE_OF:
            reasons.append("made of what many other answers say too")
        else:
            reasons.append("short, and without a word of what it was asked of" if stranger else "")
    return reasons


def _letters(text: str) -> str:
    return " ".join(_WORD.findall(text.lower()))


def _share_of_common_windows(texts: Sequence[str]) -> NDArray[np.float64]:
    """[N] which share of an answer's windows of letters stand in many others, float64."""
    windows = [_hashes(text) for text in texts]
    _, inverse, counts = np.unique(np.concatenate(windows), return_inverse=True, return_counts=True)
    common = counts[inverse] >= max(_SAME, math.ceil(_MANY * len(texts)))
    starts = np.cumsum([0, *map(len, windows[:-1])])
    shares: NDArray[np.float64] = np.add.reduceat(common, starts) / np.array([len(own) for own in windows])
    return shares


def _hashes(text: str) -> NDArray[np.uint64]:
    """The different windows of a text, at least one, as hashes (a polynomial modulo 2^64)."""
    codes = np.frombuffer(text.ljust(_WINDOW).encode("utf-32-le", "replace"), dtype=np.uint32).astype(np.uint64)
    powers = np.array([pow(1_000_003, n, 1 << 64) for n in range(_WINDOW)], dtype=np.uint64)
    return np.unique((np.lib.stride_tricks.sliding_window_view(codes, _WINDOW) * powers).sum(axis=1, dtype=np.uint64))


def _strangers(material: Sequence[str], texts: Sequence[str], lengths: Sequence[int]) -> list[bool]:
    """Whether an answer is short and has no telling word of its request, though nearly all others have one."""
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
    """Words of some length; of scripts that do not part them, pairs of letters."""
    found = set()
    for word in _WORD.findall(text.lower()):
        if ord(word[0]) >= _UNSPACED:
            found |= {word[n : n + 2] for n in range(len(word) - 1)}
        elif len(word) >= _LEAST_LETTERS:
            found.add(word)
    return found


def counted(counts: Mapping[str, int]) -> str:
    """The answers that are no plain success, for a stage's one line; empty where all are.

    Args:
        counts: answers by status.
    """
    told = [
        f"{counts[status]:,} of them {said}"
        for status, said in (("flagged", "cut"), (DOUBTFUL, "doubtful"))
        if counts.get(status)
    ]
    return f" ({', '.join(told)})" if told else ""
